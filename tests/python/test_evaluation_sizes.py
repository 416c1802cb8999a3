"""Evaluation on longer sequences than training, where the exported program leaves their length free."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cluster import ROOT, losses_of, read_jsonl, write_spec
from exported import RTOL, expect_model
from reference import optimise
from test_data import spec_of as layers_spec
from test_data import text_of, write_weights

sys.path.insert(0, str(ROOT / "client" / "python"))
from gpipe import export  # noqa: E402

VOCABULARY, WIDTH, LENGTH, LONGER, BATCH, STEPS = 50, 8, 16, 40, 4, 3


class Reader(nn.Module):
    """A language model without positions. `noise` makes it another program in evaluation."""

    def __init__(self, noise: bool = False):
        super().__init__()
        self.tokens, self.noise = nn.Embedding(VOCABULARY, WIDTH), noise
        self.mix, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids):
        x = self.tokens(ids)
        q, k, v = self.mix(x).chunk(3, -1)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))
        if self.noise and self.training:
            x = x + torch.rand_like(x) * 0
        return self.head(x)


def make_model(folder: pathlib.Path, free: bool = True, **options) -> Reader:
    torch.manual_seed(5)
    model = Reader(**options)
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=256)
    shapes = ({0: batch, 1: length} if free else {0: batch},)
    export(model, (torch.zeros(3, LENGTH, dtype=torch.long),), folder / "model.pt2", dynamic_shapes=shapes)
    return model


def windows(text: np.ndarray, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [torch.from_numpy(text[i:i + length + 1].astype(np.int64)) for i in range(0, len(text) - length, length)]
    whole = torch.stack(parts)
    return whole[:, :-1].contiguous(), whole[:, 1:].contiguous()


def datasets(folder: pathlib.Path, kind: str) -> tuple[list[dict], list[tuple[torch.Tensor, torch.Tensor]]]:
    specs, data = [], []
    for index, length in enumerate((LENGTH, LONGER)):
        text = text_of(300, index)
        data.append(windows(text, length))
        if kind == "tokens":
            text.tofile(folder / f"{index}.bin")
            specs.append({"tokens": {"path": f"{index}.bin", "dtype": "uint16", "sequence_length": length}})
        else:
            save_file(dict(zip(("input", "target"), data[-1])), folder / f"{index}.safetensors")
            specs.append({"path": f"{index}.safetensors"})
    return specs, data


def job(folder: pathlib.Path, kind: str, **pipeline) -> tuple[dict, list[tuple[torch.Tensor, torch.Tensor]]]:
    (train, test), data = datasets(folder, kind)
    spec = {"name": "longer", "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"chunks": 3, **pipeline},
            "train": {"dataset": train, "batch_size": BATCH, "steps": STEPS, "loss": {"cross_entropy": {"class_dim": -1}},
                      "optimizer": {"sgd": {"lr": 0.5}}, "evaluate": {"dataset": test, "every_steps": 2}}}
    return spec, data


def loss_of(model: nn.Module, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(ids).flatten(0, 1), targets.flatten())


@pytest.mark.parametrize("kind", ["tokens", "tensors"])
@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("pipeline", [{"workers": 1}, {"split": ["mix", "head"]}, {"workers": 3}], ids=str)
def test_evaluates_on_longer_sequences(cluster, tmp_path, kind, noise, pipeline):
    model = make_model(tmp_path, noise=noise)
    spec, (train, test) = job(tmp_path, kind, **pipeline)
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    evaluations = []

    def steps():
        for step in range(STEPS):
            rows = slice(step * BATCH, step * BATCH + BATCH)
            yield loss_of(model.train(), train[0][rows], train[1][rows])
            with torch.no_grad():
                evaluations.append(loss_of(model.eval(), *test).item())

    losses, _ = optimise(torch.optim.SGD(model.parameters(), lr=0.5), steps())
    assert losses_of(out) == pytest.approx(losses, rel=RTOL)
    found = read_jsonl(out / "evaluation.jsonl")
    assert [line["step"] for line in found] == [2, 3]
    assert [line["loss"] for line in found] == pytest.approx(evaluations[1:], rel=10 * RTOL)
    expect_model(out, model)


def test_a_program_of_one_length_is_refused_with_what_would_work(cluster, tmp_path):
    make_model(tmp_path, free=False)
    spec, _ = job(tmp_path, "tokens", workers=1)
    words = cluster.refusal(write_spec(tmp_path, spec))
    assert "train.evaluate.dataset.inputs[0]: the model's input 'ids' is Long [any, 16]" in words
    assert "`dynamic_shapes` of gpipe.export" in words


def test_a_target_of_another_length_than_the_output_is_refused(cluster, tmp_path):
    make_model(tmp_path)
    spec, (_, test) = job(tmp_path, "tensors", workers=1)
    save_file({"input": test[0], "target": test[1][:, 1:].contiguous()}, tmp_path / "1.safetensors")
    words = cluster.refusal(write_spec(tmp_path, spec))
    assert "train.evaluate: the model cannot be evaluated" in words and "and a target [N, ...]" in words


def test_a_layer_list_is_refused_with_what_would_work(cluster, tmp_path):
    (train, test), _ = datasets(tmp_path, "tokens")
    spec = layers_spec("layers", train, steps=STEPS, evaluate={"dataset": test})
    write_weights(tmp_path, spec)
    words = cluster.refusal(write_spec(tmp_path, spec))
    assert "train.evaluate.dataset.inputs[0]: samples of shape [40] differ from training's [16]" in words
    assert "an exported model with dynamic sizes" in words
