#!/usr/bin/env python3
"""Pipelining itself, on CPUs: what share of the machine's own bound the pipeline reaches.

24 transformer encoder layers, 32 chunks, no recompute, K workers of one thread each. In each run the same K workers take
turns at two things: K independent one-worker jobs side by side, each with 1/K of the layers (t seconds until all have
done a step), and the pipeline. GPipe's bound on this machine is t * (32+K-1)/32, and `share` is how much of it the
pipeline reaches. They take turns every few seconds, because where cores are shared with other guests their speed changes
within seconds by more than the pipeline costs (bench/machine_noise.py shows it); a run's share is the median of its turns.

`within` takes t from the pipeline's own steps instead: the seconds that the slowest stage computed in a step, as its
worker measured them. It says what the pipeline itself adds to the bubble, and not what sharing the machine costs.
Then torch.distributed.pipelining does the same over Gloo.

    bench/pipeline_bound.py --workers 2 --runs 5
"""

import argparse
import pathlib

import bound
import common

LAYERS, CHUNKS = 24, 32


def setup(folder: pathlib.Path, workers: int, options: argparse.Namespace):
    common.write_transformer_data(folder)
    alone = [common.transformer_spec(f"alone{i}", LAYERS // workers, 1, chunks=CHUNKS, steps=options.steps)
             for i in range(workers)]
    pipeline = common.transformer_spec("pipeline", LAYERS, workers, chunks=CHUNKS, steps=options.steps)
    return alone, pipeline, lambda: common.run_peer(
        "torch_pipelining.py", workers, "--layers", LAYERS, "--chunks", CHUNKS, "--steps", options.steps + 4,
        pin=options.pin)


if __name__ == "__main__":
    bound.main(__doc__, 2, "torch.distributed.pipelining", setup)
