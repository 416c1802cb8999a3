"""Where data lies: several files, NumPy's, tokens, and folders that every worker sees. Losses equal PyTorch's."""

import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import reference
from cluster import Cluster, gpipe, read_jsonl, write_spec
from gpipe import export
from test_equality import close

VOCABULARY, LENGTH = 50, 16


def spec_of(name, dataset, **train):
    """Next-token prediction, too small to learn much."""
    return {
        "name": name,
        "model": {"sequential": [{"embedding": {"num_embeddings": VOCABULARY, "embedding_dim": 8}},
                                 {"linear": {"in_features": 8, "out_features": 24}}, {"gelu": {}},
                                 {"linear": {"in_features": 24, "out_features": VOCABULARY}}],
                  "weights": "init.safetensors"},
        "pipeline": {"balance": [2, 2], "chunks": 2},
        "train": {"dataset": dataset, "batch_size": 4, "loss": {"cross_entropy": {"class_dim": -1}},
                  "optimizer": {"sgd": {"lr": 0.5}}, **train},
    }


def mix(x):
    x = (x + 0x9e3779b97f4a7c15) % 2**64
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 % 2**64
    x = (x ^ x >> 27) * 0x94d049bb133111eb % 2**64
    return x ^ x >> 31


def epoch_order(samples, seed, epoch):
    return torch.randperm(samples, generator=torch.Generator().manual_seed(mix((seed + mix(epoch)) % 2**64)))


def losses_of_pytorch(spec, weights, windows, steps):
    """The plain loop over windows [N, LENGTH + 1] in the order of epochs."""
    layers = reference.build(spec)
    layers.load_state_dict(weights)
    optimizer = reference.optimizer_of(spec, layers.parameters())
    batch, losses = spec["train"]["batch_size"], []
    per_epoch = (len(windows) + batch - 1) // batch
    for step in range(steps):
        order = epoch_order(len(windows), spec["train"].get("seed", 0), step // per_epoch)
        first = step % per_epoch * batch
        chosen = windows[order[first:first + batch]]
        optimizer.zero_grad()
        logits = reference.forward(layers, chosen[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), chosen[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def windows_of(*texts):
    """nanoGPT's windows, at multiples of the length, and none over the end of a file."""
    parts = []
    for text in texts:
        starts = range(0, len(text) - LENGTH, LENGTH)
        parts += [torch.from_numpy(text[i:i + LENGTH + 1].astype(np.int64)) for i in starts]
    return torch.stack(parts)


def text_of(count, seed, dtype=np.uint16):
    return np.random.default_rng(seed).integers(0, VOCABULARY, count).astype(dtype)


def llm_c_file(path, text):
    preamble = np.zeros(256, np.int32)
    preamble[:3] = 20240520, 1, len(text)
    path.write_bytes(preamble.tobytes() + text.astype(np.uint16).tobytes())


def megatron_file(path, text):
    path.write_bytes(text.astype(np.int32).tobytes())
    head = b"MMIDIDX\x00\x00" + (1).to_bytes(8, "little") + b"\x04"
    counts = (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
    tables = np.array([len(text)], np.int32).tobytes() + np.array([0, 0, 1], np.int64).tobytes()
    path.with_suffix(".idx").write_bytes(head + counts + tables)


def write_weights(folder, spec):
    torch.manual_seed(1)
    weights = reference.build(spec).state_dict()
    save_file(weights, folder / "init.safetensors")
    return weights


def check_losses(cluster, folder, spec, windows, steps):
    weights = write_weights(folder, spec)
    spec["train"]["steps"] = steps
    out = cluster.run(write_spec(folder, spec), folder / "out")
    metrics = read_jsonl(out / "metrics.jsonl")
    expected = losses_of_pytorch(spec, weights, windows, steps)
    close(torch.tensor([step["loss"] for step in metrics], dtype=torch.float64),
          torch.tensor(expected, dtype=torch.float64), "loss")
    assert all(0 <= step["data_wait_share"] <= 1 for step in metrics)


WRITERS = {
    "nanogpt": ({"dtype": "uint16"}, lambda path, text: path.write_bytes(text.tobytes())),
    "llm.c": ({}, llm_c_file),
    "megatron": ({}, megatron_file),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("where", ["sent", "shared"])
def test_tokens_have_the_loss_curve_of_pytorch_on_the_same_windows(cluster, tmp_path, writer, where):
    options, write = WRITERS[writer]
    (tmp_path / "data").mkdir()
    texts = [text_of(180, 1), text_of(97, 2)]
    for index, text in enumerate(texts):
        write(tmp_path / "data" / f"part-{index}.bin", text)
    prefix = f"shared:{tmp_path}/" if where == "shared" else ""
    spec = spec_of("tokens", {"tokens": {"path": f"{prefix}data/part-*.bin", "sequence_length": LENGTH, **options}},
                   shuffle=True, seed=7)
    check_losses(cluster, tmp_path, spec, windows_of(*texts), steps=11)


def test_sampling_goes_on_exactly_from_a_checkpoint_in_mid_epoch(cluster, tmp_path):
    text_of(400, 3).tofile(tmp_path / "text.bin")
    spec = spec_of("resumed", {"tokens": {"path": "text.bin", "dtype": "uint16", "sequence_length": LENGTH}},
                   shuffle=True, seed=3, checkpoint_every=4, steps=10)
    write_weights(tmp_path, spec)
    whole = read_jsonl(cluster.run(write_spec(tmp_path, spec), tmp_path / "whole") / "metrics.jsonl")
    rest = cluster.run(tmp_path / "resumed.yaml", tmp_path / "rest", "--resume",
                       tmp_path / "whole" / "checkpoints" / "4")
    assert [(s["step"], s["loss"]) for s in read_jsonl(rest / "metrics.jsonl")] == [
        (s["step"], s["loss"]) for s in whole[4:]]


@pytest.mark.parametrize("kind", ["safetensors", "npy"])
@pytest.mark.parametrize("where", ["sent", "shared"])
def test_several_files_are_one_data_set(cluster, tmp_path, kind, where):
    windows = windows_of(text_of(400, 4))
    paths = []
    for index, part in enumerate(windows.split([5, 1, len(windows) - 6])):
        folder = tmp_path / f"{index}"
        folder.mkdir()
        tensors = {"x": part[:, :-1].clone(), "y": part[:, 1:].clone()}
        if kind == "npy":
            for name, tensor in tensors.items():
                np.save(folder / f"{name}.npy", tensor.numpy())
        else:
            save_file(tensors, folder / "part.safetensors")
        paths.append(f"{index}/*.{kind}")
    if where == "shared":
        paths = [f"shared:{tmp_path}/{path}" for path in paths]
    spec = spec_of("files", {"path": paths, "inputs": ["x"], "target": "y"}, shuffle=True)
    check_losses(cluster, tmp_path, spec, windows, steps=9)


def test_weights_and_exported_models_may_lie_in_a_shared_folder(cluster, tmp_path):
    torch.manual_seed(2)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    (tmp_path / "away").mkdir()
    export(model, (torch.randn(2, 6),), tmp_path / "away" / "model.pt2")
    weights = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    save_file(weights, tmp_path / "away" / "weights.safetensors")
    inputs = torch.randn(7, 6)
    np.save(tmp_path / "away" / "input.npy", inputs.numpy())
    here = f"shared:{tmp_path}/away"
    spec = {"name": "shared", "model": {"exported": {"path": f"{here}/model.pt2"}, "weights": f"{here}/weights.safetensors"},
            "pipeline": {"workers": 2}, "infer": {"inputs": f"{here}/input.npy", "batch_size": 4}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    model.load_state_dict(weights)
    (outputs,) = load_file(out / "outputs.safetensors").values()
    close(outputs, model(inputs).detach(), "outputs")


def test_inference_reads_several_files(cluster, tmp_path):
    inputs = torch.randn(9, 4)
    for index, part in enumerate(inputs.split([4, 5])):
        save_file({"input": part.clone()}, tmp_path / f"part-{index}.safetensors")
    spec = {"name": "files", "model": {"sequential": [{"linear": {"in_features": 4, "out_features": 2}}]},
            "infer": {"inputs": "part-*.safetensors", "batch_size": 4}}
    weights = reference.build(spec).state_dict()
    save_file(weights, tmp_path / "init.safetensors")
    spec["model"]["weights"] = "init.safetensors"
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    outputs = load_file(out / "outputs.safetensors")["output"]
    close(outputs, inputs @ weights["0.weight"].T + weights["0.bias"], "outputs")


@pytest.fixture
def two_views(tmp_path):
    """A cluster of two workers, each with a copy of the same 200 files in its own folder."""
    views = [tmp_path / "view0", tmp_path / "view1"]
    (views[0] / "data").mkdir(parents=True)
    windows = windows_of(text_of(200 * LENGTH + 1, 5))
    for index in range(200):
        part = windows[index:index + 1]
        save_file({"x": part[:, :-1].clone(), "y": part[:, 1:].clone()},
                  views[0] / "data" / f"part-{index:03d}.safetensors")
    shutil.copytree(views[0], views[1])  # Keeps the times.
    running = Cluster(tmp_path / "cluster")
    try:
        for index, view in enumerate(views):
            running.start_worker(f"w{index}", arguments=("--shared-root", view))
        running.wait_idle(2)
        yield running, views
    finally:
        running.stop()


def touch_second(view, name):
    os.utime(view / "data" / name, (1, 1))


def change_second(view, name):
    path = view / "data" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def remove_second(view, name):
    (view / "data" / name).unlink()


@pytest.mark.parametrize("change", [None, touch_second, change_second, remove_second])
def test_a_shared_file_that_differs_on_one_worker_is_refused_by_name(two_views, tmp_path, change):
    cluster, views = two_views
    spec = spec_of("shared", {"path": "shared:/data/part-*.safetensors", "inputs": ["x"], "target": "y"}, steps=3)
    write_weights(tmp_path, spec)
    if change:
        change(views[1], "part-137.safetensors")
    job = cluster.wait(cluster.submit(write_spec(tmp_path, spec)))
    if not change:
        assert job["state"] == "STATE_SUCCEEDED", job
        return
    assert job["state"] == "STATE_FAILED", job
    assert job["failure"]["worker"] == "w1", job
    assert "shared:/data/part-137.safetensors is not the same on every worker" in job["reason"], job
    assert "steps_done" not in job


REFUSALS = {
    "no file": ({"path": "shared:/nowhere/x.safetensors"}, "train.dataset.path", "/nowhere/x.safetensors"),
    "no match": ({"path": "shared:/nowhere/*.safetensors"}, "train.dataset.path", "no file matches"),
    "not a pattern's": ({"path": "none-*.safetensors"}, "train.dataset.path", "no file matches"),
    "large token": ({"tokens": {"path": "large.bin", "dtype": "uint16", "sequence_length": 4}}, "train.dataset.tokens",
                    "token 60000"),
    "shared large token": ({"tokens": {"path": "shared:HERE/large.bin", "dtype": "uint16", "sequence_length": 4}},
                           "train.dataset.tokens", "token 60000"),
    "too short": ({"tokens": {"path": "large.bin", "dtype": "uint16", "sequence_length": 9}},
                  "train.dataset.tokens.sequence_length", "leaves nothing"),
    "unlike": ({"path": ["a.npy", "b/a.npy"], "inputs": ["a"], "target": "a"}, "train.dataset.path", "'b/a.npy'"),
}


def placed(value, folder):
    """The folder in the place of HERE, anywhere in a part of a spec."""
    if isinstance(value, dict):
        return {key: placed(part, folder) for key, part in value.items()}
    return value.replace("HERE", str(folder)) if isinstance(value, str) else value


@pytest.mark.parametrize("case", REFUSALS)
def test_data_that_cannot_be_used_is_refused_with_its_field(cluster, tmp_path, case):
    dataset, field, words = REFUSALS[case]
    (tmp_path / "b").mkdir()
    np.array([1] * 8 + [60000], np.uint16).tofile(tmp_path / "large.bin")
    np.save(tmp_path / "a.npy", np.zeros((3, 4), np.int64))
    np.save(tmp_path / "b" / "a.npy", np.zeros((3, 5), np.int64))
    spec = spec_of("refused", placed(dataset, tmp_path), steps=1)
    write_weights(tmp_path, spec)
    done = gpipe("job", "submit", write_spec(tmp_path, spec), address=cluster.address, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"{field}: " in done.stderr and words in done.stderr, done.stderr
