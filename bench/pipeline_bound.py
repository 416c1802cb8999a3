#!/usr/bin/env python3
"""Pipelining itself, on CPUs: what share of the machine's own bound the pipeline reaches.

24 transformer encoder layers, 32 chunks, no recompute, K workers of one thread each. In each run three things are
timed: K independent one-worker jobs side by side, each with 1/K of the layers (t seconds a step), the pipeline, and
torch.distributed.pipelining over Gloo. GPipe's bound on this machine is t * (32+K-1)/32.

    bench/pipeline_bound.py --workers 2 --runs 5
"""

import argparse
import pathlib
import statistics
import tempfile

import common

LAYERS, CHUNKS = 24, 32


def side_by_side(folder: pathlib.Path, workers: int, steps: int) -> float:
    """Seconds a step of independent jobs that run at the same time: the slowest one's median."""
    names = [f"alone{i}" for i in range(workers)]
    specs = [common.transformer_spec(name, LAYERS // workers, 1, steps=steps) for name in names]
    running = [common.start_run(folder, spec, 1) for spec in specs]
    if any([process.wait() for process in running]):
        raise SystemExit("an independent job failed")
    return max(common.step_seconds(folder, name) for name in names)


def one_run(workers: int, steps: int, with_peer: bool) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        common.write_transformer_data(folder)
        alone = side_by_side(folder, workers, steps)
        pipeline = common.run_and_time(folder, common.transformer_spec("pipeline", LAYERS, workers, steps=steps), workers)
    bound = alone * (CHUNKS + workers - 1) / CHUNKS
    result = {"alone": alone, "bound": bound, "pipeline": pipeline, "share": bound / pipeline}
    if with_peer:
        result["peer"] = common.run_peer("torch_pipelining.py", workers, "--layers", LAYERS, "--chunks", CHUNKS,
                                         "--steps", steps)
        result["speedup"] = result["peer"] / pipeline
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    print(f"machine: {common.machine()}")
    for workers in options.workers:
        results = [one_run(workers, options.steps, not options.no_peer) for _ in range(options.runs)]
        for result in results:
            print(f"K={workers} " + " ".join(f"{key}={value:.4f}" for key, value in result.items()), flush=True)
        print(f"K={workers} median of {len(results)}: {statistics.median(r['share'] for r in results):.1%} of the bound"
              + ("" if options.no_peer else
                 f", {statistics.median(r['speedup'] for r in results):.2f} times as fast as torch.distributed.pipelining"))


if __name__ == "__main__":
    main()
