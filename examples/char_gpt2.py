#!/usr/bin/env python3
"""Trains a character-level GPT-2 on the licence texts of Debian, here in PyTorch and on three workers, and plots both
loss curves. Needs the package gpipe (docs/python.md) and torch.

    examples/char_gpt2.py [--steps 300] [--plot docs/char_gpt2.svg]
"""

from __future__ import annotations

import argparse
import copy
import pathlib
import sys

import torch
from torch.nn import functional

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "client" / "python"))

import gpipe  # noqa: E402
from gpt2 import Gpt2, Gpt2Config  # noqa: E402
from line_plot import Panel, save_plot  # noqa: E402

LICENCES = pathlib.Path("/usr/share/common-licenses")
TOKENS, BATCH, CHUNKS, LEARNING_RATE = 96, 16, 4, 1e-3


def read_text() -> str:
    """Each text once: some names are links to others."""
    return "\n".join(path.read_text() for path in sorted({path.resolve() for path in LICENCES.iterdir()}))


def make_samples(numbers: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Letters, and those that follow: windows of the text from random places; a mini-batch after the other."""
    starts = torch.randint(len(numbers) - TOKENS, (steps * BATCH,), generator=torch.Generator().manual_seed(1))
    windows = torch.stack([numbers[start:start + TOKENS + 1] for start in starts])
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def train_on_cluster(model: Gpt2, data: tuple[torch.Tensor, torch.Tensor], steps: int) -> list[float]:
    """The losses; the trained parameters are put into `model`."""
    losses: list[float] = []
    gpipe.train(model, data, loss={"cross_entropy": {"class_dim": -1}}, optimizer="adamw", lr=LEARNING_RATE,
                batch_size=BATCH, steps=steps, grad_clip_norm=1.0, workers=3, chunks=CHUNKS,
                pipeline={"checkpoint": "always"}, on_end=lambda job: losses.extend(job.metrics().loss))
    return losses


def train_here(model: Gpt2, data: tuple[torch.Tensor, torch.Tensor], chunks: int = 1) -> list[float]:
    """Mini-batches in so many micro-batches, whose gradients are summed."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    losses = []
    for mini_batch in zip(*(tensor.split(BATCH) for tensor in data)):
        optimizer.zero_grad()
        losses.append(0.0)
        for ids, following in zip(*(tensor.chunk(chunks) for tensor in mini_batch)):
            loss = functional.cross_entropy(model(ids).transpose(1, 2), following) / chunks
            loss.backward()
            losses[-1] += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return losses


def differences(ours: list[float], theirs: list[float]) -> list[float]:
    return [abs(a - b) for a, b in zip(ours, theirs)]


def plot(path: pathlib.Path, ours: list[float], theirs: list[float], theirs_in_chunks: list[float]) -> None:
    save_plot(path, "A character-level GPT-2 on licence texts", "step", [
        Panel("loss", {"PyTorch, one process": theirs, "three workers, four micro-batches": ours}),
        Panel("difference from PyTorch's loss", {
            "PyTorch, four micro-batches": differences(theirs_in_chunks, theirs),
            "three workers, four micro-batches": differences(ours, theirs)}, logarithmic=True),
    ])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--plot", type=pathlib.Path, default=ROOT / "docs" / "char_gpt2.svg")
    options = parser.parse_args()
    text = read_text()
    letters = "".join(sorted(set(text)))
    print(f"{len(text)} characters, {len(letters)} different ones")
    data = make_samples(torch.tensor([letters.index(c) for c in text]), options.steps)
    torch.manual_seed(0)
    model = Gpt2(Gpt2Config(vocabulary=len(letters), tokens=TOKENS, layers=4, width=128, heads=4))
    ours = train_on_cluster(copy.deepcopy(model), data, options.steps)
    in_chunks = train_here(copy.deepcopy(model), data, CHUNKS)
    theirs = train_here(model, data)
    print(f"loss from {theirs[0]:.4f} to {theirs[-1]:.4f} in PyTorch, {ours[0]:.4f} to {ours[-1]:.4f} on three workers")
    for name, losses in (("three workers", ours), ("PyTorch in micro-batches, too", in_chunks)):
        apart = differences(losses, theirs)
        print(f"{name}: differs from PyTorch by {max(apart):.1e} at most, in step {apart.index(max(apart))}; "
              f"{sum(apart) / len(apart):.1e} on average")
    plot(options.plot, ours, theirs, in_chunks)
    print(f"plotted in {options.plot}")


if __name__ == "__main__":
    main()
