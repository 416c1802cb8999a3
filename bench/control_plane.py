#!/usr/bin/env python3
"""What driving the clock costs: the same plan at the default window, in lock-step, and with everything granted at once.

    bench/control_plane.py [--workers 2] [--runs 5]
"""

import argparse
import pathlib
import statistics
import tempfile

import common

# One grant covers the whole job: the plan then runs without the orchestrator.
EVERYTHING = 1 << 40
WINDOWS = {"ungranted": EVERYTHING, "default": 0, "lock-step": 1}


def one_run(workers: int, layers: int, steps: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        common.write_transformer_data(folder)
        return {label: common.run_and_time(
            folder, common.transformer_spec(label, layers, workers, chunks=8, steps=steps, clock_window=window), workers)
            for label, window in WINDOWS.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    print(f"machine: {common.machine()}")
    results = [one_run(options.workers, options.layers, options.steps) for _ in range(options.runs)]
    for result in results:
        print(" ".join(f"{label}={seconds:.4f}" for label, seconds in result.items()), flush=True)
    for label in ("default", "lock-step"):
        cost = statistics.median(r[label] / r["ungranted"] - 1 for r in results)
        print(f"{label}: {cost:+.1%} of a step against no grants, median of {len(results)}")


if __name__ == "__main__":
    main()
