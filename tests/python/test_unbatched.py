"""Inputs without samples: a graph and a number that every micro-batch gets whole. Losses and outputs are PyTorch's."""

from __future__ import annotations

import copy
import pathlib
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cluster import ROOT, losses_of, read_jsonl, write_spec
from exported import RTOL, expect_model
from reference import optimise
from test_data import epoch_order
from test_exported import language_spec, make_language_job

sys.path.insert(0, str(ROOT / "client" / "python"))
from gpipe import ExportError, export  # noqa: E402

NODES, FEATURES, WIDTH, SAMPLES, BATCH, STEPS = 7, 5, 6, 22, 8, 5
UNBATCHED = ("graph", "temperature")


class GraphNetwork(nn.Module):
    """Its first layer makes a value without samples that the last one needs; the graph itself is needed by two."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)

    def forward(self, graph, x, temperature):
        degrees = graph.sum(1, keepdim=True) + 1
        normalised = graph / degrees
        x = torch.relu(self.first(normalised @ x))
        x = torch.tanh(self.second(graph @ x)) * temperature
        return self.head(normalised @ x).squeeze(-1)


def graph_of(nodes: int, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    graph = (torch.rand(nodes, nodes) > 0.5).float()
    return {"graph": (graph + graph.t()).clamp(max=1), "temperature": torch.tensor(0.7 + seed)}


def data_of(samples: int, nodes: int = NODES, seed: int = 0) -> dict[str, torch.Tensor]:
    return graph_of(nodes, seed) | {"x": torch.randn(samples, nodes, FEATURES), "y": torch.randn(samples, nodes)}


def inputs_of(data: dict[str, torch.Tensor], rows=slice(None)) -> tuple[torch.Tensor, ...]:
    return data["graph"], data["x"][rows], data["temperature"]


def make_model(folder: pathlib.Path, **options) -> GraphNetwork:
    torch.manual_seed(5)
    model = GraphNetwork()
    export(model, inputs_of(data_of(3)), folder / "model.pt2", **(options or {"unbatched": UNBATCHED}))
    return model


def write_data(folder: pathlib.Path, name: str, data: dict[str, torch.Tensor], kind: str = "safetensors") -> list[str]:
    if kind == "safetensors":
        save_file(data, folder / f"{name}.safetensors")
        return [f"{name}.safetensors"]
    (folder / name).mkdir()
    for tensor, values in data.items():
        np.save(folder / name / f"{tensor}.npy", values.numpy())
    return [f"{name}/{tensor}.npy" for tensor in data]


def dataset_of(paths: list[str]) -> dict:
    return {"path": paths, "inputs": ["graph", "x", "temperature"], "target": "y", "unbatched": [*UNBATCHED]}


def spec_of(name: str, train: list[str], **pipeline) -> dict:
    return {"name": name, "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"chunks": 4, **pipeline},
            "train": {"dataset": dataset_of(train), "batch_size": BATCH, "steps": STEPS, "seed": 3, "shuffle": True,
                      "loss": {"mse": {}}, "optimizer": {"sgd": {"lr": 0.2}}}}


def train_here(model: nn.Module, data: dict[str, torch.Tensor]) -> list[float]:
    def losses():
        per_epoch = -(-SAMPLES // BATCH)
        for step in range(STEPS):
            first = step % per_epoch * BATCH
            rows = epoch_order(SAMPLES, 3, step // per_epoch)[first:first + BATCH]
            yield nn.functional.mse_loss(model(*inputs_of(data, rows)), data["y"][rows])
    return optimise(torch.optim.SGD(model.parameters(), lr=0.2), losses())[0]


PIPELINES = [{"workers": 1}, {"split": ["second"]}, {"split": ["second", "head"], "checkpoint": "always"}]


@pytest.mark.parametrize("pipeline", PIPELINES, ids=str)
@pytest.mark.parametrize("kind, where", [("safetensors", "sent"), ("npy", "sent"), ("npy", "shared")])
def test_trains_and_evaluates_as_pytorch_does(cluster, tmp_path, pipeline, kind, where):
    model, data, other = make_model(tmp_path), data_of(SAMPLES), data_of(11, seed=1)
    train, test = write_data(tmp_path, "train", data, kind), write_data(tmp_path, "test", other, kind)
    if where == "shared":
        train, test = ([f"shared:{tmp_path}/{path}" for path in paths] for paths in (train, test))
    spec = spec_of("graph", train, **pipeline)
    spec["train"]["evaluate"] = {"dataset": dataset_of(test)}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    losses = train_here(model, data)
    assert losses_of(out) == pytest.approx(losses, rel=RTOL)
    expect_model(out, model)
    with torch.no_grad():
        expected = nn.functional.mse_loss(model(*inputs_of(other)), other["y"])
    (evaluation,) = read_jsonl(out / "evaluation.jsonl")
    assert evaluation["loss"] == pytest.approx(expected.item(), rel=10 * RTOL)


@pytest.mark.parametrize("pipeline", PIPELINES, ids=str)
def test_infers_as_pytorch_does(cluster, tmp_path, pipeline):
    model, data = make_model(tmp_path), data_of(SAMPLES)
    del data["y"]
    spec = {"name": "infer", "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"chunks": 4, **pipeline},
            "infer": {"inputs": write_data(tmp_path, "in", data), "batch_size": BATCH, "unbatched": [*UNBATCHED]}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    (outputs,) = load_file(out / "outputs.safetensors").values()
    with torch.no_grad():
        torch.testing.assert_close(outputs, model(*inputs_of(data)), rtol=RTOL, atol=RTOL)


def test_evaluates_on_a_graph_of_another_size(cluster, tmp_path):
    batch, nodes = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("nodes", min=2, max=64)
    model = make_model(tmp_path, dynamic_shapes=({0: nodes, 1: nodes}, {0: batch, 1: nodes}, None))
    data, other = data_of(SAMPLES), data_of(9, nodes=12, seed=1)
    spec = spec_of("larger", write_data(tmp_path, "train", data), split=["second"])
    spec["train"]["evaluate"] = {"dataset": dataset_of(write_data(tmp_path, "test", other))}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    train_here(model, data)
    expect_model(out, model)
    with torch.no_grad():
        expected = nn.functional.mse_loss(model(*inputs_of(other)), other["y"])
    (evaluation,) = read_jsonl(out / "evaluation.jsonl")
    assert evaluation["loss"] == pytest.approx(expected.item(), rel=10 * RTOL)


def two_files(folder, spec):
    write_data(folder, "more", data_of(4))
    spec["train"]["dataset"]["path"] = ["train.safetensors", "more.safetensors"]


def unnamed(_, spec):
    del spec["train"]["dataset"]["unbatched"]


def unknown(_, spec):
    spec["train"]["dataset"]["unbatched"].append("graphs")


def smaller(folder, _):
    write_data(folder, "train", data_of(SAMPLES) | {"graph": torch.zeros(6, 6)})


def in_evaluation_only(_, spec):
    evaluation = copy.deepcopy(spec["train"]["dataset"])
    evaluation["unbatched"].remove("graph")
    spec["train"]["evaluate"] = {"dataset": evaluation}


REFUSALS = {
    "several files": (two_files, "train.dataset.inputs[0]: tensor 'graph' is `unbatched`, and must be in one file"),
    "not named": (unnamed, "an input without samples is named in `unbatched`"),
    "no input": (unknown, "train.dataset.unbatched[2]: 'graphs' is none of train.dataset.inputs"),
    "another size": (smaller, "train.dataset.inputs[0]: the model's input 'graph' is Float [7, 7], the data's 'graph' "
                              "is Float [6, 6]"),
    "evaluation": (in_evaluation_only, "train.evaluate.dataset.unbatched: must name the same inputs"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_is_refused_with_its_field(cluster, tmp_path, case):
    change, words = REFUSALS[case]
    make_model(tmp_path)
    spec = spec_of("refused", write_data(tmp_path, "train", data_of(SAMPLES)), workers=1)
    change(tmp_path, spec)
    assert words in cluster.refusal(write_spec(tmp_path, spec))


def test_samples_and_no_samples_are_as_the_model_has_them(cluster, tmp_path):
    make_language_job(tmp_path)
    spec = language_spec("batch", workers=1)
    spec["train"]["dataset"]["unbatched"] = ["scale"]
    assert 'gpipe.export(..., unbatched=["scale"])' in cluster.refusal(write_spec(tmp_path, spec))

    make_model(tmp_path)
    data = data_of(NODES)
    spec = spec_of("none", write_data(tmp_path, "train", data | {"graph": data["graph"][None].repeat(NODES, 1, 1)}))
    spec["train"]["dataset"]["unbatched"].remove("graph")
    words = cluster.refusal(write_spec(tmp_path, spec))
    assert "model.exported.path: the batch size is baked in: dimension 0 of input 'graph' is always 7" in words
    assert "name 'graph' in train.dataset.unbatched" in words


def test_export_says_what_is_no_input(tmp_path):
    with pytest.raises(ExportError, match="unbatched names graphs, and the model's inputs are graph, x, temperature"):
        make_model(tmp_path, unbatched=["graphs"])
