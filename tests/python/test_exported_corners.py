"""Exported models that write to their input or their buffers, or have parameters that are seldom met, against PyTorch."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cluster import losses_of, read_jsonl, write_spec
from exported import RTOL, expect_model, parts_of, save_model
from reference import optimise
from test_exported import BATCH, SAMPLES, language_spec

ROWS = [slice(first, min(first + BATCH, SAMPLES)) for first in range(0, SAMPLES, BATCH)]
WIDTH, CLASSES = 6, 3


def make_job(folder, model: nn.Module, name: str, train: dict = {}, **pipeline) -> tuple[dict, torch.Tensor, torch.Tensor]:
    """The spec, the inputs and the targets of a regression on random data, an epoch of three mini-batches."""
    x, y = torch.randn(SAMPLES, WIDTH), torch.randn(SAMPLES, CLASSES)
    save_file({"x": x, "y": y}, folder / "data.safetensors")
    save_model(model, folder / "model.pt2", x[:3].clone())
    spec = language_spec(name, **pipeline)
    spec["train"] |= {"dataset": {"path": "data.safetensors", "inputs": ["x"], "target": "y"}, "loss": {"mse": {}},
                      "steps": len(ROWS), **train}
    return spec, x, y


def train_here(model: nn.Module, x: torch.Tensor, y: torch.Tensor, chunks: int = 1, clip: float = 0) -> tuple[list, list]:
    """Losses and gradient norms of an epoch in which each micro-batch sees what the one before left."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = (nn.functional.mse_loss(torch.cat([model(part.clone()) for part in x[rows].chunk(chunks)]), y[rows])
              for rows in ROWS)
    return optimise(optimizer, losses, clip or math.inf)


def expect_losses(out, losses: list[float]) -> None:
    assert losses_of(out) == pytest.approx(losses, rel=RTOL)


class WritesInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        x.add_(1)
        return self.second(torch.relu(self.first(x)))


@pytest.mark.parametrize("pipeline", [{"workers": workers, "checkpoint": checkpoint, "chunks": 3}
                                      for workers in (1, 2) for checkpoint in ("always", "except_last", "never")], ids=str)
def test_a_model_may_write_to_its_input(cluster, tmp_path, pipeline):
    torch.manual_seed(4)
    model = WritesInput()
    spec, x, y = make_job(tmp_path, model, "writes-input", **pipeline)
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    expect_losses(out, train_here(model, x, y)[0])
    expect_model(out, model)


class ViewsBuffer(nn.Module):
    """What it multiplies with is its buffer's memory, which the next micro-batch writes to."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.register_buffer("scale", torch.linspace(0, 1, WIDTH))

    def forward(self, x):
        self.scale.add_(0.5)
        scale = self.scale.view(1, -1)
        return self.second(self.first(x) * scale)


class CopiesBuffer(ViewsBuffer):
    def forward(self, x):
        self.scale.add_(0.5)
        return self.second(self.first(x) * self.scale.clone())


# Not `never`: as in PyTorch, micro-batches that all wait for their backward cannot share memory that each writes to.
@pytest.mark.parametrize("checkpoint", ["always", "except_last"])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_buffer_was_crosses_every_cut(cluster, tmp_path, workers, checkpoint):
    torch.manual_seed(4)
    model = ViewsBuffer()
    spec, x, y = make_job(tmp_path, model, "views-buffer", workers=workers, chunks=4, checkpoint=checkpoint)
    reference = CopiesBuffer()
    reference.load_state_dict(model.state_dict())
    losses, _ = train_here(reference, x, y, chunks=4)
    parts = parts_of(tmp_path, spec, cluster.address)
    assert parts > 2
    for first in range(1, parts):
        spec["pipeline"]["balance"] = [first, parts - first]
        out = cluster.run(write_spec(tmp_path, spec), tmp_path / f"out{first}")
        expect_losses(out, losses)
        expect_model(out, reference)


class Interleaved(nn.Module):
    """`scale` and `shift` belong to one part of the model, `gate`, which is registered between them, to another."""

    def __init__(self):
        super().__init__()
        self.scale, self.gate = nn.Parameter(torch.rand(WIDTH)), nn.Parameter(torch.rand(WIDTH))
        self.shift, self.last = nn.Parameter(torch.rand(WIDTH)), nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        h = x * self.scale
        h += self.shift
        return self.last(torch.sigmoid(h) * self.gate)


def test_the_gradient_norm_counts_every_parameter_of_a_part(cluster, tmp_path):
    torch.manual_seed(4)
    model = Interleaved()
    spec, x, y = make_job(tmp_path, model, "interleaved", {"grad_clip_norm": 0.1}, workers=1)
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    _, norms = train_here(model, x, y, clip=0.1)
    assert [step["grad_norm"] for step in read_jsonl(out / "metrics.jsonl")] == pytest.approx(norms, rel=RTOL)
    expect_model(out, model)


def test_the_gradient_norm_is_computed_where_it_is_used_or_asked_for(cluster, tmp_path):
    losses = {}
    for name, train in {"asked": {}, "not asked": {"grad_norm": False},
                        "used": {"grad_norm": False, "grad_clip_norm": 1e6}}.items():
        torch.manual_seed(4)
        spec, *_ = make_job(tmp_path, Interleaved(), "interleaved", train, workers=1)
        steps = read_jsonl(cluster.run(write_spec(tmp_path, spec), tmp_path / name) / "metrics.jsonl")
        assert [("grad_norm" in step) for step in steps] == [name != "not asked"] * len(steps)
        losses[name] = [step["loss"] for step in steps]
    assert losses["asked"] == losses["not asked"] == losses["used"]


class TwoHeads(nn.Module):
    """As in BERT with its pooler: one head is computed and not trained."""

    def __init__(self):
        super().__init__()
        self.body, self.pooler, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2), nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        h = torch.tanh(self.body(x))
        return {"logits": self.head(h), "pooled": self.pooler(h)}


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_job_resumes_with_a_parameter_that_never_has_a_gradient(cluster, tmp_path, kind):
    torch.manual_seed(4)
    optimizer = {"adamw": {"adamw": {"lr": 0.01}}, "sgd": {"sgd": {"lr": 0.1, "momentum": 0.9}}}[kind]
    train = {"loss": {"mse": {"output": "logits"}}, "optimizer": optimizer, "checkpoint_every": 1}
    spec, _, _ = make_job(tmp_path, TwoHeads(), f"two-heads-{kind}", train, workers=1)
    whole = cluster.run(write_spec(tmp_path, spec), tmp_path / "whole")
    spec["train"]["steps"] = 1
    half = cluster.wait(cluster.submit(write_spec(tmp_path, spec)))["id"]
    spec["train"]["steps"] = len(ROWS)
    resumed = cluster.run(write_spec(tmp_path, spec), tmp_path / "resumed", "--resume", half)
    expected = load_file(whole / "model.safetensors")
    for name, tensor in load_file(resumed / "model.safetensors").items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("workers", [1, 2])
def test_evaluation_counts_tokens_but_for_ignored_ones(cluster, tmp_path, workers):
    torch.manual_seed(4)
    tokens, labels = torch.randint(WIDTH, (SAMPLES, 5)), torch.randint(CLASSES, (SAMPLES, 5))
    labels[torch.rand(labels.shape) < 0.3] = -1
    labels[:7, 1:] = -1  # So that mini-batches count differently,
    labels[BATCH:2 * BATCH] = -1  # and one for nothing.
    save_file({"x": tokens, "y": labels}, tmp_path / "data.safetensors")
    data = {"path": "data.safetensors", "inputs": ["x"], "target": "y"}
    spec = language_spec("tokens", workers=workers, chunks=3)
    spec["model"] = {"sequential": [{"embedding": {"num_embeddings": WIDTH, "embedding_dim": 4}}, {"gelu": {}},
                                    {"linear": {"in_features": 4, "out_features": CLASSES}}]}
    spec["train"] |= {"dataset": data, "steps": 1, "evaluate": {"dataset": data},
                      "loss": {"cross_entropy": {"class_dim": -1, "ignore_index": -1}}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    model = nn.Sequential(nn.Embedding(WIDTH, 4), nn.GELU(), nn.Linear(4, CLASSES))
    model.load_state_dict(load_file(out / "model.safetensors"))
    with torch.no_grad():
        logits = model(tokens).flatten(0, 1)
    evaluation = read_jsonl(out / "evaluation.jsonl")[-1]
    counted = labels.flatten() != -1
    expected = nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=-1)
    assert evaluation["loss"] == pytest.approx(expected.item(), rel=RTOL)
    assert evaluation["accuracy"] == pytest.approx((logits.argmax(1) == labels.flatten())[counted].float().mean().item())
