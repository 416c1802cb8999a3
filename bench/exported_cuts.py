#!/usr/bin/env python3
"""How good the chosen cut is: the slowest stage of every cut of a small exported model, measured by running them all.

All cuts are run once; then the best ones and the chosen one take turns, since the best of many single measurements is
partly luck. What counts is the median over steps of the slowest stage's seconds.

    bench/exported_cuts.py [--cases convnet gpt2-small] [--workers 2] [--turns 5]
"""

import argparse
import itertools
import json
import pathlib
import statistics
import tempfile

import common
from exported_models import CASES

BATCH, CHUNKS, STEPS, BEST = 32, 4, 8, 4

Balance = tuple[int, ...]


def spec_of(case: str, **pipeline) -> dict:
    return common.exported_spec("cut", case, BATCH, class_dim=CASES[case].class_dim, steps=STEPS, chunks=CHUNKS,
                                **pipeline)


def chosen_cut(cluster: common.Cluster, folder: pathlib.Path, case: str, workers: int) -> Balance:
    path = common.write_spec(folder, spec_of(case, workers=workers))
    plan = json.loads(common.gpipe("plan", path, "-o", "json", address=cluster.address).stdout)["plan"]
    return tuple(int(stage["layer_count"]) for stage in plan["stages"])


def all_cuts(parts: int, workers: int) -> list[Balance]:
    return [tuple(b - a for a, b in itertools.pairwise((0, *cuts, parts)))
            for cuts in itertools.combinations(range(1, parts), workers - 1)]


def slowest_stage(cluster: common.Cluster, folder: pathlib.Path, case: str, balance: Balance) -> float:
    """Seconds a step."""
    results = cluster.run(common.write_spec(folder, spec_of(case, balance=list(balance))), folder / "results")
    steps = common.read_jsonl(results / "metrics.jsonl")[2:]
    return statistics.median(max(step["stage_busy"]) * step["step_seconds"] for step in steps)


def measure(cluster: common.Cluster, folder: pathlib.Path, case: str, workers: int, turns: int) -> None:
    CASES[case].write(folder, case, BATCH)
    chosen = chosen_cut(cluster, folder, case, workers)
    once = {cut: slowest_stage(cluster, folder, case, cut) for cut in all_cuts(sum(chosen), workers)}
    candidates = sorted({*sorted(once, key=once.__getitem__)[:BEST], chosen})
    times = {cut: [] for cut in candidates}
    for _ in range(turns):
        for cut in candidates:
            times[cut].append(slowest_stage(cluster, folder, case, cut))
    medians = {cut: statistics.median(seconds) for cut, seconds in times.items()}
    best = min(medians, key=medians.__getitem__)
    print(f"{case}: {len(once)} cuts of {sum(chosen)} parts on {workers} workers, slowest stage from "
          f"{min(once.values()) * 1e3:.1f} to {max(once.values()) * 1e3:.1f} ms; "
          f"best {list(best)} {medians[best] * 1e3:.1f}, chosen {list(chosen)} {medians[chosen] * 1e3:.1f}: "
          f"{medians[chosen] / medians[best]:.3f} times", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["convnet", "gpt2-small"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    print(f"machine: {common.machine()}")
    with tempfile.TemporaryDirectory() as name:
        cluster = common.Cluster(pathlib.Path(name))
        try:
            cluster.start_workers(options.workers)
            for case in options.cases:
                measure(cluster, pathlib.Path(name), case, options.workers, options.turns)
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
