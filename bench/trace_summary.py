#!/usr/bin/env python3
"""What the traces of `gpipe run --trace` say, in a table: where the time of a mini-batch goes, worker by worker.

    bench/trace_summary.py DIR/trace/*.json
"""

import json
import pathlib
import sys

ROUNDS = 2  # A trace holds so many mini-batches.


def union(spans: list[tuple[float, float]]) -> float:
    """Microseconds covered by at least one span."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


def summary(path: pathlib.Path) -> dict[str, float]:
    events = [e for e in json.loads(path.read_text())["traceEvents"] if e.get("ph") == "X"]

    def spans(*categories, where=lambda event: True):
        return [(e["ts"], e["ts"] + e["dur"]) for e in events if e.get("cat") in categories and where(e)]

    actions = spans("user_annotation")
    if not actions:
        raise SystemExit(f"{path}: no action of the schedule in it")
    kernels = spans("kernel", where=lambda e: "nccl" not in e["name"])
    millis = 1000 * ROUNDS
    return {
        "from the first action to the last": (max(s[1] for s in actions) - min(s[0] for s in actions)) / millis,
        "the host in actions": union(actions) / millis,
        "the host in operators": union(spans("cpu_op")) / millis,
        "compute kernels": union(kernels) / millis,
        "NCCL kernels": union(spans("kernel", where=lambda e: "nccl" in e["name"])) / millis,
        "copies": union(spans("gpu_memcpy", "gpu_memset")) / millis,
        "the host waiting for the GPU": union(spans("cuda_runtime", where=lambda e: "Synchronize" in e["name"])) / millis,
        "kernels": len(kernels) / ROUNDS,
    }


def main():
    paths = [pathlib.Path(name) for name in sys.argv[1:]]
    if not paths:
        raise SystemExit(__doc__)
    table = [summary(path) for path in paths]
    print("| in a mini-batch, ms | " + " | ".join(path.stem.rsplit("-", 1)[-1] for path in paths) + " |")
    print("|---" * (len(paths) + 1) + "|")
    for row in table[0]:
        print(f"| {row} | " + " | ".join(f"{column[row]:.1f}" for column in table) + " |")


if __name__ == "__main__":
    main()
