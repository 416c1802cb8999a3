#!/usr/bin/env python3
"""An exported model on one worker, one chunk, no recompute, beside the same model in eager PyTorch on as many threads.

A step is the forward, the loss, the backward and SGD's update. The two take turns, so that both see the machine's good
and bad times; `ratio` is of the medians of a turn. The last line also has the ratio of the shortest steps of all turns.

    bench/exported_step.py [--cases resnet18 gpt2] [--runs 5] [--threads 1]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import common
from exported_models import CASES

BATCH, WARM_UP = 8, 2


def eager(case: str, steps: int, threads: int) -> list[float]:
    command = [sys.executable, str(common.ROOT / "bench" / "peers" / "eager.py"), case, "--batch", str(BATCH),
               "--steps", str(steps), "--threads", str(threads)]
    done = subprocess.run(command, check=True, text=True, capture_output=True,
                          env=dict(os.environ, OMP_NUM_THREADS=str(threads)))
    return json.loads(done.stdout)["step_seconds"][WARM_UP:]


def ours(folder: pathlib.Path, case: str, steps: int, threads: int) -> list[float]:
    spec = common.exported_spec("one", case, BATCH, class_dim=CASES[case].class_dim, steps=steps, workers=1, chunks=1)
    common.run_and_time(folder, spec, 1, threads=threads)
    return [step["step_seconds"] for step in common.read_jsonl(folder / "one" / "metrics.jsonl")[WARM_UP:]]


def measure(case: str, runs: int, steps: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        CASES[case].write(folder, case, BATCH)
        theirs, mine = [], []
        for run in range(runs):
            turns = [lambda: theirs.append(eager(case, steps, threads)),
                     lambda: mine.append(ours(folder, case, steps, threads))]
            for turn in turns if run % 2 == 0 else reversed(turns):
                turn()
            a, b = statistics.median(theirs[-1]), statistics.median(mine[-1])
            print(f"{case}: eager={a:.4f} ours={b:.4f} ratio={b / a:.4f}", flush=True)
    ratio = statistics.median(statistics.median(m) / statistics.median(t) for m, t in zip(mine, theirs))
    print(f"{case}: one worker takes {ratio:.3f} times eager PyTorch, median of {runs}; "
          f"{min(map(min, mine)) / min(map(min, theirs)):.3f} of the shortest steps", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["resnet18", "gpt2", "gpt2-narrow"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    print(f"machine: {common.machine()}")
    for case in options.cases:
        measure(case, options.runs, options.steps, options.threads)


if __name__ == "__main__":
    main()
