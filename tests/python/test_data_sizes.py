"""Exported models with sizes that depend on what the data is, on the cluster, against the same model in PyTorch: they
run wherever they are cut, they are not cut where a tensor of such a size would cross, and it is said why."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cluster import gpipe, losses_of, write_spec
from exported import RTOL, expect_model, parts_of
from gpipe import export
from reference import optimise

WIDTH, CLASSES, SAMPLES, STEPS = 6, 3, 8, 3


class Model(nn.Module):
    """`middle` lies within what `function` does."""

    def __init__(self, function):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.function = function

    def forward(self, x):
        return self.last(self.function(torch.tanh(self.first(x)), self.middle))


def masked(x, middle):
    """Only some rows go through the layer."""
    chosen = x[(x > 0.5).any(1)]
    return x + middle(chosen).sum(0)


def nonzero(x, middle):
    rows = (x[:, 0] > 0).nonzero().squeeze(1)
    return x.index_add(0, rows, middle(x.index_select(0, rows)))


def selected(x, middle):
    return middle(x) + torch.masked_select(x, x > 0).sum()


def counted(x, middle):
    """A number out of a tensor is a size, and checked: nothing that measures with made-up numbers may fail by it."""
    count = (x.double() + 2).sum().long().item()
    torch._check(count >= 8)
    torch._check(count <= 1 << 16)
    return middle(x) * torch.arange(count).double().mean().sigmoid().float()


FUNCTIONS = [masked, nonzero, selected, counted]


def make_job(folder, function, name: str = "sizes", **pipeline) -> tuple[nn.Module, torch.Tensor, torch.Tensor, dict]:
    torch.manual_seed(3)
    model, x, y = Model(function), torch.randn(SAMPLES, WIDTH), torch.randint(CLASSES, (SAMPLES,))
    save_file({"x": x, "y": y}, folder / "data.safetensors")
    export(model, (x[:4],), folder / "model.pt2")
    return model, x, y, {
        "name": name, "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"chunks": 2, **pipeline},
        "train": {"dataset": {"path": "data.safetensors", "inputs": ["x"], "target": "y"}, "batch_size": SAMPLES,
                  "steps": STEPS, "loss": {"cross_entropy": {}}, "optimizer": {"sgd": {"lr": 0.1}}}}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_they_train_as_in_pytorch_wherever_they_are_cut(cluster, tmp_path, function):
    model, x, y, spec = make_job(tmp_path, function, workers=1)
    parts = parts_of(tmp_path, spec, cluster.address)
    halves = (torch.cat([model(half) for half in x.chunk(2)]) for _ in range(STEPS))
    losses, _ = optimise(torch.optim.SGD(model.parameters(), lr=0.1), (nn.functional.cross_entropy(h, y) for h in halves))
    for pipeline in [{"workers": 2}, *({"balance": [first, parts - first]} for first in range(1, parts))]:
        spec |= {"name": f"cut-{pipeline.get('balance', ['measured'])[0]}", "pipeline": {"chunks": 2, **pipeline}}
        out = cluster.run(write_spec(tmp_path, spec), tmp_path / spec["name"])
        assert losses_of(out) == pytest.approx(losses, rel=RTOL), pipeline
        expect_model(out, model)


@pytest.mark.parametrize("function", [masked, nonzero], ids=["masked", "nonzero"])
def test_a_cut_that_a_tensor_of_such_a_size_would_cross_is_refused_with_its_reason(cluster, tmp_path, function):
    *_, spec = make_job(tmp_path, function, split=["middle"])
    said = cluster.refusal(write_spec(tmp_path, spec))
    assert "pipeline.split[0]: no stage can begin at 'middle', inseparable from what is before it" in said
    assert "a size that does not follow from the number of samples, but depends on what the data is); one can at 'last' behind" in said


def test_an_output_of_such_a_size_is_left_out_or_refused(cluster, tmp_path):
    class Picks(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(WIDTH, CLASSES)

        def forward(self, x):
            scores = self.layer(x)
            return {"scores": scores, "picked": scores[scores[:, 0] > 0]}

    torch.manual_seed(3)
    model, x = Picks(), torch.randn(SAMPLES, WIDTH)
    save_file({"x": x}, tmp_path / "data.safetensors")
    export(model, (x[:4],), tmp_path / "model.pt2")
    spec = {"name": "picks", "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"workers": 1, "chunks": 2},
            "infer": {"inputs": "data.safetensors", "batch_size": SAMPLES}}
    outputs = load_file(cluster.run(write_spec(tmp_path, spec), tmp_path / "out") / "outputs.safetensors")
    assert list(outputs) == ["scores"]
    torch.testing.assert_close(outputs["scores"], model(x)["scores"])
    spec["infer"]["outputs"] = ["picked"]
    assert ("infer.outputs[0]: the model's output 'picked' does not have the batch first: the size of "
            in (said := cluster.refusal(write_spec(tmp_path, spec)))) and "depends on what the data is" in said


def test_a_check_of_the_model_that_the_data_does_not_pass_fails_the_job_with_its_line(cluster, tmp_path):
    def refuses(x, middle):
        count = (x > 0).sum().item()
        torch._check(count > 0)
        return middle(x) + torch.zeros(count).sum()

    _, x, y, spec = make_job(tmp_path, refuses, workers=1)
    save_file({"x": torch.full_like(x, float("nan")), "y": y}, tmp_path / "data.safetensors")
    job = cluster.wait(cluster.submit(write_spec(tmp_path, spec)))
    assert job["state"] == "STATE_FAILED" and "Runtime assertion failed" in job["failure"]["message"], job
    assert gpipe("validate", write_spec(tmp_path, spec), address=cluster.address).returncode == 0
