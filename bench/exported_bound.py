#!/usr/bin/env python3
"""An exported 12-layer GPT-2 on K workers of one thread, 32 chunks: what share of the machine's own bound it reaches,
and how it compares with the pipeline() front end of torch.distributed.pipelining at the same cuts.

Measured as in bench/pipeline_bound.py; the K independent one-worker jobs have one of the stages each.

    bench/exported_bound.py [--workers 3] [--runs 5]
"""

import argparse
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn

import bound
import common
from exported_models import CASES, export

CASE, CHUNKS = "gpt2-long", 32


class Part(nn.Module):
    """Some of the blocks, with what comes before the first and after the last one."""

    def __init__(self, model: nn.Module, first: int, last: int):
        super().__init__()
        self.embedding = model.embedding if first == 0 else nn.Identity()
        self.blocks = model.blocks[first:last]
        self.tail = nn.Sequential(model.norm, model.head) if last == len(model.blocks) else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.blocks(self.embedding(x)))


def cuts(workers: int) -> list[int]:
    """The blocks at which a stage begins."""
    blocks = len(CASES[CASE].model().blocks)
    return [blocks * i // workers for i in range(workers)]


def write_parts(folder: pathlib.Path, workers: int, steps: int) -> list[dict]:
    """Each stage as a model of its own; the specs of jobs that train them."""
    case, specs, begins = CASES[CASE], [], cuts(workers)
    model, data = case.model(), case.data(common.BATCH)
    ends = begins[1:] + [len(model.blocks)]
    hidden = torch.randn(*data["x"].shape, model.norm.normalized_shape[0])
    for i, (first, last) in enumerate(zip(begins, ends)):
        ends_here = last == len(model.blocks)
        values = {"x": data["x"] if first == 0 else hidden, "y": data["y"] if ends_here else hidden.clone()}
        export(Part(model, first, last), (values["x"][:2],), folder / f"part{i}.pt2")
        save_file(values, folder / f"part{i}.safetensors")
        specs.append(common.exported_spec(f"alone{i}", f"part{i}", common.BATCH, class_dim=-1, steps=steps, workers=1,
                                          chunks=CHUNKS))
        if not ends_here:
            specs[-1]["train"]["loss"] = {"mse": {}}
    return specs


def setup(folder: pathlib.Path, workers: int, options: argparse.Namespace):
    CASES[CASE].write(folder, CASE, common.BATCH)
    split = [f"blocks.{block}" for block in cuts(workers)[1:]]
    pipeline = common.exported_spec("pipeline", CASE, common.BATCH, class_dim=-1, steps=options.steps, workers=workers,
                                    chunks=CHUNKS, split=split)
    return write_parts(folder, workers, options.steps), pipeline, lambda: common.run_peer(
        "torch_pipeline_front_end.py", workers, CASE, "--split", *split, "--batch", common.BATCH, "--chunks", CHUNKS,
        "--steps", options.steps + 4, pin=options.pin)


if __name__ == "__main__":
    bound.main(__doc__, 3, "pipeline() of torch.distributed.pipelining", setup)
