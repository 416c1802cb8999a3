#!/usr/bin/env python3
"""An exported 12-layer GPT-2 on K workers of one thread, 32 chunks: what share of the machine's own bound it reaches,
and how it compares with the pipeline() front end of torch.distributed.pipelining at the same cuts, in one run.

t is what K independent one-worker jobs side by side, each with one of the stages, take until all have done a step
(before and after the pipeline). The bound is t * (32+K-1)/32. `within` takes t from the pipeline's own steps, as
bench/pipeline_bound.py does and explains.

    bench/exported_bound.py [--workers 3] [--runs 5]
"""

import argparse
import pathlib
import statistics
import tempfile

import torch
from safetensors.torch import save_file
from torch import nn

import common
from exported_models import CASES, gpipe_export

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
        gpipe_export(Part(model, first, last), (values["x"][:2],), folder / f"part{i}.pt2")
        save_file(values, folder / f"part{i}.safetensors")
        specs.append(common.exported_spec(f"alone{i}", f"part{i}", common.BATCH, class_dim=-1, steps=steps, workers=1,
                                          chunks=CHUNKS))
        if not ends_here:
            specs[-1]["train"]["loss"] = {"mse": {}}
    return specs


def one_run(folder: pathlib.Path, parts: list[dict], steps: int, with_peer: bool) -> dict:
    workers = len(parts)
    split = [f"blocks.{block}" for block in cuts(workers)[1:]]
    spec = common.exported_spec("pipeline", CASE, common.BATCH, class_dim=-1, steps=steps, workers=workers,
                                chunks=CHUNKS, split=split)
    before = common.side_by_side(folder, parts)
    pipeline = common.run_and_time(folder, spec, workers)
    within = common.within_steps(folder, "pipeline", CHUNKS)
    alone = statistics.median(before + common.side_by_side(folder, parts))
    bound = alone * (CHUNKS + workers - 1) / CHUNKS
    result = {"alone": alone, "bound": bound, "pipeline": pipeline, "share": bound / pipeline, "within": within}
    if with_peer:
        result["peer"] = common.run_peer("torch_pipeline_front_end.py", workers, CASE, "--split", *split, "--batch",
                                         common.BATCH, "--chunks", CHUNKS, "--steps", steps)
        result["speedup"] = result["peer"] / pipeline
    return result


def measure(workers: int, runs: int, steps: int, with_peer: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        CASES[CASE].write(folder, CASE, common.BATCH)
        parts = write_parts(folder, workers, steps)
        results = []
        for _ in range(runs):
            results.append(one_run(folder, parts, steps, with_peer))
            print(f"K={workers} " + " ".join(f"{key}={value:.4f}" for key, value in results[-1].items()), flush=True)
    print(f"K={workers} median of {runs}: {statistics.median(r['share'] for r in results):.1%} of the bound, "
          f"{statistics.median(r['within'] for r in results):.1%} within its own steps"
          + (f", {statistics.median(r['speedup'] for r in results):.2f} times as fast as pipeline() of "
             "torch.distributed.pipelining" if with_peer else ""), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[3])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    print(f"machine: {common.machine()}")
    for workers in options.workers:
        measure(workers, options.runs, options.steps, not options.no_peer)


if __name__ == "__main__":
    main()
