"""Rotary embeddings and gated activations of exported models, which are done as one, against PyTorch."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cluster import write_spec
from exported import expect_model, parts_of
from test_exported_corners import CLASSES, WIDTH, expect_losses, make_job, train_here

HEADS, CHANNELS, PLACES = 2, 4, 3


def by_slices(x, cos, sin):
    """As transformers' models have it."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


def by_chunks(x, cos, sin):
    first, second = x.chunk(2, -1)
    return cos * x + sin * torch.cat((-second, first), -1)


class Rotated(nn.Module):
    def __init__(self, rotate):
        super().__init__()
        self.rotate = rotate
        self.q, self.k = (nn.Linear(WIDTH, PLACES * HEADS * CHANNELS) for _ in range(2))
        self.out = nn.Linear(PLACES * HEADS * CHANNELS, CLASSES)
        angles = torch.outer(torch.arange(PLACES), torch.tensor([1.0, 0.1])).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, x):
        q, k = (layer(x).unflatten(-1, (PLACES, HEADS, CHANNELS)).transpose(1, 2) for layer in (self.q, self.k))
        q, k = (self.rotate(value, self.cos, self.sin) for value in (q, k))
        return self.out((q * torch.tanh(k)).transpose(1, 2).flatten(1))


class Gated(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.activation = activation
        self.gate, self.up, self.down = nn.Linear(WIDTH, 8), nn.Linear(WIDTH, 8), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.down(self.activation(self.gate(x)) * self.up(x))


MODELS = {
    "rotated by slices": lambda: Rotated(by_slices),
    "rotated by chunks": lambda: Rotated(by_chunks),
    "gated silu": lambda: Gated(functional.silu),
    "gated gelu": lambda: Gated(functional.gelu),
    "gated gelu by tanh": lambda: Gated(lambda x: functional.gelu(x, approximate="tanh")),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("checkpoint", ["always", "never"])
def test_what_is_done_as_one_trains_as_pytorchs_operators_do_wherever_it_is_cut(cluster, tmp_path, name, checkpoint):
    torch.manual_seed(4)
    model = MODELS[name]()
    spec, x, y = make_job(tmp_path, model, "fused", workers=2, chunks=3, checkpoint=checkpoint)
    losses, _ = train_here(model, x, y)
    parts = parts_of(tmp_path, spec, cluster.address)
    assert parts > 1
    for first in range(1, parts):
        spec["pipeline"]["balance"] = [first, parts - first]
        out = cluster.run(write_spec(tmp_path, spec), tmp_path / f"out{first}")
        expect_losses(out, losses)
        expect_model(out, model)


class UsedInParts(Rotated):
    """Half of what is turned is used once more."""

    def forward(self, x):
        q = self.q(x).unflatten(-1, (PLACES, HEADS, CHANNELS)).transpose(1, 2)
        first, second = q.chunk(2, -1)
        turned = q * self.cos + torch.cat((-second, first), -1) * self.sin
        return self.out((turned + first.repeat(1, 1, 1, 2)).transpose(1, 2).flatten(1)) + 0 * self.k(x).sum()


def test_no_cut_splits_a_rotation_but_one_that_is_used_in_parts(cluster, tmp_path):
    spec, _, _ = make_job(tmp_path, Rotated(by_slices), "rotated", workers=2)
    whole = parts_of(tmp_path, spec, cluster.address)
    # Two layers with two views each, two rotations, tanh, product, transpose and flatten, the last layer.
    assert whole == 2 * 3 + 2 + 2 + 2 + 1
    spec, x, y = make_job(tmp_path, UsedInParts(by_slices), "used", workers=2)
    assert parts_of(tmp_path, spec, cluster.address) > 12
