#!/usr/bin/env python3
"""Random exported programs trained on a cluster, cut at every place, against eager PyTorch.

    random_programs.py [--count 32] [--seed 0]

Each program is made of pieces that put something in the way of a cut: values that are transposed or channels_last,
parameters that are tied, used by nothing or written to by forward(), complex values and parameters, mixed types.
"""

import argparse
import pathlib
import random
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cluster import Cluster, losses_of, write_spec
from exported import parts_of, save_model
from reference import optimise

SAMPLES, LENGTH, WIDTH, CLASSES, STEPS = 8, 4, 6, 3, 3
CHUNKS, CHECKPOINTS = (1, 2, 3), ("always", "except_last", "never")


class Transposed(nn.Module):
    """[N, L, W] to itself, through values that only a view of their strides takes back."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        h = torch.tanh(self.inner(x)).transpose(1, 2) * 1.5
        return torch.relu(h).transpose(1, 2).view(x.shape[0], LENGTH * WIDTH).view(x.shape) + x


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        h = x.view(x.shape[0], LENGTH, WIDTH // 2, 2).permute(0, 3, 1, 2)
        h = torch.relu(self.first(h.contiguous(memory_format=torch.channels_last)))
        return torch.tanh(self.second(h)).permute(0, 2, 3, 1).view(x.shape) + x


class Sliced(nn.Module):
    """Values with gaps between them, and one that is broadcast."""

    def __init__(self):
        super().__init__()
        self.wide, self.scale = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, 1)

    def forward(self, x):
        h = torch.tanh(self.wide(x)).transpose(1, 2)[:, ::2]
        scale = self.scale(x.mean(1, keepdim=True)).expand(-1, LENGTH, WIDTH)
        return torch.relu(h).transpose(1, 2).reshape(x.shape) * torch.sigmoid(scale)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.unused = nn.Linear(WIDTH, WIDTH), nn.Linear(2, 5)
        self.register_buffer("count", torch.arange(3))

    def forward(self, x):
        return torch.tanh(self.inner(x))


class Written(nn.Module):
    """Decays its weight, which writing twice would show, and clamps another one."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        with torch.no_grad():
            self.first.weight.mul_(0.9)
            self.second.weight.clamp_(min=-0.2)
        return self.second(torch.tanh(self.first(x)))


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(WIDTH // 2 + 1, dtype=torch.cfloat))

    def forward(self, x):
        h = torch.fft.rfft(x) * self.filter
        return torch.fft.irfft(h.conj() * 0.5, n=WIDTH) + torch.fft.fft(x, dim=1).imag * 0.1


class MixedTypes(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.exact = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, dtype=torch.float64)

    def forward(self, x):
        positive = (x > 0) & (x < 2)
        short = (x.detach() * 10).to(torch.int16).to(torch.uint16)
        h = self.exact(self.inner(x).double()).to(torch.bfloat16)
        small = torch.where(positive, h.float(), x).to(torch.complex128)
        return small.abs().float() + short.to(torch.float32) * 1e-6


PIECES = [Transposed, ChannelsLast, Sliced, Tied, Unused, Written, Complex, MixedTypes]


class Program(nn.Module):
    """The pieces one behind the other, and past them a value that only its strides let be viewed."""

    def __init__(self, pieces: list[type]):
        super().__init__()
        self.skip, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.pieces = nn.Sequential(*[piece() for piece in pieces])

    def forward(self, x):
        skip = torch.sigmoid(self.skip(x).transpose(1, 2))
        x = self.pieces(x) * skip.transpose(1, 2).view(x.shape[0], LENGTH * WIDTH).view(x.shape)
        return self.out(x.mean(1))


def train_here(model: nn.Module, x, y, optimizer: dict, clip: float) -> list[float]:
    ((kind, options),) = optimizer.items()
    made = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[kind](model.parameters(), **options)
    return optimise(made, (nn.functional.cross_entropy(model(x), y) for _ in range(STEPS)), clip)[0]


def difference(actual: dict, expected: dict) -> float:
    """Of parameters, relative to the largest element. A missing one is infinitely wrong."""
    worst = 0.0
    for name, tensor in expected.items():
        if name not in actual:
            return float("inf")
        wide = torch.complex128 if tensor.is_complex() else torch.float64
        distance = (actual[name].to(wide) - tensor.to(wide)).abs().max()
        worst = max(worst, (distance / tensor.to(wide).abs().max().clamp(min=1e-3)).item())
    return worst


def check(cluster: Cluster, folder: pathlib.Path, rng: random.Random, number: int, cuts: int | None = None) -> float:
    """The largest difference over all cuts in two, or over so many of them, and over one in three."""
    pieces = [PIECES[number % len(PIECES)], rng.choice(PIECES)]
    torch.manual_seed(number)
    model, x, y = Program(pieces), torch.randn(SAMPLES, LENGTH, WIDTH), torch.randint(CLASSES, (SAMPLES,))
    save_model(model, folder / "model.pt2", x[:3])
    save_file({"x": x, "y": y}, folder / "data.safetensors")
    optimizer = rng.choice([{"sgd": {"lr": 0.1, "momentum": 0.9}}, {"adam": {"lr": 0.01, "eps": 1e-3}}])
    clip = rng.choice([0.0, 0.5])
    spec = {"name": "plan", "model": {"exported": {"path": "model.pt2"}},
            "pipeline": {"workers": 1, "chunks": rng.choice(CHUNKS), "checkpoint": rng.choice(CHECKPOINTS), "device": "cpu"},
            "train": {"dataset": {"path": "data.safetensors", "inputs": ["x"], "target": "y"}, "batch_size": SAMPLES,
                      "steps": STEPS, "loss": {"cross_entropy": {}}, "optimizer": optimizer, "grad_clip_norm": clip}}
    parts = parts_of(folder, spec, cluster.address)
    places = range(1, parts) if cuts is None else rng.sample(range(1, parts), min(cuts, parts - 1))
    losses, whole, worst = train_here(model, x, y, optimizer, clip), None, 0.0
    for cut in [[], *([place] for place in places), sorted(rng.sample(range(1, parts), 2))]:
        balance = [b - a for a, b in zip([0, *cut], [*cut, parts])]
        name = "cut-" + "-".join(map(str, balance))
        cut_spec = {**spec, "name": name, "pipeline": {**spec["pipeline"], "balance": balance, "workers": len(balance)}}
        out = cluster.run(write_spec(folder, cut_spec), folder / name)
        state, curve = load_file(out / "model.safetensors"), losses_of(out)
        whole = whole or curve
        if Tied not in pieces:  # Whose gradients are added up in another order where two stages have the parameter.
            assert curve == whole, f"{[piece.__name__ for piece in pieces]}: the cut {balance} changes the curve"
        worst = max(worst, difference(state, model.state_dict()), max(abs(a - b) / abs(b) for a, b in zip(curve, losses)))
    print(f"{number:3}  {worst:.2e}  {' '.join(piece.__name__ for piece in pieces)}: {len(places)} cuts, "
          f"chunks {spec['pipeline']['chunks']}, {spec['pipeline']['checkpoint']}, {next(iter(optimizer))}, clip {clip}", flush=True)
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, worst = random.Random(options.seed), 0.0
    with tempfile.TemporaryDirectory() as name:
        cluster = Cluster(pathlib.Path(name) / "cluster")
        try:
            cluster.start_workers(3, device="cpu")
            for number in range(options.count):
                folder = pathlib.Path(name) / str(number)
                folder.mkdir()
                worst = max(worst, check(cluster, folder, rng, number))
        finally:
            cluster.stop()
    print(f"largest relative difference: {worst:.2e}")
    sys.exit(0 if worst < 1e-4 else 1)


if __name__ == "__main__":
    main()
