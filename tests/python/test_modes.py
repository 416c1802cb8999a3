"""Models that are something else in evaluation than in training, on the cluster, against the same model in PyTorch."""

from __future__ import annotations

import json
import pathlib

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cluster import gpipe, losses_of, read_jsonl, write_spec
from exported import RTOL, save_model
from failure_table import failpoint
from gpipe import export
from reference import optimise

WIDTH, CLASSES, SAMPLES, BATCH = 6, 3, 20, 8


class StochasticDepth(nn.Module):
    """A block that some samples skip in training; so often that none does nearly never."""

    def __init__(self):
        super().__init__()
        self.first, self.block, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        y = torch.relu(self.block(x))
        if self.training:
            y = y * x.new_empty(x.shape[0], 1).bernoulli_(0.5).div_(0.5)
        return self.last(x + y)


class Noise(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)])

    def forward(self, x):
        x = self.layers[0](x)
        return self.layers[1](x + torch.randn_like(x) if self.training else x)


class Branches(nn.Module):
    """Two outputs in evaluation, whose buffer training does not use; a parameter that only training uses."""

    def __init__(self):
        super().__init__()
        self.first, self.extra, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.register_buffer("scale", torch.linspace(0.5, 2, CLASSES))

    def forward(self, x):
        x = self.first(x)
        if self.training:
            return {"scores": self.last(torch.sigmoid(x) + self.extra(x))}
        hard = (x > 0).float() * torch.tensor(1.5)
        return {"hard": hard, "scores": self.last(hard) * self.scale}


class Spectral(nn.Sequential):
    """Its buffers change with each training step, and are what evaluation divides by."""

    def __init__(self):
        norm = nn.utils.parametrizations.spectral_norm
        super().__init__(norm(nn.Linear(WIDTH, 16)), nn.Tanh(), norm(nn.Linear(16, 16)), nn.Tanh(), nn.BatchNorm1d(16),
                         norm(nn.Linear(16, CLASSES)))


class BatchStatistics(nn.Module):
    """A batch norm that has its batch's statistics in evaluation, too."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.norm = nn.BatchNorm1d(WIDTH, track_running_stats=False)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


class Sampled(nn.Module):
    """Random in both modes."""

    def __init__(self, always: bool = False):
        super().__init__()
        self.first, self.last, self.always = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 64), always

    def forward(self, x):
        x = self.last(self.first(x))
        return nn.functional.dropout(x, 0.5, training=True) if self.always else x + 0.1 * torch.randn_like(x)


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)
        self.drop, self.last = nn.Dropout(0.9), nn.Linear(WIDTH, CLASSES)
        self.norm.running_mean.copy_(torch.linspace(-1, 1, WIDTH))

    def forward(self, x):
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))


MODELS = [StochasticDepth, Noise, Branches, Spectral, BatchStatistics]


def make_data(folder: pathlib.Path, name: str = "x") -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    data = {name: torch.randn(SAMPLES, WIDTH), "labels": torch.randint(CLASSES, (SAMPLES,))}
    save_file(data, folder / "data.safetensors")
    return data


def save(folder: pathlib.Path, model: nn.Module, data: dict[str, torch.Tensor]) -> str:
    name = "input" if isinstance(model, nn.Sequential) else "x"
    export(model, (data["x"][:4],), folder / "model.pt2")
    return name


def infer_spec(name: str, **pipeline) -> dict:
    return {"name": name, "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"chunks": 1, **pipeline},
            "infer": {"inputs": "inputs.safetensors", "batch_size": BATCH}}


def train_spec(name: str, **pipeline) -> dict:
    data = {"path": "data.safetensors", "inputs": ["x"], "target": "labels"}
    return {"name": name, "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"chunks": 1, **pipeline},
            "train": {"dataset": data, "batch_size": BATCH, "steps": 4, "loss": {"cross_entropy": {}},
                      "optimizer": {"sgd": {"lr": 0.1}}, "evaluate": {"dataset": data, "every_steps": 2}}}


def outputs_of(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of each mini-batch by itself."""
    model.eval()
    with torch.no_grad():
        found = [model(rows) for rows in x.split(BATCH)]
    found = [rows if isinstance(rows, dict) else {"output": rows} for rows in found]
    return {name: torch.cat([rows[name] for rows in found]) for name in found[0]}


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_inference_is_what_the_model_does_in_eval(cluster, tmp_path, make):
    data = make_data(tmp_path)
    torch.manual_seed(0)
    model = make()
    name = save(tmp_path, model, data)
    save_file({name: data["x"]}, tmp_path / "inputs.safetensors")
    out = cluster.run(write_spec(tmp_path, infer_spec("infer", workers=2)), tmp_path / "out")
    found, expected = load_file(out / "outputs.safetensors"), outputs_of(model, data["x"])
    assert set(found) == set(expected)
    for output, values in expected.items():
        torch.testing.assert_close(found[output], values, rtol=RTOL, atol=RTOL)


@pytest.mark.parametrize("always", [False, True])
def test_what_is_random_in_eval_stays_random(cluster, tmp_path, always):
    data = make_data(tmp_path)
    torch.manual_seed(0)
    model = Sampled(always)
    save(tmp_path, model, data)
    rows = data["x"][:1].expand(2 * BATCH, -1).contiguous()
    save_file({"x": rows}, tmp_path / "inputs.safetensors")
    out = cluster.run(write_spec(tmp_path, infer_spec("infer", workers=2, chunks=2)), tmp_path / "out")
    found = load_file(out / "outputs.safetensors")["output"]
    assert len({tuple(row.tolist()) for row in found}) == len(found), "each sample draws for itself"
    if always:
        assert 0.4 < found.eq(0).float().mean() < 0.6


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_evaluation_in_training_is_what_the_model_does_in_eval(cluster, tmp_path, make, workers):
    data = make_data(tmp_path)
    torch.manual_seed(0)
    model = make()
    save(tmp_path, model, data)
    spec = train_spec("train", workers=workers)
    spec["train"]["checkpoint_every"] = 2
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    evaluated = read_jsonl(out / "evaluation.jsonl")
    assert [line["step"] for line in evaluated] == [2, 4]
    for line, file in zip(evaluated, ["checkpoints/2/model.safetensors", "model.safetensors"]):
        model.load_state_dict(load_file(out / file), strict=True)
        outputs = outputs_of(model, data["x"])
        scores = outputs["scores" if "scores" in outputs else "output"]
        assert line["loss"] == pytest.approx(nn.functional.cross_entropy(scores, data["labels"]).item(), rel=RTOL)
        assert line["accuracy"] == pytest.approx((scores.argmax(1) == data["labels"]).float().mean().item())


def test_both_programs_are_on_the_same_stages(cluster, tmp_path):
    data = make_data(tmp_path)
    save(tmp_path, StochasticDepth(), data)
    spec = write_spec(tmp_path, train_spec("plan", split=["block", "last"]))
    plan = json.loads(gpipe("plan", spec, "-o", "json", address=cluster.address).stdout)["plan"]
    assert len(plan["stages"]) == 3
    assert [(e.get("from_stage", 0), e["to_stage"]) for e in plan["evaluation_edges"]]
    assert not any(e.get("requires_grad") for e in plan["evaluation_edges"])


def test_a_resumed_training_has_what_only_evaluation_uses(cluster, tmp_path):
    data = make_data(tmp_path)
    torch.manual_seed(0)
    model = Branches()
    save(tmp_path, model, data)
    spec = train_spec("half", workers=2)
    spec["train"] |= {"steps": 2, "checkpoint_every": 2}
    half = cluster.submit(write_spec(tmp_path, spec))
    assert cluster.wait(half)["state"] == "STATE_SUCCEEDED"
    out = cluster.run(write_spec(tmp_path, train_spec("rest", workers=3)), tmp_path / "rest", "--resume", half)
    whole = cluster.run(write_spec(tmp_path, train_spec("whole", workers=1)), tmp_path / "whole")
    last, expected = (read_jsonl(folder / "evaluation.jsonl")[-1] for folder in (out, whole))
    assert last["loss"] == pytest.approx(expected["loss"], rel=RTOL)
    assert torch.equal(load_file(out / "model.safetensors")["scale"], model.scale)


@pytest.mark.parametrize("workers", [1, 3])
def test_frozen_modules_stay_frozen(cluster, tmp_path, workers):
    data = make_data(tmp_path)
    torch.manual_seed(0)
    model = Frozen().train()
    model.norm.eval()
    model.drop.eval()
    save(tmp_path, model, data)
    out = cluster.run(write_spec(tmp_path, train_spec("frozen", workers=workers)), tmp_path / "out")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    rows = [slice(first, min(first + BATCH, SAMPLES)) for first in (0, 8, 16, 0)]
    losses = (nn.functional.cross_entropy(model(data["x"][part]), data["labels"][part]) for part in rows)
    assert losses_of(out) == pytest.approx(optimise(optimizer, losses)[0], rel=RTOL)
    for name, value in load_file(out / "model.safetensors").items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=RTOL, atol=RTOL)
    assert read_jsonl(out / "evaluation.jsonl")[-1]["loss"] == pytest.approx(
        nn.functional.cross_entropy(model.eval()(data["x"]), data["labels"]).item(), rel=RTOL)


# --- Where evaluation is not known, or fails ---

class TrainsOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        return self.layer(x if self.training or x.sum() > 0 else -x)


@pytest.mark.parametrize("by_hand, words", [(True, "the model draws random numbers (torch.ops.aten.bernoulli_.float"),
                                            (False, "gpipe.export has saved the model for training only")])
def test_a_model_of_unknown_evaluation_is_only_trained(cluster, tmp_path, by_hand, words):
    data = make_data(tmp_path)
    if by_hand:
        save_model(StochasticDepth(), tmp_path / "model.pt2", data["x"][:4])
    else:
        save(tmp_path, TrainsOnly(), data)
    save_file({"x": data["x"]}, tmp_path / "inputs.safetensors")
    said = cluster.refusal(write_spec(tmp_path, infer_spec("infer", workers=1)))
    assert "model.exported.path: " in said and words in said
    spec = train_spec("evaluated", workers=1)
    said = cluster.refusal(write_spec(tmp_path, spec))
    assert "train.evaluate: the model cannot be evaluated: " in said and words in said
    del spec["train"]["evaluate"]
    cluster.run(write_spec(tmp_path, spec), tmp_path / "out")


@pytest.mark.parametrize("action", ["error", "kill"])
def test_an_evaluation_that_fails_at_the_end_does_not_cost_the_model(fresh_cluster, tmp_path, action):
    data = make_data(tmp_path)
    torch.manual_seed(0)
    save(tmp_path, StochasticDepth(), data)
    spec = train_spec("train", workers=2)
    spec["train"]["evaluate"].pop("every_steps")
    fresh_cluster.start_workers(2)
    whole = fresh_cluster.run(write_spec(tmp_path, spec), tmp_path / "whole")
    fresh_cluster.workers["w1"].terminate()
    fresh_cluster.workers["w1"].wait(30)
    fresh_cluster.start_worker("w2", environment=failpoint("worker.evaluation@2", action))
    fresh_cluster.wait_idle(2)
    job = fresh_cluster.wait(fresh_cluster.submit(write_spec(tmp_path, spec | {"max_restarts": 0})))
    assert job["state"] == "STATE_FAILED" and job["failure"]["worker"] == "w2", job
    out = fresh_cluster.pull(job["id"], tmp_path / "out")
    found, expected = (load_file(folder / "model.safetensors") for folder in (out, whole))
    assert set(found) == set(expected) and all(torch.equal(found[name], expected[name]) for name in expected)
