"""Training on a cluster equals training in one PyTorch process: loss per step, gradients and final parameters."""

import itertools

import pytest
import torch
from safetensors.torch import load_file, save_file

import reference
from cluster import DEVICE, gpipe, read_jsonl, write_spec

# The reference runs on the CPU; a GPU sums in another order (TF32 is off on both).
RTOL, ATOL = (1e-5, 1e-6) if DEVICE == "cpu" else (1e-4, 1e-5)

MLP = [
    {"linear": {"in_features": 12, "out_features": 24}},
    {"gelu": {}},
    {"layer_norm": {"normalized_shape": [24]}},
    {"linear": {"in_features": 24, "out_features": 24}},
    {"tanh": {}},
    {"linear": {"in_features": 24, "out_features": 5}},
]
BALANCE = {1: [6], 2: [2, 4], 3: [3, 1, 2], 4: [1, 2, 1, 2]}


def close(actual, expected, what, rounding=0.0):
    torch.testing.assert_close(actual, expected, rtol=RTOL,
                               atol=max(ATOL * max(1.0, expected.abs().max().item()), rounding),
                               msg=lambda text: f"{what}: {text}")


def check_against_pytorch(cluster, folder, spec, inputs, targets):
    """Runs spec on the cluster and in PyTorch from the same weights and compares everything a job reports."""
    torch.manual_seed(1)
    weights = reference.build(spec).state_dict()
    save_file(weights, folder / "init.safetensors")
    save_file({"x": inputs, "y": targets}, folder / "data.safetensors")
    spec["model"]["weights"] = "init.safetensors"
    spec["train"]["dataset"] = {"path": "data.safetensors", "inputs": ["x"], "target": "y"}
    out = cluster.run(write_spec(folder, spec), folder / "out")

    losses, norms, final = reference.train(spec, weights, inputs, targets)
    steps = read_jsonl(out / "metrics.jsonl")
    close(torch.tensor([s["loss"] for s in steps], dtype=torch.float64), torch.tensor(losses, dtype=torch.float64), "loss")
    close(torch.tensor([s["grad_norm"] for s in steps], dtype=torch.float64), torch.tensor(norms, dtype=torch.float64),
          "grad_norm")
    trained = load_file(out / "model.safetensors")
    assert sorted(trained) == sorted(final)
    # How far PyTorch's own floats are from doubles on this CPU: two sums in other orders may differ by several times as
    # much, where an optimizer divides a gradient near zero by its own size.
    exact = reference.train(spec, weights, *(t.double() if t.is_floating_point() else t for t in (inputs, targets)),
                            dtype=torch.float64)[2]
    for name, expected in final.items():
        close(trained[name], expected, name, 4 * (expected - exact[name]).abs().max().item())


def spec_of(name, layers, loss, optimizer, *, balance, chunks, checkpoint, batch_size=12, steps=3, **train):
    return {
        "name": name,
        "model": {"sequential": layers},
        "pipeline": {"balance": balance, "chunks": chunks, "checkpoint": checkpoint},
        "train": {"batch_size": batch_size, "steps": steps, "loss": loss, "optimizer": optimizer, **train},
    }


GRID = list(itertools.product([1, 2, 3, 4], [1, 2, 3, 7, 8], ["always", "except_last", "never"]))


@pytest.mark.parametrize("stages,chunks,checkpoint", GRID)
def test_gradients_and_losses_for_every_cut(cluster, tmp_path, stages, chunks, checkpoint):
    # With SGD at rate 1, the first step's change of a parameter is its gradient. 30 samples in batches of 12 leave an
    # uneven last batch, and 12 and 6 do not divide by 7 or 8.
    spec = spec_of("grid", MLP, {"cross_entropy": {}}, {"sgd": {"lr": 1.0}}, balance=BALANCE[stages], chunks=chunks,
                   checkpoint=checkpoint)
    check_against_pytorch(cluster, tmp_path, spec, torch.randn(30, 12), torch.randint(0, 5, (30,)))


LOSSES = {
    "cross_entropy": ({"cross_entropy": {}}, lambda n: torch.randint(0, 5, (n,))),
    "label_smoothing": ({"cross_entropy": {"label_smoothing": 0.1}}, lambda n: torch.randint(0, 5, (n,))),
    "ignore_index": ({"cross_entropy": {"ignore_index": 3, "label_smoothing": 0.2}}, lambda n: torch.randint(0, 5, (n,))),
    "mse": ({"mse": {}}, lambda n: torch.randn(n, 5)),
    "bce_with_logits": ({"bce_with_logits": {}}, lambda n: torch.rand(n, 5)),
}
OPTIMIZERS = {
    "sgd": {"sgd": {"lr": 0.1, "weight_decay": 0.01}},
    "momentum": {"sgd": {"lr": 0.1, "momentum": 0.9, "dampening": 0.1}},
    "nesterov": {"sgd": {"lr": 0.1, "momentum": 0.9, "nesterov": True}},
    "adam": {"adam": {"lr": 0.01, "weight_decay": 0.1}},
    "adamw": {"adamw": {"lr": 0.01, "betas": [0.8, 0.95], "weight_decay": 0.1}},
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_losses_and_optimizers(cluster, tmp_path, loss, optimizer):
    arguments, targets = LOSSES[loss]
    # Adam turns rounding of gradients near zero into steps of full size, so its data has no dead units to differ on.
    spec = spec_of("options", MLP, arguments, OPTIMIZERS[optimizer], balance=[3, 3], chunks=5, checkpoint="always",
                   steps=5)
    check_against_pytorch(cluster, tmp_path, spec, torch.randn(30, 12), targets(30))


def likely_classes(n, dtype):
    return torch.randn(n, 5).softmax(-1).to(dtype)


TARGETS = {
    "mse_float64": ({"mse": {}}, lambda n: torch.randn(n, 5, dtype=torch.float64)),
    "mse_float16": ({"mse": {}}, lambda n: torch.randn(n, 5).half()),
    "mse_bfloat16": ({"mse": {}}, lambda n: torch.randn(n, 5).bfloat16()),
    "mse_int64": ({"mse": {}}, lambda n: torch.randint(-3, 3, (n, 5))),
    "mse_uint8": ({"mse": {}}, lambda n: torch.randint(0, 9, (n, 5), dtype=torch.uint8)),
    "mse_bool": ({"mse": {}}, lambda n: torch.randn(n, 5) > 0),
    "bce_float64": ({"bce_with_logits": {}}, lambda n: torch.rand(n, 5, dtype=torch.float64)),
    "bce_bfloat16": ({"bce_with_logits": {}}, lambda n: torch.rand(n, 5).bfloat16()),
    "classes_uint8": ({"cross_entropy": {}}, lambda n: torch.randint(0, 5, (n,), dtype=torch.uint8)),
    "ignored_uint8": ({"cross_entropy": {"ignore_index": 3}}, lambda n: torch.randint(0, 5, (n,), dtype=torch.uint8)),
    "probabilities": ({"cross_entropy": {}}, lambda n: likely_classes(n, torch.float32)),
    "probabilities_float64": ({"cross_entropy": {}}, lambda n: likely_classes(n, torch.float64)),
    "probabilities_smoothed": ({"cross_entropy": {"label_smoothing": 0.1}}, lambda n: likely_classes(n, torch.float16)),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("balance", [[6], [2, 3, 1]], ids=str)
def test_targets_of_the_types_that_pytorch_takes(cluster, tmp_path, target, balance):
    loss, targets = TARGETS[target]
    spec = spec_of("targets", MLP, loss, {"sgd": {"lr": 0.5}}, balance=balance, chunks=5, checkpoint="always")
    check_against_pytorch(cluster, tmp_path, spec, torch.randn(30, 12), targets(30))


def test_evaluation_counts_the_likeliest_class_of_probabilities(cluster, tmp_path):
    files = {"path": "data.safetensors", "inputs": ["x"], "target": "y"}
    spec = spec_of("likeliest", MLP, {"cross_entropy": {}}, {"sgd": {"lr": 1e-9}}, balance=[2, 4], chunks=4,
                   checkpoint="always", steps=1, dataset=files, evaluate={"dataset": files})
    torch.manual_seed(1)
    layers, inputs, targets = reference.build(spec), torch.randn(30, 12), likely_classes(30, torch.float32)
    save_file(layers.state_dict(), tmp_path / "init.safetensors")
    save_file({"x": inputs, "y": targets}, tmp_path / "data.safetensors")
    spec["model"]["weights"] = "init.safetensors"
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    with torch.no_grad():
        outputs = reference.forward(layers, inputs)
        loss = torch.nn.functional.cross_entropy(outputs, targets)
    (found,) = read_jsonl(out / "evaluation.jsonl")
    assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((outputs.argmax(1) == targets.argmax(1)).float().mean().item())


TARGET_REFUSALS = {
    "int32 classes": ({"cross_entropy": {}}, torch.zeros(8, dtype=torch.int32), "numbers of classes, I64 or U8"),
    "probabilities and ignore_index": ({"cross_entropy": {"ignore_index": 1}}, likely_classes(8, torch.float32),
                                       "has no use for ignore_index"),
    "bce with whole numbers": ({"bce_with_logits": {}}, torch.ones(8, 5, dtype=torch.int64), "F32, F64, F16 or BF16"),
    "a class beyond the output": ({"cross_entropy": {}}, torch.full((8,), 7, dtype=torch.uint8), "sample 0 has class 7"),
}


@pytest.mark.parametrize("case", TARGET_REFUSALS)
def test_targets_that_a_loss_cannot_use_are_refused(cluster, tmp_path, case):
    loss, targets, words = TARGET_REFUSALS[case]
    spec = spec_of("refused", MLP, loss, {"sgd": {"lr": 0.5}}, balance=[6], chunks=2, checkpoint="always",
                   dataset={"path": "data.safetensors", "inputs": ["x"], "target": "y"})
    save_file({"x": torch.randn(8, 12), "y": targets}, tmp_path / "data.safetensors")
    refused = cluster.refusal(write_spec(tmp_path, spec))
    assert "train.dataset.target: " in refused and words in refused


@pytest.mark.parametrize("schedule", [
    {"step": {"step_size": 2, "gamma": 0.5}},
    {"warmup_cosine": {"warmup_steps": 2, "final_lr": 0.01}},
    {"warmup_linear": {"warmup_steps": 3}},
], ids=lambda s: next(iter(s)))
def test_learning_rate_schedules_and_clipping(cluster, tmp_path, schedule):
    spec = spec_of("schedules", MLP, {"cross_entropy": {}}, {"sgd": {"lr": 0.5, "momentum": 0.9}}, balance=[1, 3, 2],
                   chunks=4, checkpoint="except_last", steps=6, lr_schedule=schedule, grad_clip_norm=0.3)
    check_against_pytorch(cluster, tmp_path, spec, torch.randn(30, 12), torch.randint(0, 5, (30,)))


CONV = [
    {"conv_2d": {"in_channels": 2, "out_channels": 8, "kernel_size": 3, "padding": 1}},
    {"relu": {}},
    {"conv_2d": {"in_channels": 8, "out_channels": 8, "kernel_size": [3, 1], "groups": 2, "bias": False}},
    {"sigmoid": {}},
    {"avg_pool_2d": {"kernel_size": 2}},
    {"flatten": {}},
    {"linear": {"in_features": 96, "out_features": 5}},
]
BATCH_NORM = [
    {"conv_2d": {"in_channels": 2, "out_channels": 8, "kernel_size": 3, "padding": 1}},
    {"batch_norm_2d": {"num_features": 8}},
    {"gelu": {"approximate": "tanh"}},
    {"max_pool_2d": {"kernel_size": 2}},
    {"flatten": {}},
    {"linear": {"in_features": 128, "out_features": 16}},
    {"batch_norm_1d": {"num_features": 16, "momentum": 0.3}},
    {"linear": {"in_features": 16, "out_features": 5}},
]
TRANSFORMER = [
    {"embedding": {"num_embeddings": 20, "embedding_dim": 16, "padding_idx": 0}},
    {"transformer_encoder_layer": {"d_model": 16, "nhead": 4, "dim_feedforward": 32, "dropout": 0.0}},
    {"transformer_encoder_layer": {"d_model": 16, "nhead": 2, "dim_feedforward": 24, "dropout": 0.0,
                                   "norm_first": True, "activation": "gelu"}},
    {"flatten": {}},
    {"linear": {"in_features": 112, "out_features": 5}},
]
SKIPS = [
    {"linear": {"in_features": 12, "out_features": 16}},
    {"stash": {"name": "far"}},
    {"tanh": {}},
    {"stash": {"name": "near"}},
    {"linear": {"in_features": 16, "out_features": 16}},
    {"pop_cat": {"name": "near"}},
    {"linear": {"in_features": 32, "out_features": 16}},
    {"pop_add": {"name": "far"}},
    {"linear": {"in_features": 16, "out_features": 5}},
]
MODELS = {
    "conv": (CONV, lambda: torch.randn(48, 2, 8, 8), [[3, 4], [1, 2, 2, 2]]),
    "batch_norm": (BATCH_NORM, lambda: torch.randn(48, 2, 8, 8), [[2, 6], [1, 2, 4, 1]]),
    "transformer": (TRANSFORMER, lambda: torch.randint(0, 20, (48, 7)), [[2, 3], [1, 1, 3]]),
    "skips": (SKIPS, lambda: torch.randn(48, 12), [[2, 7], [3, 2, 4], [2, 2, 2, 3]]),
}


@pytest.mark.parametrize("model,balance", [(m, b) for m, (_, _, cuts) in MODELS.items() for b in cuts], ids=str)
@pytest.mark.parametrize("checkpoint", ["always", "never"])
def test_layers(cluster, tmp_path, model, balance, checkpoint):
    layers, inputs, _ = MODELS[model]
    # Batch norm over a handful of samples would amplify rounding, so its micro-batches have eight of them.
    spec = spec_of(model.replace("_", "-"), layers, {"cross_entropy": {}}, {"sgd": {"lr": 0.1, "momentum": 0.9}},
                   balance=balance, chunks=3, checkpoint=checkpoint, batch_size=24, steps=4)
    check_against_pytorch(cluster, tmp_path, spec, inputs(), torch.randint(0, 5, (48,)))


def test_frozen_layers_keep_their_values_and_feed_the_rest(cluster, tmp_path):
    spec = spec_of("frozen", MLP, {"cross_entropy": {}}, {"adamw": {"lr": 0.01}}, balance=[2, 2, 2], chunks=3,
                   checkpoint="always", freeze=["0.", "3.weight"])
    check_against_pytorch(cluster, tmp_path, spec, torch.randn(30, 12), torch.randint(0, 5, (30,)))


def test_deferred_batch_norm_has_the_running_statistics_of_the_whole_batch(cluster, tmp_path):
    spec = spec_of("deferred", BATCH_NORM[:6], {"mse": {}}, {"sgd": {"lr": 1e-12}}, balance=[2, 4], chunks=3,
                   checkpoint="always", batch_size=10, steps=4)
    spec["pipeline"]["deferred_batch_norm"] = True
    inputs, targets = torch.randn(20, 2, 8, 8), torch.randn(20, 16)
    save_file({"x": inputs, "y": targets}, tmp_path / "data.safetensors")
    torch.manual_seed(1)
    layers = reference.build(spec)
    save_file(layers.state_dict(), tmp_path / "init.safetensors")
    spec["model"]["weights"] = "init.safetensors"
    spec["train"]["dataset"] = {"path": "data.safetensors", "inputs": ["x"], "target": "y"}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    layers.train()
    for part in reference.batches(20, 10, 4):
        reference.forward(layers, inputs[part])
    trained = load_file(out / "model.safetensors")
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        close(trained[name].float(), layers.state_dict()[name].float(), name)


DROPOUT = [
    {"linear": {"in_features": 12, "out_features": 16}},
    {"dropout": {"p": 0.3}},
    {"relu": {}},
    {"linear": {"in_features": 16, "out_features": 16}},
    {"dropout": {}},
    {"linear": {"in_features": 16, "out_features": 5}},
]


def curve(cluster, folder, balance, checkpoint, workers=None):
    folder.mkdir()
    spec = spec_of("bits", DROPOUT, {"cross_entropy": {}}, {"adamw": {"lr": 0.01}}, balance=balance, chunks=4,
                   checkpoint=checkpoint, steps=12, seed=5, shuffle=True, grad_clip_norm=0.5)
    if workers:
        spec["pipeline"]["workers"] = workers
    spec["model"]["init_seed"] = 3
    save_file({"x": torch.arange(360, dtype=torch.float32).reshape(30, 12).sin(), "y": torch.arange(30) % 5},
              folder / "data.safetensors")
    spec["train"]["dataset"] = {"path": "data.safetensors", "inputs": ["x"], "target": "y"}
    out = cluster.run(write_spec(folder, spec), folder / "out")
    return [s["loss"] for s in read_jsonl(out / "metrics.jsonl")], load_file(out / "model.safetensors")


def test_the_loss_curve_is_the_same_to_the_bit_for_every_cut(cluster, tmp_path):
    expected_losses, expected = curve(cluster, tmp_path / "whole", [6], "never")
    assert len(set(expected_losses)) > 6
    cases = [([3, 3], "always", None), ([1, 2, 3], "except_last", None), ([2, 1, 1, 2], "never", None),
             ([1, 1, 1, 1, 1, 1], "always", 2), ([2, 2, 2], "always", 1)]
    for number, (balance, checkpoint, workers) in enumerate(cases):
        losses, weights = curve(cluster, tmp_path / str(number), balance, checkpoint, workers)
        assert losses == expected_losses, (balance, checkpoint, workers)
        for name, tensor in expected.items():
            assert torch.equal(weights[name], tensor), (name, balance, checkpoint, workers)


@pytest.mark.parametrize("balance,chunks,batch_size", [([6], 1, 64), ([2, 4], 3, 7), ([1, 2, 1, 2], 8, 5)])
def test_inference_keeps_the_order_of_samples(cluster, tmp_path, balance, chunks, batch_size):
    spec = {"name": "infer", "model": {"sequential": DROPOUT, "weights": "init.safetensors"},
            "pipeline": {"balance": balance, "chunks": chunks},
            "infer": {"inputs": "x.safetensors", "batch_size": batch_size}}
    torch.manual_seed(2)
    layers = reference.build(spec)
    inputs = torch.randn(45, 12)
    save_file(layers.state_dict(), tmp_path / "init.safetensors")
    save_file({"input": inputs}, tmp_path / "x.safetensors")
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    layers.eval()
    with torch.no_grad():
        close(load_file(out / "outputs.safetensors")["output"], reference.forward(layers, inputs), "output")


def test_checkpoints_resume_on_another_number_of_workers(cluster, tmp_path):
    folder = tmp_path
    spec = spec_of("resume", DROPOUT, {"cross_entropy": {}}, {"adamw": {"lr": 0.01}}, balance=[3, 3], chunks=4,
                   checkpoint="always", steps=10, seed=5, shuffle=True, checkpoint_every=4)
    save_file({"x": torch.randn(30, 12), "y": torch.arange(30) % 5}, folder / "data.safetensors")
    spec["train"]["dataset"] = {"path": "data.safetensors", "inputs": ["x"], "target": "y"}
    path = write_spec(folder, spec)
    whole = cluster.run(path, folder / "whole")
    expected = [s["loss"] for s in read_jsonl(whole / "metrics.jsonl")]

    spec["train"]["steps"] = 8
    spec["name"] = "half"
    half = cluster.wait(cluster.submit(write_spec(folder, spec)))
    assert half["state"] == "STATE_SUCCEEDED", half
    spec["train"]["steps"] = 10
    spec["name"] = "rest"
    spec["pipeline"]["balance"] = [1, 2, 3]
    rest = cluster.run(write_spec(folder, spec), folder / "rest", "--resume", half["id"])
    steps = read_jsonl(rest / "metrics.jsonl")
    assert [s["step"] for s in steps] == [9, 10]
    assert [s["loss"] for s in steps] == expected[8:]
    for name, tensor in load_file(whole / "model.safetensors").items():
        assert torch.equal(load_file(rest / "model.safetensors")[name], tensor), name

    checkpoint = whole / "checkpoints" / "8"
    spec["name"] = "folder"
    spec["pipeline"]["balance"] = [6]
    again = cluster.run(write_spec(folder, spec), folder / "again", "--resume", checkpoint)
    assert [s["loss"] for s in read_jsonl(again / "metrics.jsonl")] == expected[8:]

    spec["model"]["sequential"] = DROPOUT[:-1] + [{"linear": {"in_features": 16, "out_features": 6}}]
    other = gpipe("job", "submit", write_spec(folder, spec), "--resume", half["id"], address=cluster.address, check=False)
    assert other.returncode == 2 and "resume: '5.weight' is F32" in other.stderr, other.stderr


def test_evaluation_reports_loss_and_accuracy(cluster, tmp_path):
    spec = spec_of("evaluate", MLP, {"cross_entropy": {}}, {"sgd": {"lr": 1e-9}}, balance=[2, 4], chunks=4,
                   checkpoint="always", steps=5, evaluate={"dataset": {"path": "test.safetensors", "inputs": ["x"],
                                                                       "target": "y"}, "every_steps": 2})
    torch.manual_seed(1)
    layers = reference.build(spec)
    save_file(layers.state_dict(), tmp_path / "init.safetensors")
    spec["model"]["weights"] = "init.safetensors"
    x, y = torch.randn(31, 12), torch.randint(0, 5, (31,))
    save_file({"x": x, "y": y}, tmp_path / "test.safetensors")
    spec["train"]["dataset"] = {"path": "test.safetensors", "inputs": ["x"], "target": "y"}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    with torch.no_grad():
        output = reference.forward(layers.eval(), x)
    lines = read_jsonl(out / "evaluation.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 5]
    for line in lines:
        assert line["loss"] == pytest.approx(torch.nn.functional.cross_entropy(output, y).item(), rel=1e-5)
        assert line["accuracy"] == pytest.approx((output.argmax(1) == y).float().mean().item())
