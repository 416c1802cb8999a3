#!/usr/bin/env python3
"""Trains a character-level GPT-2 on the licence texts of Debian, here in PyTorch and on three workers, and plots both
loss curves. Needs torch, safetensors and PyYAML.

    examples/char_gpt2.py [--steps 300] [--folder DIR] [--plot docs/char_gpt2.svg]
"""

from __future__ import annotations

import argparse
import copy
import pathlib
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "client" / "python"), str(ROOT / "tests" / "python")]

from cluster import gpipe, read_jsonl, write_spec  # noqa: E402
from gpipe_export import gpipe_export  # noqa: E402
from gpt2 import Gpt2, Gpt2Config  # noqa: E402
from line_plot import Panel, save_plot  # noqa: E402

LICENCES = pathlib.Path("/usr/share/common-licenses")
TOKENS, BATCH, CHUNKS, LEARNING_RATE = 96, 16, 4, 1e-3


def read_text() -> str:
    """Each text once: some names are links to others."""
    return "\n".join(path.read_text() for path in sorted({path.resolve() for path in LICENCES.iterdir()}))


def write_samples(numbers: torch.Tensor, steps: int, path: pathlib.Path) -> dict[str, torch.Tensor]:
    """Windows of the text from random places; a mini-batch after the other."""
    starts = torch.randint(len(numbers) - TOKENS, (steps * BATCH,), generator=torch.Generator().manual_seed(1))
    windows = torch.stack([numbers[start:start + TOKENS + 1] for start in starts])
    data = {"ids": windows[:, :-1].contiguous(), "next": windows[:, 1:].contiguous()}
    save_file(data, path)
    return data


def train_on_cluster(folder: pathlib.Path, model: Gpt2, data: dict[str, torch.Tensor], steps: int) -> list[float]:
    """The losses; the trained parameters are put into `model`."""
    gpipe_export(model, (data["ids"][:2],), folder / "gpt2.pt2")
    spec = {
        "name": "char-gpt2",
        "model": {"exported": {"path": "gpt2.pt2"}},
        "pipeline": {"workers": 3, "chunks": CHUNKS, "checkpoint": "always"},
        "train": {"dataset": {"path": "text.safetensors", "inputs": ["ids"], "target": "next"},
                  "batch_size": BATCH, "steps": steps, "loss": {"cross_entropy": {"class_dim": -1}},
                  "optimizer": {"adamw": {"lr": LEARNING_RATE}}, "grad_clip_norm": 1.0},
    }
    gpipe("run", write_spec(folder, spec), "--output", folder / "results", "--overwrite", timeout=3600)
    model.load_state_dict(load_file(folder / "results" / "model.safetensors"))
    return [step["loss"] for step in read_jsonl(folder / "results" / "metrics.jsonl")]


def train_here(model: Gpt2, data: dict[str, torch.Tensor], chunks: int = 1) -> list[float]:
    """Mini-batches in so many micro-batches, whose gradients are summed."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    losses = []
    for mini_batch in zip(data["ids"].split(BATCH), data["next"].split(BATCH)):
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
    parser.add_argument("--folder", type=pathlib.Path, help="keeps model, data, spec and results")
    parser.add_argument("--plot", type=pathlib.Path, default=ROOT / "docs" / "char_gpt2.svg")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        text = read_text()
        letters = "".join(sorted(set(text)))
        print(f"{len(text)} characters, {len(letters)} different ones")
        data = write_samples(torch.tensor([letters.index(c) for c in text]), options.steps, folder / "text.safetensors")
        torch.manual_seed(0)
        model = Gpt2(Gpt2Config(vocabulary=len(letters), tokens=TOKENS, layers=4, width=128, heads=4))
        trained = copy.deepcopy(model)
        ours = train_on_cluster(folder, trained, data, options.steps)
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
