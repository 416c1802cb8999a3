"""Losses that the model computes itself, put together out of micro-batches: right is what the whole mini-batch gives."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from cluster import gpipe, losses_of, read_jsonl, write_spec
from gpipe import export
from reference import optimise

WORDS, SAMPLES, BATCH, STEPS = 11, 12, 8, 3


class Language(nn.Module):
    """`shifted`: labels are moved by one, as Hugging Face's causal language models move them."""

    def __init__(self, reduction="mean", shifted=False):
        super().__init__()
        self.tokens, self.hidden, self.head = nn.Embedding(WORDS, 16), nn.Linear(16, 16), nn.Linear(16, WORDS)
        self.reduction, self.shifted = reduction, shifted

    def forward(self, ids, labels):
        logits = self.head(torch.tanh(self.hidden(self.tokens(ids))))
        if self.shifted:
            logits, labels = logits[:, :-1], labels[:, 1:]
        loss = functional.cross_entropy(logits.reshape(-1, WORDS), labels.reshape(-1), reduction=self.reduction)
        return {"loss": loss, "count": (labels != -100).sum()}


def make_data(empty_half: bool = False) -> dict[str, torch.Tensor]:
    """Samples with six labels and then with two; optionally a second half of the mini-batch without any."""
    torch.manual_seed(1)
    ids = torch.randint(0, WORDS, (SAMPLES, 6))
    labels = ids.clone()
    for sample in range(SAMPLES):
        labels[sample, 6 if sample < 3 else 2:] = -100
    if empty_half:
        labels[BATCH // 2:BATCH] = -100
    return {"ids": ids, "labels": labels}


def make_job(folder, model, data, mean: dict, **pipeline) -> dict:
    export(model, tuple(data.values()), str(folder / "model.pt2"))
    save_file(data, folder / "data.safetensors")
    dataset = {"path": "data.safetensors", "inputs": ["ids", "labels"]}
    return {"name": "own-loss", "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"workers": 2} | pipeline,
            "train": {"dataset": dataset, "batch_size": BATCH, "steps": STEPS,
                      "loss": {"model_output": {"output": "loss"} | mean}, "optimizer": {"sgd": {"lr": 0.01}},
                      "evaluate": {"dataset": dataset}}}


def make_model(**options) -> Language:
    torch.manual_seed(0)
    return Language(**options)


def train_whole(model, data) -> list[float]:
    rows = [slice(0, BATCH) if step % 2 == 0 else slice(BATCH, SAMPLES) for step in range(STEPS)]
    losses = (model(data["ids"][part], data["labels"][part])["loss"] for part in rows)
    return optimise(torch.optim.SGD(model.parameters(), lr=0.01), losses)[0]


TARGETS = {"mean_of": "targets", "targets": "labels"}
COUNT = {"mean_of": "count", "count": "count"}
KINDS = {
    "targets": (TARGETS, {}),
    "shifted": (TARGETS | {"shift": 1}, {"shifted": True}),
    "count": (COUNT, {}),
    "count_shifted": (COUNT, {"shifted": True}),
    "sum": ({"mean_of": "sum"}, {"reduction": "sum"}),
}


@pytest.mark.parametrize("empty_half", [False, True], ids=["all", "empty_half"])
@pytest.mark.parametrize("pipeline", [{"chunks": 2}, {"chunks": 4, "checkpoint": "always"},
                                      {"chunks": 4, "checkpoint": "never"}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_train_what_the_whole_mini_batch_does(cluster, tmp_path, kind, pipeline, empty_half):
    mean, options = KINDS[kind]
    data = make_data(empty_half)
    out = cluster.run(write_spec(tmp_path, make_job(tmp_path, make_model(**options), data, mean, **pipeline)),
                      tmp_path / "out")
    model = make_model(**options)
    losses = train_whole(model, data)
    assert losses_of(out) == pytest.approx(losses, rel=1e-5)
    trained = load_file(out / "model.safetensors")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(trained[name], tensor, rtol=1e-5, atol=1e-7)
    with torch.no_grad():  # Over the data set as one batch.
        expected = model(**data)["loss"].item()
    evaluation, = read_jsonl(out / "evaluation.jsonl")
    assert evaluation["loss"] == pytest.approx(expected, rel=1e-5)


def warnings_of(cluster, job: str) -> str:
    """The orchestrator's own; workers may have some of their machine."""
    events = json.loads(gpipe("job", "logs", job, "-o", "json", address=cluster.address).stdout)["events"]
    return "\n".join(event["message"] for event in events if event.get("warning") and event["actor"] == "orchestrator")


@pytest.mark.parametrize("empty_half,options,said", [
    (False, {}, "it is no mean over samples"), (False, {"reduction": "sum"}, "it is no mean over samples"),
    (True, {}, "is not a number")], ids=["uneven", "sum", "nothing"])
def test_a_loss_that_is_no_mean_over_samples_is_said(cluster, tmp_path, empty_half, options, said):
    spec = make_job(tmp_path, make_model(**options), make_data(empty_half), {}, chunks=2)
    job = cluster.submit(write_spec(tmp_path, spec))
    cluster.wait(job)
    warnings = warnings_of(cluster, job)
    assert said in warnings and "train.loss.model_output.mean_of" in warnings, warnings


@pytest.mark.parametrize("mean,chunks", [({}, 2), ({"mean_of": "samples"}, 2), ({}, 1)], ids=str)
def test_nothing_is_said_of_one_that_is_or_is_declared_so(cluster, tmp_path, mean, chunks):
    data = make_data()
    if not mean and chunks > 1:
        data["labels"] = data["ids"].clone()
    job = cluster.submit(write_spec(tmp_path, make_job(tmp_path, make_model(), data, mean, chunks=chunks)))
    assert cluster.wait(job)["state"] == "STATE_SUCCEEDED"
    assert warnings_of(cluster, job) == ""


@pytest.mark.parametrize("mean,field", [
    ({"mean_of": "targets"}, "train.loss.model_output.targets"),
    ({"mean_of": "targets", "targets": "words"}, "train.loss.model_output.targets"),
    ({"mean_of": "count"}, "train.loss.model_output.count"),
    ({"mean_of": "sum", "targets": "labels"}, "train.loss.model_output.mean_of"),
    ({"mean_of": "samples", "count": "count"}, "train.loss.model_output.mean_of"),
    ({"mean_of": "targets", "targets": "labels", "shift": -1}, "train.loss.model_output.shift")], ids=str)
def test_means_that_make_no_sense_are_refused(cluster, tmp_path, mean, field):
    spec = make_job(tmp_path, make_model(), make_data(), mean, chunks=2)
    assert field in cluster.refusal(write_spec(tmp_path, spec))
