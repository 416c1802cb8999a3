"""Exported models whose values, parameters or types are seldom met: layouts at a cut, tensors that nothing uses,
parameters that forward() writes to, sparse gradients, batch normalisation over too little, and all types of PyTorch."""

import random

import pytest
import random_programs
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cluster import DEVICE, gpipe, losses_of, read_jsonl, write_spec
from exported import RTOL, expect_model, parts_of, save_model
from random_programs import difference
from reference import optimise

SAMPLES, WIDTH, CLASSES, STEPS = 8, 6, 3, 3


def make_job(folder, model: nn.Module, x: torch.Tensor, name: str, train: dict = {}, example=None, **pipeline) -> tuple[dict, torch.Tensor]:
    """The spec and the labels of a classification in whole batches."""
    y = torch.randint(CLASSES, (len(x),))
    save_file({"x": x.contiguous(), "y": y}, folder / "data.safetensors")
    save_model(model, folder / "model.pt2", x[:4] if example is None else example)
    return {"name": name, "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"chunks": 2, **pipeline},
            "train": {"dataset": {"path": "data.safetensors", "inputs": ["x"], "target": "y"}, "batch_size": SAMPLES,
                      "steps": STEPS, "loss": {"cross_entropy": {}}, "optimizer": {"sgd": {"lr": 0.1}}, **train}}, y


def train_here(model: nn.Module, x: torch.Tensor, y: torch.Tensor, optimizer=None, clip: float = 0) -> list[float]:
    losses = (nn.functional.cross_entropy(model(x), y) for _ in range(STEPS))
    return optimise(optimizer or torch.optim.SGD(model.parameters(), lr=0.1), losses, clip)[0]


@pytest.mark.skipif(DEVICE != "cpu", reason="on a GPU the curve of another cut differs by rounding")
@pytest.mark.parametrize("number", range(len(random_programs.PIECES)))
def test_random_programs_equal_pytorch_wherever_they_are_cut(cluster, tmp_path, number):
    assert random_programs.check(cluster, tmp_path, random.Random(number), number, cuts=2) < 1e-4


class TakesChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(2 * 9, CLASSES)

    def forward(self, x):
        return self.out(x.permute(0, 2, 3, 1).view(x.shape[0], 18))


def test_an_input_lies_in_memory_as_the_program_was_given_it(cluster, tmp_path):
    x, model = torch.randn(SAMPLES, 2, 3, 3), TakesChannelsLast()
    spec, y = make_job(tmp_path, model, x, "channels-last", workers=1,
                       example=x[:4].contiguous(memory_format=torch.channels_last))
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    assert losses_of(out) == pytest.approx(
        train_here(model, x.contiguous(memory_format=torch.channels_last), y), rel=RTOL)


class HasUnused(nn.Module):
    def __init__(self):
        super().__init__()
        self.unused_first = nn.Linear(2, 2)
        self.first = nn.Linear(WIDTH, WIDTH)
        self.unused, self.out = nn.BatchNorm1d(5), nn.Linear(WIDTH, CLASSES)
        self.register_buffer("scratch", torch.ones(4), persistent=False)

    def forward(self, x):
        return self.out(torch.tanh(self.first(x)))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_trained_model_has_all_of_state_dict(cluster, tmp_path, workers):
    x, model = torch.randn(SAMPLES, WIDTH), HasUnused()
    spec, y = make_job(tmp_path, model, x, "unused", {"checkpoint_every": 2, "optimizer": {"adamw": {"lr": 0.1, "weight_decay": 0.1}}},
                       workers=workers)
    job = cluster.submit(write_spec(tmp_path, spec))
    assert cluster.wait(job)["state"] == "STATE_SUCCEEDED"
    out = cluster.pull(job, tmp_path / "out")
    train_here(model, x, y, torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1))
    expect_model(out, model)
    model.load_state_dict(load_file(out / "model.safetensors"), strict=True)
    model.load_state_dict(load_file(out / "checkpoints" / "2" / "model.safetensors"), strict=True)

    resumed = cluster.run(write_spec(tmp_path, {**spec, "name": "resumed", "train": {**spec["train"], "steps": 4}}),
                          tmp_path / "resumed", "--resume", job)
    assert len(losses_of(resumed)) == 2, "from the checkpoint of step 2 on"
    other = HasUnused()
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    spec |= {"name": "other", "model": {"exported": {"path": "model.pt2"}, "weights": "other.safetensors", "strict": True}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "other")
    assert torch.equal(load_file(out / "model.safetensors")["unused_first.weight"], other.unused_first.weight)


class MaxNorm(nn.Module):
    """Looks up rows that it first makes shorter, and reads a weight that it first decays behind a layer in training."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(30, WIDTH, max_norm=0.8, sparse=True)
        self.first, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        h = torch.tanh(self.first(self.rows(x).mean(1)))
        with torch.no_grad():
            self.out.weight.mul_(0.5)
        return self.out(h)


@pytest.mark.parametrize("pipeline", [{"workers": workers, "checkpoint": checkpoint, "chunks": 3}
                                      for workers in (1, 2) for checkpoint in ("always", "except_last", "never")], ids=str)
def test_a_model_may_write_to_its_parameters(cluster, tmp_path, pipeline):
    torch.manual_seed(2)
    x, model = torch.randint(30, (SAMPLES, 4)), MaxNorm()
    spec, y = make_job(tmp_path, model, x, "writes-parameters", **pipeline)
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    assert losses_of(out) == pytest.approx(train_here(model, x, y), rel=RTOL)
    expect_model(out, model)


@pytest.mark.parametrize("optimizer", [{"sgd": {"lr": 0.1, "momentum": 0.9}}, {"adam": {"lr": 0.1}}], ids=str)
def test_sparse_gradients_train_as_dense_ones(cluster, tmp_path, optimizer):
    torch.manual_seed(2)
    x = torch.randint(30, (SAMPLES, 4))
    model = nn.Sequential(nn.Embedding(30, WIDTH, sparse=True), nn.Flatten(), nn.Linear(4 * WIDTH, CLASSES))
    spec, y = make_job(tmp_path, model, x, "sparse", {"optimizer": optimizer, "grad_clip_norm": 0.5}, workers=2)
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    model[0].sparse = False
    kind = torch.optim.SGD if "sgd" in optimizer else torch.optim.Adam
    made = kind(model.parameters(), **next(iter(optimizer.values())))
    assert losses_of(out) == pytest.approx(train_here(model, x, y, made, 0.5), rel=RTOL)
    expect_model(out, model)


class Pooled(nn.Module):
    def __init__(self, autocast: bool):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, CLASSES)
        self.autocast = autocast

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            x = self.norm(nn.functional.adaptive_avg_pool2d(self.conv(x), 1))
        return self.out(x.float().flatten(1))


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_batch_norm_over_one_value_is_refused_at_submission(cluster, tmp_path, autocast, deferred):
    x = torch.randn(SAMPLES + 3, 2, 5, 5)
    spec, _ = make_job(tmp_path, Pooled(autocast), x, "pooled", workers=1, chunks=8, deferred_batch_norm=deferred)
    assert "pipeline.chunks: makes a micro-batch of 1 sample" in cluster.refusal(write_spec(tmp_path, spec))
    spec["pipeline"]["chunks"] = 2
    said = cluster.refusal(write_spec(tmp_path, spec))
    assert "train.batch_size: leaves a last mini-batch of 3 samples" in said and "drop_last" in said
    spec["train"]["drop_last"] = True
    gpipe("validate", write_spec(tmp_path, spec), address=cluster.address)


def test_batch_norm_without_statistics_has_its_inputs_in_evaluation(cluster, tmp_path):
    x, model = torch.randn(SAMPLES, WIDTH), nn.Sequential(nn.BatchNorm1d(WIDTH, track_running_stats=False), nn.Linear(WIDTH, CLASSES))
    spec, y = make_job(tmp_path, model, x, "untracked", workers=1, chunks=1)
    spec["train"]["evaluate"] = {"dataset": spec["train"]["dataset"]}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    train_here(model, x, y)
    expected = nn.functional.cross_entropy(model.eval()(x), y).item()
    assert read_jsonl(out / "evaluation.jsonl")[-1]["loss"] == pytest.approx(expected, rel=RTOL)


TYPES = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.bool, torch.float64, torch.float16, torch.bfloat16, torch.uint16,
         torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64]


class AllTypes(nn.Module):
    """What it reads crosses in every type, with what no file holds too."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))  # What is made of the data alone would not cross.

    def forward(self, x):
        x = (x * self.scale).detach()
        values = {str(type).removeprefix("torch."): x.to(type) for type in TYPES}
        wide = x.to(torch.complex128) * 1j
        values["wide"] = wide.imag
        return values


def test_every_type_crosses_and_is_stored(cluster, tmp_path):
    x = torch.randint(0, 5, (SAMPLES, WIDTH)).float()
    save_file({"x": x}, tmp_path / "data.safetensors")
    save_model(AllTypes(), tmp_path / "model.pt2", x[:4])
    spec = {"name": "types", "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"chunks": 2, "workers": 1},
            "infer": {"inputs": "data.safetensors", "batch_size": SAMPLES}}
    parts = parts_of(tmp_path, spec, cluster.address)
    for last in (1, 2):
        spec |= {"name": f"types-{last}", "pipeline": {"chunks": 2, "balance": [parts - last, last]}}
        outputs = load_file(cluster.run(write_spec(tmp_path, spec), tmp_path / spec["name"]) / "outputs.safetensors")
        for name, expected in AllTypes()(x).items():
            assert outputs[name].dtype == expected.dtype
            assert outputs[name].view(torch.uint8).equal(expected.contiguous().view(torch.uint8)), name


def test_types_are_read_from_data_and_weights(cluster, tmp_path):
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.randn(5, dtype=torch.cfloat))
            self.register_buffer("small", torch.rand(5).to(torch.float8_e4m3fn))

        def forward(self, x, z):
            return {"y": (z * self.table).abs() + x.float() + self.small.float()}

    data = {"x": torch.randint(0, 60000, (SAMPLES, 5)).to(torch.uint16), "z": torch.randn(SAMPLES, 5, dtype=torch.cfloat)}
    model = Reads()
    save_file(data, tmp_path / "data.safetensors")
    save_model(Reads(), tmp_path / "model.pt2", *(tensor[:4].clone() for tensor in data.values()))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    spec = {"name": "reads", "model": {"exported": {"path": "model.pt2"}, "weights": "weights.safetensors"},
            "pipeline": {"workers": 2}, "infer": {"inputs": "data.safetensors", "batch_size": SAMPLES}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    torch.testing.assert_close(load_file(out / "outputs.safetensors")["y"], model(**data)["y"])


class Spectral(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.filter = nn.Parameter(torch.ones(WIDTH).to(dtype))
        self.out = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        return self.out((x * self.filter.to(torch.complex128)).real.float())


@pytest.mark.parametrize("dtype, words", [(torch.complex128, "safetensors"), (torch.float8_e5m2, "train.freeze")], ids=str)
def test_parameters_that_cannot_be_stored_or_updated_are_refused(cluster, tmp_path, dtype, words):
    x = torch.randn(SAMPLES, WIDTH)
    spec, _ = make_job(tmp_path, Spectral(dtype), x, "refused", workers=1)
    said = cluster.refusal(write_spec(tmp_path, spec))
    assert "model.exported.path: 'filter' is" in said and words in said
    if words == "train.freeze":
        spec["train"]["freeze"] = ["filter"]
        out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
        assert load_file(out / "model.safetensors")["filter"].dtype == dtype


def test_a_complex_parameter_resumes(cluster, tmp_path):
    torch.manual_seed(2)
    x, model = torch.randn(SAMPLES, WIDTH), Spectral(torch.complex64)
    spec, y = make_job(tmp_path, model, x, "complex", {"optimizer": {"adam": {"lr": 0.1}}, "grad_clip_norm": 0.5, "checkpoint_every": 1},
                       workers=2)
    half = cluster.submit(write_spec(tmp_path, {**spec, "train": {**spec["train"], "steps": 1}}))
    assert cluster.wait(half)["state"] == "STATE_SUCCEEDED"
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out", "--resume", half)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    assert losses_of(out) == pytest.approx(train_here(model, x, y, optimizer, 0.5)[1:], rel=RTOL)
    assert difference(load_file(out / "model.safetensors"), model.state_dict()) < RTOL


def test_an_output_that_no_file_holds_is_refused(cluster, tmp_path):
    class Wide(nn.Module):
        def forward(self, x):
            return {"wide": x.to(torch.complex128), "narrow": x * 2}

    x = torch.randn(SAMPLES, WIDTH)
    save_file({"x": x}, tmp_path / "data.safetensors")
    save_model(Wide(), tmp_path / "model.pt2", x[:4])
    spec = {"name": "wide", "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"workers": 1},
            "infer": {"inputs": "data.safetensors", "batch_size": SAMPLES}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    assert list(load_file(out / "outputs.safetensors")) == ["narrow"]
    spec["infer"]["outputs"] = ["wide"]
    assert "infer.outputs[0]: the model's output 'wide' is ComplexDouble" in cluster.refusal(write_spec(tmp_path, spec))
