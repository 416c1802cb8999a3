"""Models saved by torch.export, run by the cluster, against the same model in PyTorch."""

import json
import pathlib
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cluster import DEVICE, gpipe, losses_of, read_jsonl, write_spec
from exported import RTOL, expect_model, parts_of, save_model
from reference import optimise

VOCABULARY, WIDTH, TOKENS, SAMPLES, BATCH = 23, 16, 8, 20, 8


class Block(nn.Module):
    def __init__(self, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))
        return x + self.dropout(self.down(torch.relu(self.up(x))))


class LanguageModel(nn.Module):
    """Two inputs, two outputs, positions that depend on no input's values, sizes that depend on the batch."""

    def __init__(self, dropout: float = 0.0, tied: bool = False):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(TOKENS, WIDTH)
        self.blocks = nn.ModuleList(Block(dropout) for _ in range(3))
        self.norm = nn.BatchNorm1d(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids, scale):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x.flatten(0, 1)).reshape(x.shape)
        return {"hidden": x, "logits": self.head(x) * scale[:, None, None]}


def language_data(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    data = {"tokens": torch.randint(VOCABULARY, (SAMPLES, TOKENS)), "scale": torch.rand(SAMPLES) + 0.5,
            "labels": torch.randint(VOCABULARY, (SAMPLES, TOKENS))}
    save_file(data, folder / "data.safetensors")
    return data


def language_spec(name: str, **pipeline) -> dict:
    return {
        "name": name,
        "model": {"exported": {"path": "model.pt2"}},
        "pipeline": {"chunks": 1, "checkpoint": "always", **pipeline},
        "train": {"dataset": {"path": "data.safetensors", "inputs": ["tokens", "scale"], "target": "labels"},
                  "batch_size": BATCH, "steps": 5, "seed": 7,
                  "loss": {"cross_entropy": {"output": "logits", "class_dim": -1}},
                  "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}},
    }


def make_language_job(folder: pathlib.Path, **options) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    data = language_data(folder)
    torch.manual_seed(5)
    model = LanguageModel(**options)
    save_model(model, folder / "model.pt2", data["tokens"][:3], data["scale"][:3])
    return model, data


def train_here(model: nn.Module, data: dict[str, torch.Tensor], steps: int = 5, clip: float = 0) -> list[float]:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)

    def losses() -> Iterator[torch.Tensor]:
        for step in range(steps):
            first = step * BATCH % 24  # Mini-batches of 8, 8 and 4 samples.
            rows = slice(first, min(first + BATCH, SAMPLES))
            logits = model(data["tokens"][rows], data["scale"][rows])["logits"]
            yield nn.functional.cross_entropy(logits.transpose(1, 2), data["labels"][rows])

    return optimise(optimizer, losses(), clip)[0]


@pytest.mark.parametrize("pipeline", [{"workers": 1}, {"workers": 2}, {"workers": 3},
                                      {"workers": 2, "checkpoint": "never"}], ids=str)
def test_trains_as_pytorch_does(cluster, tmp_path, pipeline):
    model, data = make_language_job(tmp_path)
    out = cluster.run(write_spec(tmp_path, language_spec("whole", **pipeline)), tmp_path / "out")
    losses = train_here(model, data)
    assert losses_of(out) == pytest.approx(losses, rel=RTOL)
    expect_model(out, model)


def test_the_curve_does_not_depend_on_the_cut_with_dropout_too(cluster, tmp_path):
    make_language_job(tmp_path, dropout=0.3)
    parts = parts_of(tmp_path, language_spec("plan", workers=1, chunks=3), cluster.address)
    curves = {}
    for balance in ([parts], [1, parts - 1], [parts // 2, parts - parts // 2], [parts // 3, parts // 3, parts - parts // 3 * 2]):
        name = "cut-" + "-".join(map(str, balance))
        spec = language_spec(name, balance=balance, chunks=3)
        out = cluster.run(write_spec(tmp_path, spec), tmp_path / name)
        curves[name] = losses_of(out)
    whole, *cut = curves.values()
    for curve in cut:  # On a GPU other kernels take what has crossed, since it is contiguous.
        assert curve == (whole if DEVICE == "cpu" else pytest.approx(whole, rel=RTOL)), curves


@pytest.mark.parametrize("clip", [0, 0.5])
@pytest.mark.parametrize("pipeline", [{"workers": 3}, {"workers": 2, "stages": 3}, {"workers": 1, "stages": 2}], ids=str)
def test_tied_parameters_on_several_stages_stay_equal(cluster, tmp_path, pipeline, clip):
    model, data = make_language_job(tmp_path, tied=True)
    spec = language_spec("tied", workers=pipeline["workers"])
    spec["train"] |= {"grad_clip_norm": clip, "checkpoint_every": 3}
    if "stages" in pipeline:
        parts, stages = parts_of(tmp_path, language_spec("plan", workers=1), cluster.address), pipeline["stages"]
        spec["pipeline"]["balance"] = [parts // stages] * (stages - 1) + [parts - parts // stages * (stages - 1)]
    job = cluster.submit(write_spec(tmp_path, spec))
    assert cluster.wait(job)["state"] == "STATE_SUCCEEDED"
    gpipe("job", "pull", job, "--output", tmp_path / "out", address=cluster.address)
    losses = train_here(model, data, clip=clip)
    assert losses_of(tmp_path / "out") == pytest.approx(losses, rel=RTOL)
    expect_model(tmp_path / "out", model)
    model.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"), strict=True)

    saved = load_file(tmp_path / "out" / "checkpoints" / "3" / "model.safetensors")
    assert len({"tokens.weight", "head.weight"} & set(saved)) == 1, "a tied parameter is stored once"
    rest = language_spec("rest", workers=2)
    rest["train"]["grad_clip_norm"] = clip
    out = cluster.run(write_spec(tmp_path, rest), tmp_path / "rest", "--resume", job)
    assert losses_of(out) == pytest.approx(losses[3:], rel=RTOL)


def test_results_are_initial_weights_of_the_next_job(cluster, tmp_path):
    model, data = make_language_job(tmp_path, tied=True)
    cluster.run(write_spec(tmp_path, language_spec("first", workers=2)), tmp_path / "first")
    spec = language_spec("second", workers=3)
    spec["model"]["weights"] = "first/model.safetensors"
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "second")
    train_here(model, data)
    assert losses_of(out) == pytest.approx(train_here(model, data), rel=10 * RTOL)


def save_shards(model: nn.Module, folder: pathlib.Path, left_out: str) -> dict[str, str]:
    """Two files and their index, as save_pretrained(max_shard_size=...) leaves them, without the tied parameter."""
    state = {name: tensor for name, tensor in model.state_dict().items() if name != left_out}
    files = [f"model-{i + 1:05}-of-00002.safetensors" for i in range(2)]
    index = {name: files[i * 2 // len(state)] for i, name in enumerate(state)}
    folder.mkdir()
    for file in files:
        save_file({name: state[name] for name in state if index[name] == file}, folder / file, {"format": "pt"})
    total = sum(tensor.nbytes for tensor in state.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)
    return index


@pytest.mark.parametrize("left_out", ["head.weight", "tokens.weight"])
def test_weights_come_from_the_shards_of_an_index(cluster, tmp_path, left_out):
    model, data = make_language_job(tmp_path, tied=True)
    torch.manual_seed(11)
    model = LanguageModel(tied=True)  # Other weights than those that were exported.
    save_shards(model, tmp_path / "hub", left_out)
    spec = language_spec("sharded", workers=3)
    spec["model"]["weights"] = "hub/model.safetensors.index.json"
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    assert losses_of(out) == pytest.approx(train_here(model, data), rel=RTOL)
    expect_model(out, model)


def test_shards_that_do_not_fit_are_refused(cluster, tmp_path):
    model, _ = make_language_job(tmp_path, tied=True)
    index = save_shards(model, tmp_path / "hub", "head.weight")
    spec = language_spec("sharded", workers=2)
    spec["model"]["weights"] = "hub/model.safetensors.index.json"
    last = tmp_path / "hub" / "model-00002-of-00002.safetensors"
    state = load_file(last)
    save_file({name: tensor for name, tensor in state.items() if name != "norm.bias"}, last)
    assert index["norm.bias"] == last.name
    words = cluster.refusal(write_spec(tmp_path, spec))
    assert "model.weights: 'hub/model-00002-of-00002.safetensors' has no tensor 'norm.bias'" in words
    last.unlink()
    assert "model.weights: there is no file" in cluster.refusal(write_spec(tmp_path, spec))


def test_frozen_parameters_stay(cluster, tmp_path):
    model, data = make_language_job(tmp_path)
    spec = language_spec("frozen", workers=2)
    spec["train"]["freeze"] = ["tokens.", "blocks.0."]
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(("tokens.", "blocks.0.")))
    train_here(model, data)
    expect_model(out, model)


def test_evaluation_and_inference_turn_dropout_and_batch_statistics_off(cluster, tmp_path):
    model, data = make_language_job(tmp_path, dropout=0.5)
    save_file({"ids": data["tokens"], "scale": data["scale"]}, tmp_path / "inputs.safetensors")
    spec = {"name": "infer", "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"workers": 3, "chunks": 3},
            "infer": {"inputs": "inputs.safetensors", "batch_size": 7}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    with torch.no_grad():
        expected = model.eval()(data["tokens"], data["scale"])
    outputs = load_file(out / "outputs.safetensors")
    assert set(outputs) == {"hidden", "logits"}
    for name, output in outputs.items():
        torch.testing.assert_close(output, expected[name], rtol=RTOL, atol=RTOL)

    spec["infer"]["outputs"] = ["logits"]
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "logits")
    assert set(load_file(out / "outputs.safetensors")) == {"logits"}


class RelativePositions(nn.Module):
    """As in T5, layers share a bias without a batch, which has a gradient; the loss is its own and its first output."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.bias = nn.Embedding(2 * TOKENS, 2)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(3))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))

    def forward(self, ids, labels):
        batch, length = ids.shape
        places = torch.arange(length)
        bias = self.bias(places[:, None] - places[None, :] + TOKENS).permute(2, 0, 1)[None]
        x = self.tokens(ids)
        for layer, norm in zip(self.layers, self.norms):
            q, k, v = (part.view(batch, length, 2, -1).transpose(1, 2) for part in layer(norm(x)).chunk(3, -1))
            weights = (q @ k.transpose(2, 3) + bias).softmax(-1)
            x = x + (weights @ v).transpose(1, 2).reshape(batch, length, WIDTH)
        logits = x @ self.tokens.weight.t()
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def make_own_loss_job(folder: pathlib.Path, name: str, **pipeline) -> tuple[nn.Module, dict[str, torch.Tensor], dict]:
    data = language_data(folder)
    torch.manual_seed(5)
    model = RelativePositions()
    save_model(model, folder / "model.pt2", data["tokens"][:3], data["labels"][:3])
    spec = language_spec(name, **pipeline)
    spec["train"] |= {"dataset": {"path": "data.safetensors", "inputs": ["tokens", "labels"]},
                      "loss": {"model_output": {}}, "evaluate": {
                          "dataset": {"path": "data.safetensors", "inputs": ["tokens", "labels"]}}}
    return model, data, spec


@pytest.mark.parametrize("pipeline", [{"workers": 1}, {"workers": 3}, {"workers": 3, "chunks": 3},
                                      {"workers": 2, "chunks": 3, "checkpoint": "never"}], ids=str)
def test_a_model_that_computes_its_loss(cluster, tmp_path, pipeline):
    model, data, spec = make_own_loss_job(tmp_path, "own-loss", **pipeline)
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    rows = [slice(first, min(first + BATCH, SAMPLES)) for first in (0, 8, 16, 0, 8)]
    losses = (model(data["tokens"][part], data["labels"][part])["loss"] for part in rows)
    expected, _ = optimise(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), losses)
    assert losses_of(out) == pytest.approx(expected, rel=RTOL)
    expect_model(out, model)
    evaluation, = read_jsonl(out / "evaluation.jsonl")
    with torch.no_grad():
        assert evaluation["loss"] == pytest.approx(model(data["tokens"], data["labels"])["loss"].item(), rel=RTOL)
    assert "accuracy" not in evaluation


def test_a_value_without_a_batch_crosses(cluster, tmp_path):
    _, _, spec = make_own_loss_job(tmp_path, "plan", workers=3, chunks=3)
    plan = json.loads(gpipe("plan", write_spec(tmp_path, spec), "-o", "json", address=cluster.address).stdout)["plan"]
    shapes = [value.get("shape") for layer in plan["layers"] for value in layer.get("makes", ())]
    assert [{"fixed": 1}, {"fixed": 2}, {"fixed": 8}, {"fixed": 8}] in shapes
    parts = len(plan["layers"])
    spec["pipeline"] = {"balance": [parts // 3, parts // 3, parts - parts // 3 * 2], "chunks": 3, "checkpoint": "always"}
    edges = json.loads(gpipe("plan", write_spec(tmp_path, spec), "-o", "json", address=cluster.address).stdout)["plan"]["edges"]
    assert any("per_sample" not in edge["shape"][0] and edge.get("requires_grad") for edge in edges), edges


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.convolution(x))).flatten(1))


@pytest.mark.parametrize("checkpoint", ["always", "never"])
def test_deferred_batch_norm_has_the_running_statistics_of_the_whole_batch(cluster, tmp_path, checkpoint):
    torch.manual_seed(4)
    model, inputs = Normalised(), torch.randn(SAMPLES, 2, 8, 8) + 3
    save_file({"x": inputs, "y": torch.randn(SAMPLES, 3)}, tmp_path / "data.safetensors")
    save_model(model, tmp_path / "model.pt2", inputs[:3])
    spec = language_spec("deferred", workers=2, chunks=3, deferred_batch_norm=True, checkpoint=checkpoint)
    spec["train"] |= {"dataset": {"path": "data.safetensors", "inputs": ["x"], "target": "y"}, "loss": {"mse": {}},
                      "optimizer": {"sgd": {"lr": 1e-12}}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    for step in range(5):
        model(inputs[step * BATCH % 24:][:BATCH])
    state, expected = load_file(out / "model.safetensors"), model.state_dict()
    for name in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"):
        torch.testing.assert_close(state[name], expected[name], rtol=RTOL, atol=1e-6)


def test_a_checkpoint_of_one_cut_resumes_on_another(cluster, tmp_path):
    model, data = make_language_job(tmp_path)
    spec = language_spec("half", workers=3)
    spec["train"] |= {"steps": 2, "checkpoint_every": 2}
    half = cluster.wait(cluster.submit(write_spec(tmp_path, spec)))
    assert half["state"] == "STATE_SUCCEEDED", half
    spec = language_spec("rest", workers=2)
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "rest", "--resume", half["id"])
    losses = train_here(model, data)
    assert losses_of(out) == pytest.approx(losses[2:], rel=RTOL)
    expect_model(out, model)


def test_split_begins_stages_at_modules(cluster, tmp_path):
    model, data = make_language_job(tmp_path)
    spec = write_spec(tmp_path, language_spec("split", split=["blocks.0.down", "blocks.2"]))
    plan = json.loads(gpipe("plan", spec, "-o", "json", address=cluster.address).stdout)["plan"]
    begins = [plan["layers"][stage.get("first_layer", 0)].get("begins", []) for stage in plan["stages"]]
    assert [names[:1] for names in begins] == [["tokens"], ["blocks.0.down"], ["blocks.2"]]
    assert plan["stage_worker"] == [0, 1, 2]
    out = cluster.run(spec, tmp_path / "out")
    losses = train_here(model, data)
    assert losses_of(out) == pytest.approx(losses, rel=RTOL)
    expect_model(out, model)


def changed(**train) -> dict:
    spec = language_spec("bad", workers=2)
    spec["train"] |= train
    return spec


@pytest.mark.parametrize("spec, words", [
    (changed(loss={"cross_entropy": {"output": "logit"}}), "no output 'logit'; it has: hidden, logits"),
    (changed(loss={"cross_entropy": {"output": "logits"}}), "cross_entropy expects"),
    (changed(dataset={"path": "data.safetensors", "inputs": ["tokens"], "target": "labels"}),
     "names 1 tensors, but the model's inputs are ids, scale"),
    (changed(dataset={"path": "data.safetensors", "inputs": ["scale", "tokens"], "target": "labels"}),
     "the model's input 'ids' is Long [any, 8]"),
    (changed(loss={"model_output": {"output": "logits"}}), "has no use: with model_output"),
    (changed(loss={"model_output": {"output": "logits"}},
             dataset={"path": "data.safetensors", "inputs": ["tokens", "scale"]}),
     "model_output expects the model's output to be one number"),
    (changed(freeze=["nothing."]), "'nothing.' begins no tensor's name"),
    (dict(changed(), pipeline={"balance": [1, 1]}), "must add up to the number of parts"),
    (dict(changed(), pipeline={"split": ["blocks.3"]}),
     "pipeline.split[0]: the model has no module 'blocks.3' that computes anything; did you mean 'blocks."),
], ids=["output", "classes", "inputs", "dtype", "target", "no number", "freeze", "balance", "split"])
def test_what_does_not_fit_the_model_is_refused_with_its_field(cluster, tmp_path, spec, words):
    make_language_job(tmp_path)
    assert words in cluster.refusal(write_spec(tmp_path, spec))


def test_a_broken_archive_is_refused(cluster, tmp_path):
    make_language_job(tmp_path)
    path = tmp_path / "model.pt2"
    path.write_bytes(path.read_bytes()[:2000])
    words = cluster.refusal(write_spec(tmp_path, language_spec("broken", workers=2)))
    assert "model.exported.path" in words and "not a model that can be run" in words
    path.write_bytes(b"")
    assert "model.exported.path" in cluster.refusal(write_spec(tmp_path, language_spec("empty", workers=2)))


class Counting(nn.Module):
    """Counts its forwards in a buffer, which PyTorch would do in evaluation only because nobody asks for training."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("forwards", torch.zeros(()))

    def forward(self, x):
        self.forwards.add_(1)
        return self.layer(x) + self.forwards


@pytest.mark.parametrize("checkpoint", ["always", "never"])
def test_evaluation_leaves_the_buffers_alone(cluster, tmp_path, checkpoint):
    torch.manual_seed(4)
    save_file({"x": torch.randn(SAMPLES, 4), "y": torch.randn(SAMPLES, 3)}, tmp_path / "data.safetensors")
    save_model(Counting(), tmp_path / "model.pt2", torch.zeros(3, 4))
    data = {"path": "data.safetensors", "inputs": ["x"], "target": "y"}
    spec = language_spec("counting", workers=1, checkpoint=checkpoint)
    spec["train"] |= {"dataset": data, "loss": {"mse": {}}, "evaluate": {"dataset": data, "every_steps": 2}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    assert load_file(out / "model.safetensors")["forwards"].item() == 5


def highest_memory(pid: int) -> int:
    """Bytes that a process has had in memory at its highest, but for files that it maps."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def test_a_model_is_looked_at_without_its_weights(fresh_cluster, tmp_path):
    rows, width = 1 << 18, 128
    model = nn.Sequential(nn.Embedding(rows, width), nn.LayerNorm(width), nn.Linear(width, 2), nn.ReLU())
    save_model(model, tmp_path / "model.pt2", torch.zeros(3, 4, dtype=torch.long))
    save_file({"input": torch.zeros(4, 4, dtype=torch.long)}, tmp_path / "inputs.safetensors")
    spec = {"name": "large", "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"workers": 2},
            "infer": {"inputs": "inputs.safetensors"}}
    worker = fresh_cluster.start_worker("w0")
    fresh_cluster.wait_idle(1)
    before = highest_memory(worker.pid)
    fresh_cluster.submit(write_spec(tmp_path, spec))  # Waits for a second worker.
    assert highest_memory(worker.pid) - before < rows * width * 4 / 2
