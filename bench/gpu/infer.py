#!/usr/bin/env python3
"""Inference of the table's decoder without its head, as it embeds a corpus: the mean of what it makes of the tokens.
Milliseconds a mini-batch by `gpipe run`, with stages captured and not, and by PyTorch on one GPU.

    bench/gpu/infer.py [--gpus 2] [--sizes small mid] [--chunks 8] [--seconds 570] [--out FILE.json]
    bench/gpu/infer.py --device cpu --sizes tiny --chunks 4          a try without a GPU

Each job runs twice, with FEW and with MANY mini-batches; what the difference takes is what counts, so that neither
processes that start nor graphs that are recorded do. The vectors are compared with PyTorch's.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import tempfile
import time

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import model as models
import ours
from ranks import Failed
from setting import Budget, complete, make_parser, save, versions, words_of

FEW, MANY = 10, 60  # Mini-batches.
TOLERANCE = 0.05    # Of means of bf16 values.


class Embedder(nn.Module):
    def __init__(self, shape: models.Shape):
        super().__init__()
        self.body = models.Decoder(shape, None, True, False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.body(tokens).float().mean(1)


def write(size: str, chunks: int, folder: pathlib.Path) -> Embedder:
    """model.pt2, and tokens of FEW and of MANY mini-batches."""
    torch.manual_seed(0)
    shape = models.SIZES[size]
    model = Embedder(shape).eval()
    batch = chunks * models.MICRO_BATCH[size]
    tokens, _ = models.data_of(shape, MANY * batch)
    sequences = torch.export.Dim("sequences", min=1, max=1 << 20)
    program = torch.export.export(model, (tokens[:2],), dynamic_shapes=({0: sequences},))
    torch.export.save(program, folder / "model.pt2")
    for count in (FEW, MANY):
        save_file({"tokens": tokens[:count * batch].contiguous()}, folder / f"tokens{count}.safetensors")
    return model


def spec_of(size: str, chunks: int, count: int, capture: str, options: argparse.Namespace) -> dict:
    return {"name": f"infer-{size}-{chunks}-{capture}-{count}", "model": {"exported": {"path": "model.pt2"}},
            "pipeline": {"workers": options.workers, "chunks": chunks, "device": options.device, "capture": capture},
            "infer": {"inputs": f"tokens{count}.safetensors", "batch_size": chunks * models.MICRO_BATCH[size]}}


def run(spec: dict, folder: pathlib.Path, options: argparse.Namespace, seconds: float) -> tuple[float, torch.Tensor]:
    """How long the command took, and the first vectors."""
    begin = time.monotonic()
    with ours.results(spec, folder, options, seconds) as output:
        took = time.monotonic() - begin
        file = next(output.glob("output*.safetensors"))
        with safe_open(file, framework="pt") as opened:
            return took, opened.get_slice(next(iter(opened.keys())))[:4]


def ours_of(size: str, chunks: int, capture: str, folder: pathlib.Path, options: argparse.Namespace, budget: Budget):
    took, vectors = {}, None
    for count in (FEW, MANY):
        took[count], vectors = run(spec_of(size, chunks, count, capture, options), folder, options, budget.left())
    return (took[MANY] - took[FEW]) / (MANY - FEW), vectors


@torch.inference_mode()
def alone(model: Embedder, size: str, chunks: int, folder: pathlib.Path, device: torch.device):
    """PyTorch, one micro-batch after the other."""
    model, rows = model.to(device), models.MICRO_BATCH[size]
    with safe_open(folder / f"tokens{MANY}.safetensors", framework="pt", device=str(device)) as opened:
        tokens = opened.get_tensor("tokens")
    batches = tokens[:FEW * chunks * rows].split(rows)
    vectors = torch.cat([model(batch) for batch in batches[:4]])[:4].cpu()
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    begin = time.monotonic()
    for batch in batches:
        model(batch)
    synchronize()
    return (time.monotonic() - begin) / FEW, vectors


def measure(size: str, chunks: int, folder: pathlib.Path, options: argparse.Namespace, budget: Budget) -> dict:
    model = write(size, chunks, folder)
    found = {}
    device = torch.device(options.device)
    seconds, expected = alone(model, size, chunks, folder, device)
    found["PyTorch, one device"] = seconds
    del model
    for capture in ("auto", "never"):
        found[f"ours, {capture}"], vectors = ours_of(size, chunks, capture, folder, options, budget)
        if not torch.allclose(vectors, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise Failed(f"other vectors than PyTorch's: {(vectors - expected).abs().max():.3g}")
    return found


def parse() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.set_defaults(chunks=[8])
    options = parser.parse_args()
    complete(options, parser, "infer", ["small", "mid"])
    return options


def main() -> None:
    options, rows = parse(), []
    budget = Budget(options.seconds)
    print(f"{words_of(versions())}\n{options.workers} workers on {options.gpus} devices; ms a mini-batch\n\n"
          "| size | chunks | PyTorch on one | ours | ours, not captured |\n|---|---:|---:|---:|---:|")
    for size in options.sizes:
        for chunks in options.chunks:
            with tempfile.TemporaryDirectory(prefix="gpipe_infer.") as folder:
                found = measure(size, chunks, pathlib.Path(folder), options, budget)
            print(f"| {size} | {chunks} | " + " | ".join(f"{1e3 * value:.1f}" for value in found.values()) + " |", flush=True)
            rows.append({"size": size, "chunks": chunks, "shape": dataclasses.asdict(models.SIZES[size]), "seconds": found})
            save(options, {"rows": rows})


if __name__ == "__main__":
    main()
