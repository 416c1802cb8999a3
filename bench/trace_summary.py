#!/usr/bin/env python3
"""What the traces of `gpipe run --trace` say, in a table: where the time of a mini-batch goes, worker by worker.

    bench/trace_summary.py DIR/trace/*.json
"""

import json
import pathlib
import sys

ROUNDS = 2  # A trace holds so many mini-batches.
GAPS = (("shorter than 10 us", 0.0, 10.0), ("10 to 100 us", 10.0, 100.0), ("100 us or longer", 100.0, float("inf")))


def union(spans: list[tuple[float, float]]) -> float:
    """Microseconds covered by at least one span."""
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


def gaps(spans: list[tuple[float, float]]) -> list[float]:
    """Microseconds between spans in which nothing runs."""
    found, end = [], None
    for start, stop in sorted(spans):
        if end is not None and start > end:
            found.append(start - end)
        end = stop if end is None else max(end, stop)
    return found


def gap_rows(kernels: list[tuple[float, float]]) -> dict[str, float]:
    """Short gaps are between the kernels of a captured graph, middling ones are the host's, long ones are waiting."""
    between = gaps(kernels)
    rows = {f"no compute kernel, {words}": sum(g for g in between if low <= g < high) / 1000 / ROUNDS
            for words, low, high in GAPS}
    return rows | {"the longest time without one": max(between, default=0.0) / 1000,
                   "times without one, 10 us or longer": sum(g >= 10 for g in between) / ROUNDS}


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
        "graphs launched": len(spans("cuda_runtime", where=lambda e: "GraphLaunch" in e["name"])) / ROUNDS,
        **gap_rows(kernels),
    }


def print_table(paths: list[pathlib.Path]) -> None:
    table = [summary(path) for path in paths]
    print("| in a mini-batch, ms | " + " | ".join(path.stem.rsplit("-", 1)[-1] for path in paths) + " |")
    print("|---" * (len(paths) + 1) + "|")
    for row in table[0]:
        print(f"| {row} | " + " | ".join(f"{column[row]:.1f}" for column in table) + " |")


def main():
    paths = [pathlib.Path(name) for name in sys.argv[1:]]
    if not paths:
        raise SystemExit(__doc__)
    print_table(paths)


if __name__ == "__main__":
    main()
