#!/usr/bin/env python3
"""One worker, one chunk, no recompute, beside a plain LibTorch loop of the same model in the same run.

    bench/one_worker.py [--runs 5]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import common


def one_run(layers: int, steps: int, threads: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        common.write_transformer_data(folder)
        spec = common.transformer_spec("one", layers, 1, chunks=1, steps=steps)
        ours = common.run_and_time(folder, spec, 1, threads=threads)
    plain = json.loads(subprocess.run([*common.program("plain_loop"), str(layers), str(steps), str(threads)], check=True, text=True,
                                      capture_output=True).stdout)["step_seconds"]
    return {"plain": plain, "ours": ours, "ratio": ours / plain}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(f"machine: {common.machine()}")
    results = [one_run(options.layers, options.steps, options.threads) for _ in range(options.runs)]
    for result in results:
        print(" ".join(f"{label}={value:.4f}" for label, value in result.items()), flush=True)
    print(f"one worker takes {statistics.median(r['ratio'] for r in results):.3f} times a plain LibTorch loop")


if __name__ == "__main__":
    main()
