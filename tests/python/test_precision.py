"""Mixed precision: a pipeline against the whole model in one process, with fp32 masters of the weights it computes with.

The reference does what a stage does, operator by operator, on the same micro-batches, and adds up their gradients in the
same order, so that it differs by the rounding of single operators at most. With `mse` there is none such. The
gradient of `cross_entropy` is rounded to bf16 once more in a stage than in PyTorch, by up to 2^-9 of it.
"""

import contextlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

import reference
from cluster import DEVICE, gpipe, losses_of, read_jsonl, write_spec
from gpipe import export
from mixed_precision import FIRST_SCALE, Masters, Trainer

# A GPU rounds other sums: then whole steps of bf16 lie between the two.
compares_bits = pytest.mark.skipif(DEVICE != "cpu", reason="compares last bits with PyTorch's on the CPU")

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SAMPLES, BATCH, STEPS = 30, 12, 5

MLP = [
    {"linear": {"in_features": 12, "out_features": 24}},
    {"stash": {"name": "a"}},
    {"gelu": {}},
    {"layer_norm": {"normalized_shape": [24]}},
    {"linear": {"in_features": 24, "out_features": 24}},
    {"pop_add": {"name": "a"}},
    {"tanh": {}},
    {"linear": {"in_features": 24, "out_features": 5}},
]
CONVOLUTIONS = [
    {"conv_2d": {"in_channels": 3, "out_channels": 8, "kernel_size": 3, "padding": 1}},
    {"batch_norm_2d": {"num_features": 8}},
    {"relu": {}},
    {"max_pool_2d": {"kernel_size": 2}},
    {"flatten": {}},
    {"linear": {"in_features": 128, "out_features": 5}},
]
OPTIMIZERS = {
    "adam": {"adam": {"lr": 0.01, "weight_decay": 0.1}},
    "adamw": {"adamw": {"lr": 0.01}},
    "momentum": {"sgd": {"lr": 0.1, "momentum": 0.9}},
    "nesterov": {"sgd": {"lr": 0.1, "momentum": 0.9, "nesterov": True}},
}


@contextlib.contextmanager
def one_thread():
    """As a worker has here: sums of halves are put together in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def share_of_loss(spec: dict, output: torch.Tensor, target: torch.Tensor, samples: int) -> torch.Tensor:
    if "mse" in spec["train"]["loss"]:
        return functional.mse_loss(output.float(), target, reduction="sum") / (samples * target[0].numel())
    return functional.cross_entropy(output.float(), target, reduction="sum") / samples


def train(spec: dict, weights: dict, inputs: torch.Tensor, targets: torch.Tensor):
    """The trainer after all steps, and the final state with masters."""
    dtype = TYPES[spec["train"]["precision"]]
    layers = reference.build(spec)
    layers.load_state_dict(weights)
    frozen = tuple(spec["train"].get("freeze", []))
    for name, parameter in layers.named_parameters():
        parameter.requires_grad_(not (frozen and name.startswith(frozen)))
    exact = {name: tensor.clone() for name, tensor in layers.state_dict().items()}
    for layer in layers:
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.to(dtype)
    masters = Masters(layers.train(), exact)
    trainer = Trainer(masters, spec)
    chunks = spec["pipeline"]["chunks"]
    for part in reference.batches(len(inputs), spec["train"]["batch_size"], spec["train"]["steps"]):
        x, y = inputs[part], targets[part]
        sizes = reference.micro_batches(len(x), chunks)

        def loss_of(xs, ys, samples=len(x)):
            xs = xs.to(dtype) if xs.is_floating_point() else xs
            return share_of_loss(spec, reference.forward(layers, xs), ys, samples)

        trainer.step([lambda xs=xs, ys=ys: loss_of(xs, ys) for xs, ys in zip(x.split(sizes), y.split(sizes))])
    state = {name: tensor.detach() for name, tensor in layers.state_dict().items()}
    state |= {name: tensor for name, tensor in exact.items() if frozen and name.startswith(frozen)}
    state |= {name: master.detach() for name, master in zip(masters.names, masters.exact)}
    return trainer, state


def make_job(folder, layers=MLP, *, precision, balance, optimizer="adam", loss="mse", inputs=None, targets=None,
             chunks=3, checkpoint="except_last", deferred=False, steps=STEPS, **options):
    """Its spec, weights and data, all in files of the folder."""
    torch.manual_seed(1)
    inputs = torch.randn(SAMPLES, 12) if inputs is None else inputs
    targets = torch.randn(SAMPLES, 5) if targets is None else targets
    save_file({"x": inputs, "y": targets}, folder / "data.safetensors")
    dataset = {"path": "data.safetensors", "inputs": ["x"], "target": "y"}
    spec = {"name": "precision", "model": {"sequential": layers, "weights": "init.safetensors"},
            "pipeline": {"balance": balance, "chunks": chunks, "checkpoint": checkpoint, "deferred_batch_norm": deferred},
            "train": {"dataset": dataset, "batch_size": BATCH, "steps": steps, "loss": {loss: {}}, "precision": precision,
                      "optimizer": OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer, **options}}
    weights = reference.build(spec).state_dict()
    save_file(weights, folder / "init.safetensors")
    return spec, weights, inputs, targets


def check(out, trainer: Trainer, state: dict, rtol: float, atol: float):
    steps = read_jsonl(out / "metrics.jsonl")
    assert [step["loss"] for step in steps] == pytest.approx(trainer.losses, rel=rtol)
    norms = [step.get("grad_norm") for step in steps]
    assert [norm is None for norm in norms] == [norm is None for norm in trainer.norms]
    assert [n for n in norms if n is not None] == pytest.approx([n for n in trainer.norms if n is not None], rel=rtol)
    trained = load_file(out / "model.safetensors")
    assert sorted(trained) == sorted(state)
    for name, expected in state.items():
        torch.testing.assert_close(trained[name], expected, rtol=rtol, atol=atol, msg=lambda text: f"{name}: {text}")


# With mse all operators are PyTorch's own, on the same numbers: what is left is the order in which a norm is added up.
EXACT = {"rtol": 1e-6, "atol": 1e-7}


@compares_bits
@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("clip", [0, 0.5], ids=["whole", "clipped"])
def test_a_layer_list_trains_as_in_one_process_and_the_cut_changes_no_bit(cluster, tmp_path, precision, optimizer, clip):
    results = []
    for cut, checkpoint in (([8], "never"), ([2, 6], "except_last"), ([1, 3, 2, 2], "always")):
        folder = tmp_path / checkpoint
        folder.mkdir()
        spec, *data = make_job(folder, precision=precision, optimizer=optimizer, balance=cut, checkpoint=checkpoint,
                               grad_clip_norm=clip)
        results.append(cluster.run(write_spec(folder, spec), folder / "out"))
    with one_thread():
        trainer, state = train(spec, *data)
    check(results[0], trainer, state, **EXACT)
    first = load_file(results[0] / "model.safetensors")
    for other in results[1:]:
        assert losses_of(other) == losses_of(results[0])
        for name, tensor in load_file(other / "model.safetensors").items():
            assert tensor.dtype == torch.float32 and torch.equal(tensor, first[name]), name


@compares_bits
@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("deferred", [False, True], ids=["each", "deferred"])
def test_batch_norm_stays_in_fp32(cluster, tmp_path, precision, deferred):
    inputs, targets = torch.randn(SAMPLES, 3, 8, 8), torch.randn(SAMPLES, 5)
    spec, *data = make_job(tmp_path, CONVOLUTIONS, precision=precision, balance=[2, 4], inputs=inputs, targets=targets,
                           deferred=deferred, optimizer={"sgd": {"lr": 0.01, "momentum": 0.9}})
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    with one_thread():
        trainer, state = train(spec, *data)
    trained = load_file(out / "model.safetensors")
    assert {tensor.dtype for name, tensor in trained.items() if "batches" not in name} == {torch.float32}
    if deferred:  # One update per mini-batch: only what is trained compares.
        assert trained["1.num_batches_tracked"] == STEPS
        state |= {name: trained[name] for name in state if "running" in name or "batches" in name}
    check(out, trainer, state, **EXACT)


@compares_bits
def test_frozen_layers_are_written_as_they_were_read(cluster, tmp_path):
    spec, weights, *data = make_job(tmp_path, precision="bf16", balance=[3, 5], freeze=["0.", "4.bias"])
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    with one_thread():
        trainer, state = train(spec, weights, *data)
    check(out, trainer, state, **EXACT)
    trained = load_file(out / "model.safetensors")
    for name in ("0.weight", "0.bias", "4.bias"):
        assert torch.equal(trained[name], weights[name]), name


@pytest.mark.parametrize("balance", [[8], [3, 5]], ids=str)
def test_cross_entropy_and_evaluation_in_bf16(cluster, tmp_path, balance):
    targets = torch.randint(0, 5, (SAMPLES,))
    spec, *data = make_job(tmp_path, precision="bf16", optimizer="momentum", loss="cross_entropy", balance=balance,
                           targets=targets)
    spec["train"]["evaluate"] = {"dataset": spec["train"]["dataset"]}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    with one_thread():
        trainer, state = train(spec, *data)
    # A gradient off by 2^-9, at each of five steps of rate 0.1.
    check(out, trainer, state, rtol=2e-2, atol=STEPS * 0.1 * 2 ** -8)
    (found,) = read_jsonl(out / "evaluation.jsonl")
    layers = reference.build(spec)
    layers.load_state_dict(load_file(out / "model.safetensors"))
    with torch.no_grad(), one_thread():
        outputs = reference.forward(layers.to(torch.bfloat16), data[1].bfloat16()).float()
    assert found["loss"] == pytest.approx(functional.cross_entropy(outputs, targets).item(), rel=1e-3)


class Norm(nn.Module):
    """In fp32, as large models do it in any precision."""

    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * self.scale).to(x.dtype)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.mix, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        q, k, v = self.mix(self.norm1(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Language(nn.Module):
    def __init__(self, tied=True, words=13, width=16):
        super().__init__()
        self.words, self.blocks = nn.Embedding(words, width), nn.ModuleList(Block(width) for _ in range(3))
        self.norm, self.head = Norm(width), nn.Linear(width, words, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, ids):
        x = self.words(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).float()


def make_language(dtype, tied=True) -> Language:
    torch.manual_seed(0)
    model = Language(tied).to(dtype)
    for module in model.modules():
        if isinstance(module, Norm):
            module.float()
    return model


def export_job(folder, model: Language, precision: str, **pipeline) -> tuple[dict, torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    ids = torch.randint(0, 13, (SAMPLES, 6))
    targets = torch.randn(SAMPLES, 6, 13)
    save_file({"ids": ids, "y": targets}, folder / "data.safetensors")
    export(model, (ids[:4],), str(folder / "model.pt2"))
    dataset = {"path": "data.safetensors", "inputs": ["ids"], "target": "y"}
    spec = {"name": "language", "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"chunks": 3} | pipeline,
            "train": {"dataset": dataset, "batch_size": BATCH, "steps": STEPS, "loss": {"mse": {}}, "precision": precision,
                      "optimizer": {"adamw": {"lr": 0.01}}, "grad_clip_norm": 0.5}}
    return spec, ids, targets


def train_language(model: Language, exact: dict, spec: dict, ids, targets) -> Trainer:
    masters = Masters(model.train(), exact)
    trainer = Trainer(masters, spec)
    for part in reference.batches(SAMPLES, BATCH, spec["train"]["steps"]):
        x, y = ids[part], targets[part]
        sizes = reference.micro_batches(len(x), 3)
        trainer.step([lambda xs=xs, ys=ys: share_of_loss(spec, model(xs), ys, len(x))
                      for xs, ys in zip(x.split(sizes), y.split(sizes))])
    return trainer


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("workers", [1, 3])
def test_an_exported_model_trains_as_in_one_process(cluster, tmp_path, precision, workers):
    dtype = TYPES[precision]
    spec, ids, targets = export_job(tmp_path, make_language(dtype), precision, workers=workers)
    torch.manual_seed(3)  # Weights that bf16 has not got.
    exact = {name: t.float() + 1e-4 * torch.randn(t.shape) for name, t in make_language(dtype).state_dict().items()}
    exact["head.weight"] = exact["words.weight"].clone()
    save_file(exact, tmp_path / "exact.safetensors")
    spec["model"]["weights"] = "exact.safetensors"
    spec["train"]["checkpoint_every"] = STEPS
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    model = make_language(dtype)
    with one_thread():  # Where the job runs: another device rounds at other places, and Adam makes steps of that.
        model.load_state_dict(exact)
        on_device = {name: tensor.to(DEVICE) for name, tensor in exact.items()}
        trainer = train_language(model.to(DEVICE), on_device, spec, ids.to(DEVICE), targets.to(DEVICE))
    trained = load_file(out / "model.safetensors")
    model.load_state_dict(trained)  # Takes it.
    for name, tensor in make_language(dtype).state_dict().items():
        assert trained[name].dtype == tensor.dtype, name
    saved = load_file(out / "checkpoints" / str(STEPS) / "optimizer.safetensors")
    assert "words.weight/master" in saved and "norm.scale/master" not in saved
    # Where the tied weight is used at both ends its two gradients are added in the type of the model in one process, and
    # in fp32 by two workers: apart by 2^-9 of it, and Adam makes of any gradient a step of its rate.
    tolerance = {"rtol": 2e-2, "atol": STEPS * 0.01 * 0.1}
    assert losses_of(out) == pytest.approx(trainer.losses, rel=2e-3)
    for name, exact_one in zip(trainer.masters.names, trainer.masters.exact):
        master, has_master = exact_one.detach().cpu(), f"{name}/master" in saved
        found = saved[f"{name}/master"] if has_master else trained[name]
        if DEVICE == "cpu":
            torch.testing.assert_close(found, master, **tolerance, msg=lambda t: f"{name}: {t}")
        else:  # Kernels of other shapes round elsewhere, and where a gradient is but roundings its step goes anywhere.
            moved = (master - exact[name]).norm()
            assert (found.float() - master).norm() < 0.1 * moved, name
        assert not has_master or torch.equal(found.to(dtype), trained[name]), name


@pytest.mark.parametrize("precision", TYPES)
def test_the_cut_of_an_exported_model_changes_no_bit(cluster, tmp_path, precision):
    spec, ids, targets = export_job(tmp_path, make_language(TYPES[precision], tied=False), precision)
    results = []
    for workers, checkpoint in ((1, "never"), (2, "always"), (4, "except_last")):
        spec["name"], spec["pipeline"] = f"cut-{workers}", {"chunks": 3, "workers": workers, "checkpoint": checkpoint}
        results.append(cluster.run(write_spec(tmp_path, spec), tmp_path / spec["name"]))
    for other in results[1:]:
        check_same(results[0], other, 0)
    if DEVICE != "cpu":
        return
    model = make_language(TYPES[precision], tied=False)
    with one_thread():
        trainer = train_language(model, model.state_dict(), spec, ids, targets)
    # With no tied weight all operators are PyTorch's own; a master that differs in its last bit may be rounded otherwise.
    assert losses_of(results[0]) == pytest.approx(trainer.losses, rel=1e-4)
    trained = load_file(results[0] / "model.safetensors")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(trained[name], tensor, rtol=2 ** -7, atol=1e-4, msg=lambda text: f"{name}: {text}")


class OwnLoss(nn.Module):
    """Computes its loss in the type that it has."""

    def __init__(self, dtype):
        super().__init__()
        self.first, self.second = nn.Linear(12, 24, dtype=dtype), nn.Linear(24, 5, dtype=dtype)

    def forward(self, x, y):
        made = self.second(torch.tanh(self.first(x.to(self.first.weight.dtype))))
        return {"loss": (made - y.to(made.dtype)).square().mean()}


@compares_bits
@pytest.mark.parametrize("precision", TYPES)
def test_a_loss_that_the_model_computes(cluster, tmp_path, precision):
    spec, _, x, y = make_job(tmp_path, precision=precision, balance=[8], grad_clip_norm=0.5)
    torch.manual_seed(0)
    model = OwnLoss(TYPES[precision])
    export(model, (x[:4], y[:4]), str(tmp_path / "model.pt2"))
    spec |= {"model": {"exported": {"path": "model.pt2"}}, "pipeline": {"chunks": 3, "workers": 2}}
    spec["train"] |= {"dataset": {"path": "data.safetensors", "inputs": ["x", "y"]},
                      "loss": {"model_output": {"output": "loss", "mean_of": "samples"}}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    with one_thread():
        trainer = Trainer(Masters(model.train(), model.state_dict()), spec)
        for part in reference.batches(SAMPLES, BATCH, STEPS):
            xs, ys = x[part], y[part]
            sizes = reference.micro_batches(len(xs), 3)
            trainer.step([lambda a=a, b=b: model(a, b)["loss"].float() * (len(a) / len(xs))
                          for a, b in zip(xs.split(sizes), ys.split(sizes))])
    assert losses_of(out) == pytest.approx(trainer.losses, rel=1e-6)
    trained = load_file(out / "model.safetensors")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(trained[name], tensor, rtol=2 ** -7, atol=1e-5, msg=lambda text: f"{name}: {text}")


def test_weights_in_fp32_are_the_first_masters(cluster, tmp_path):
    spec, *_ = export_job(tmp_path, make_language(torch.bfloat16), "bf16", workers=2)
    torch.manual_seed(3)
    exact = {name: torch.randn(t.shape) for name, t in make_language(torch.bfloat16).state_dict().items()}
    del exact["head.weight"]
    save_file(exact, tmp_path / "exact.safetensors")
    spec["model"]["weights"] = "exact.safetensors"
    spec["train"] |= {"steps": 1, "checkpoint_every": 1, "optimizer": {"sgd": {"lr": 1e-30}}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    saved = load_file(out / "checkpoints" / "1" / "optimizer.safetensors")
    masters = {name.removesuffix("/master"): tensor for name, tensor in saved.items() if name.endswith("/master")}
    assert set(masters) == {name for name in exact if "scale" not in name}
    for name, tensor in masters.items():
        assert torch.equal(tensor, exact[name]), name


def scale_in(out, step: int) -> float:
    return load_file(out / "checkpoints" / str(step) / "optimizer.safetensors")["precision/fp16"].item()


@compares_bits
@pytest.mark.parametrize("balance", [[5], [1, 4], [2, 1, 1, 1]], ids=str)
def test_an_overflow_in_one_stage_leaves_the_step_out_on_all(cluster, tmp_path, balance):
    """Inputs so large that, at the first scales, the gradient of the first layer's weight alone is too large for fp16."""
    layers = [layer for layer in MLP if not {"stash", "pop_add", "layer_norm"} & set(layer)]
    spec, weights, inputs, targets = make_job(
        tmp_path, layers, precision="fp16", balance=balance, inputs=500 * torch.randn(SAMPLES, 12), steps=8,
        checkpoint_every=1, keep_checkpoints=0, optimizer={"sgd": {"lr": 1e-6, "momentum": 0.9}})
    weights["0.weight"] /= 500
    save_file(weights, tmp_path / "init.safetensors")
    save_file({"x": inputs, "y": targets}, tmp_path / "data.safetensors")
    job = cluster.submit(write_spec(tmp_path, spec))
    assert cluster.wait(job)["state"] == "STATE_SUCCEEDED", job
    out = cluster.pull(job, tmp_path / "out")
    with one_thread():
        trainer, state = train(spec, weights, inputs, targets)
    assert trainer.left_out[:1] == [1] and len(trainer.left_out) < 8, trainer.left_out
    assert trainer.overflowed == {"0.weight"}
    scales = [scale_in(out, step) for step in range(1, 9)]
    assert scales[-1] == trainer.scale
    halved = [step + 1 for step, scale in enumerate(scales) if scale < ([FIRST_SCALE] + scales)[step]]
    assert halved == trainer.left_out
    check(out, trainer, state, **EXACT)
    log = gpipe("job", "logs", job, address=cluster.address).stdout
    assert log.count("is left out, as its gradients overflowed in fp16") == len(halved), log
    assert f"the loss scale is {trainer.scale:g} now" in log, log


def resumed(cluster, folder, spec, half: int, **pipeline):
    """The same training straight, and in two jobs cut otherwise."""
    spec["train"]["checkpoint_every"] = half
    straight = cluster.run(write_spec(folder, spec), folder / "straight")
    first = {**spec, "name": "first", "train": {**spec["train"], "steps": half}}
    job = cluster.wait(cluster.submit(write_spec(folder, first)))
    assert job["state"] == "STATE_SUCCEEDED", job
    rest = {**spec, "name": "rest", "pipeline": spec["pipeline"] | pipeline}
    return straight, cluster.run(write_spec(folder, rest), folder / "rest", "--resume", job["id"]), job["id"]


def check_same(straight, rest, first: int):
    assert losses_of(rest) == losses_of(straight)[first:]
    expected = load_file(straight / "model.safetensors")
    found = load_file(rest / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("precision", TYPES)
def test_a_layer_list_resumes_bit_for_bit_and_in_no_other_precision(cluster, tmp_path, precision):
    spec, *_ = make_job(tmp_path, precision=precision, balance=[2, 6], targets=20 * torch.randn(SAMPLES, 5), steps=8,
                        freeze=["3."])
    straight, rest, job = resumed(cluster, tmp_path, spec, 4, balance=[1, 3, 2, 2] if DEVICE == "cpu" else [2, 6])
    check_same(straight, rest, 4)
    for other in {"fp32", "bf16", "fp16"} - {precision}:
        spec["train"]["precision"] = other
        refused = refusal(cluster, tmp_path, spec, "--resume", job)
        assert f"train.precision: is {other}, and what the checkpoint has is of training in {precision}" in refused


@pytest.mark.parametrize("precision", TYPES)
def test_an_exported_model_resumes_bit_for_bit(cluster, tmp_path, precision):
    spec, *_ = export_job(tmp_path, make_language(TYPES[precision]), precision, workers=1)
    straight, rest, job = resumed(cluster, tmp_path, spec, 2)
    check_same(straight, rest, 2)
    spec["train"]["precision"] = "fp32"
    assert "train.precision: is fp32" in refusal(cluster, tmp_path, spec, "--resume", job)


def refusal(cluster, folder, spec, *arguments) -> str:
    done = gpipe("job", "submit", write_spec(folder, spec), *arguments, address=cluster.address, check=False)
    assert done.returncode == 2, done
    return done.stderr


def test_without_precision_an_exported_model_trains_in_its_own_types(cluster, tmp_path):
    spec, *_ = export_job(tmp_path, make_language(torch.bfloat16), "fp32", workers=2)
    spec["train"]["checkpoint_every"] = STEPS
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    saved = load_file(out / "checkpoints" / str(STEPS) / "optimizer.safetensors")
    assert saved["words.weight/exp_avg"].dtype == torch.bfloat16
    assert not [name for name in saved if name.endswith("/master") or name.startswith("precision/")]


@pytest.mark.parametrize("exported,wanted", [(torch.float32, "bf16"), (torch.bfloat16, "fp16")], ids=str)
def test_a_program_of_other_types_is_refused(cluster, tmp_path, exported, wanted):
    spec, *_ = export_job(tmp_path, make_language(exported), wanted)
    said = cluster.refusal(write_spec(tmp_path, spec))
    assert "train.precision: an exported model computes in the types it was exported in" in said
    assert f"model.to(torch.{str(TYPES[wanted]).removeprefix('torch.')})" in said


class Decayed(nn.Module):
    """Writes to a parameter that is trained."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 5, dtype=torch.bfloat16)

    def forward(self, x):
        with torch.no_grad():
            self.layer.bias.mul_(0.5)
        return self.layer(x.bfloat16())


def test_a_program_that_writes_to_what_has_a_master_is_refused(cluster, tmp_path):
    spec, *_ = make_job(tmp_path, precision="bf16", balance=[8])
    batch = torch.export.Dim("batch", min=1, max=1 << 20)
    program = torch.export.export(Decayed(), (torch.randn(4, 12),), dynamic_shapes=[{0: batch}])
    torch.export.save(program, tmp_path / "model.pt2")
    spec |= {"model": {"exported": {"path": "model.pt2"}}, "pipeline": {}}
    assert "train.precision: the model writes to 'layer.bias' itself" in cluster.refusal(write_spec(tmp_path, spec))


def test_dampening_in_fp16_is_refused(cluster, tmp_path):
    spec, *_ = make_job(tmp_path, precision="fp16", balance=[8],
                        optimizer={"sgd": {"lr": 0.1, "momentum": 0.9, "dampening": 0.1}})
    assert "train.optimizer.sgd.dampening: is not possible in fp16" in cluster.refusal(write_spec(tmp_path, spec))


def test_values_too_large_for_fp16_fail_once_no_scale_helps(cluster, tmp_path):
    """The loss is no number at any scale; that it is not at the first ones fails no job."""
    spec, weights, *_ = make_job(tmp_path, precision="fp16", balance=[2, 6], steps=100)
    weights["7.weight"].fill_(6e4)
    save_file(weights, tmp_path / "init.safetensors")
    job = cluster.wait(cluster.submit(write_spec(tmp_path, spec)))
    assert job["state"] == "STATE_FAILED" and job["failure"]["code"] == "NOT_FINITE", job
    assert "not finite in fp16 at any loss scale" in json.dumps(job["failure"])
    assert 38 <= int(job["steps_done"]) <= 42, job["steps_done"]
