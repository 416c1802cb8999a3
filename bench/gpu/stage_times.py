#!/usr/bin/env python3
"""Time of each stage of the table's decoder, a micro-batch: what the planner, which measures layers one by one, foretold
beside what the stage took.

    bench/gpu/stage_times.py [--gpus 2] [--sizes small mid] [--chunks 8 32] [--seconds 570] [--out FILE.json]
    bench/gpu/stage_times.py --device cpu --sizes tiny --chunks 4          a try without a GPU

With $OUT set, the results are in $OUT/stage_times.json, too, with the times of all layers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import statistics
import tempfile

import ours
from common import Cluster, gpipe, read_jsonl, write_spec
from rows import Row
from setting import Budget, complete, export, make_parser, save, versions, words_of

WARM_UP = 4  # Steps in which things are allocated, chosen and captured.


def milliseconds_found(steps: list[dict], stage: int, chunks: int) -> float:
    """Of computing, a micro-batch."""
    return 1e3 * statistics.median(step["stage_busy"][stage] * step["step_seconds"] for step in steps[WARM_UP:]) / chunks


def layers_of(job: dict) -> list[dict]:
    return [{"module": (layer.get("begins") or [""])[0], "forward_ms": int(layer.get("forward_nanos", 0)) / 1e6,
             "backward_ms": int(layer.get("backward_nanos", 0)) / 1e6} for layer in job["plan"]["layers"]]


def measure(row: Row, cluster: Cluster, folder: pathlib.Path, options: argparse.Namespace) -> dict:
    spec = ours.spec_of(row, options)
    path = write_spec(folder, spec)
    told = json.loads(gpipe("plan", path, "-o", "json", address=cluster.address).stdout)
    steps = read_jsonl(cluster.run(path, folder / spec["name"], seconds=300) / "metrics.jsonl")
    stages = [{"layers": int(stage["layer_count"]),
               "forward_ms": 1e3 * times["forward_seconds"], "backward_ms": 1e3 * times["backward_seconds"],
               "found_ms": milliseconds_found(steps, index, row.chunks)}
              for index, (stage, times) in enumerate(zip(told["plan"]["stages"], told["forecast"]["stages"]))]
    return {"row": row.name(), "step_ms": 1e3 * statistics.median(step["step_seconds"] for step in steps[WARM_UP:]),
            "planned_step_ms": 1e3 * told["forecast"]["step_seconds"], "stages": stages, "layers": layers_of(told)}


def print_row(found: dict) -> None:
    print(f"{found['row']}: a step takes {found['step_ms']:.1f} ms, planned {found['planned_step_ms']:.1f}")
    for index, stage in enumerate(found["stages"]):
        both = stage["forward_ms"] + stage["backward_ms"]
        print(f"  stage {index}, {stage['layers']} layers: planned {stage['forward_ms']:.3f} + {stage['backward_ms']:.3f} "
              f"= {both:.3f} ms, found {stage['found_ms']:.3f}: {stage['found_ms'] / both:.2f}", flush=True)


def run(options: argparse.Namespace, folder: pathlib.Path) -> list[dict]:
    written, rows = export(options, folder, Budget(options.seconds)), []
    cluster = Cluster(folder / "cluster", lease_millis=10000)
    try:
        for index in range(options.workers):
            cluster.start_worker(f"w{index}", f"cuda:{index % options.gpus}" if options.device == "cuda" else "cpu")
        cluster.wait_idle(options.workers)
        for size, chunks in itertools.product(written, options.chunks):
            rows.append(measure(Row("ours", "auto", size, chunks), cluster, folder / size, options))
            print_row(rows[-1])
            save(options, {"rows": rows})
    finally:
        cluster.stop()
    return rows


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.set_defaults(cut="planner", chunks=[8, 32])
    options = parser.parse_args()
    complete(options, parser, "stage_times", ["small", "mid"])
    print(f"{words_of(versions())}\n{options.workers} workers on {options.gpus} devices\n")
    with tempfile.TemporaryDirectory(prefix="gpipe_stage_times.") as name:
        run(options, pathlib.Path(name))


if __name__ == "__main__":
    main()
