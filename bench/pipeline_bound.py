#!/usr/bin/env python3
"""Pipelining itself, on CPUs: what share of the machine's own bound the pipeline reaches.

24 transformer encoder layers, 32 chunks, no recompute, K workers of one thread each. In each run three things are
timed: K independent one-worker jobs side by side, each with 1/K of the layers (t seconds until all have done a step;
before and after the pipeline), the pipeline, and torch.distributed.pipelining over Gloo. GPipe's bound on this machine is
t * (32+K-1)/32, and `share` is how much of it the pipeline reaches.

Where cores are shared with other guests, the speed of a core changes between the two measurements by more than the
pipeline costs (bench/machine_noise.py shows it). `within` therefore takes t from the pipeline's own steps: the seconds
that the slowest stage computed in a step, as its worker measured them. It says what the pipeline itself adds to the
bubble, and not what sharing the machine costs.

    bench/pipeline_bound.py --workers 2 --runs 5
"""

import argparse
import pathlib
import statistics
import tempfile

import common

LAYERS, CHUNKS = 24, 32


def side_by_side(folder: pathlib.Path, workers: int, steps: int) -> list[float]:
    """Seconds that independent jobs running at the same time take until all have done a step, for each step."""
    names = [f"alone{i}" for i in range(workers)]
    specs = [common.transformer_spec(name, LAYERS // workers, 1, steps=steps) for name in names]
    running = [common.start_run(folder, spec, 1) for spec in specs]
    if any([process.wait() for process in running]):
        raise SystemExit("an independent job failed")
    return [max(step) for step in zip(*(common.all_step_seconds(folder, name) for name in names))]


def within_steps(folder: pathlib.Path, name: str, skip: int = 2) -> float:
    """The median over steps of slowest stage's seconds * (chunks + K-1) / chunks over the step's seconds."""
    busy = [step["stage_busy"] for step in common.read_jsonl(folder / name / "metrics.jsonl")[skip:]]
    return statistics.median(max(shares) * (CHUNKS + len(shares) - 1) / CHUNKS for shares in busy)


def one_run(workers: int, steps: int, with_peer: bool) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        common.write_transformer_data(folder)
        before = side_by_side(folder, workers, steps)
        pipeline = common.run_and_time(folder, common.transformer_spec("pipeline", LAYERS, workers, steps=steps), workers)
        within = within_steps(folder, "pipeline")
        alone = statistics.median(before + side_by_side(folder, workers, steps))
    bound = alone * (CHUNKS + workers - 1) / CHUNKS
    result = {"alone": alone, "bound": bound, "pipeline": pipeline, "share": bound / pipeline, "within": within}
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
        print(f"K={workers} median of {len(results)}: {statistics.median(r['share'] for r in results):.1%} of the bound, "
              f"{statistics.median(r['within'] for r in results):.1%} within its own steps"
              + ("" if options.no_peer else
                 f", {statistics.median(r['speedup'] for r in results):.2f} times as fast as torch.distributed.pipelining"))


if __name__ == "__main__":
    main()
