#!/usr/bin/env python3
"""Memory of each stage of the table's decoder, for each way of recomputing: what the plan foretells beside what the
stage's worker had at its most. What the columns are: bench/gpu/README.md.

    bench/gpu/memory.py [--gpus 2] [--sizes small mid] [--chunks 8 32] [--checkpoint never except_last always]
                        [--capture auto never] [--seconds 570] [--out FILE.json]
    bench/gpu/memory.py --device cpu --sizes tiny --chunks 4          a try without a GPU

Ends with 1 where a run fails, or where the most that a GPU's allocator gave out is not told, or not within 10% of the
plan. What the time does not suffice for is left out and named. With $OUT set, the results are in $OUT/memory.json, too.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import ours
from common import read_jsonl
from ranks import Failed
from rows import ESTIMATE, Row
from setting import Budget, complete, export, make_parser, nvidia_smi, save, versions, words_of

WITHIN = 0.1
EVERY_MILLIS = 50
CAPTURED = re.compile(r"stage (\d+) is captured: .*, (\d+) MiB")
COLUMNS = ("state", "saved", "working", "planned", "saved_found", "allocated", "reserved", "graphs", "gpu")


class Driver:
    """What the driver says of each GPU's memory in use, at its most while this is open."""

    def __init__(self, folder: pathlib.Path):
        self.log = folder / "nvidia-smi.log"
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> Driver:
        if nvidia_smi("name"):
            command = ["nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader,nounits", "-lms",
                       str(EVERY_MILLIS)]
            with open(self.log, "w") as log:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def __exit__(self, *_) -> None:
        if self.process:
            ours.end(self.process)

    def peaks(self) -> dict[int, int]:
        """Bytes by the GPU's number."""
        found: dict[int, int] = {}
        for line in self.log.read_text().splitlines() if self.log.exists() else ():
            if (match := re.fullmatch(r"(\d+), (\d+)", line)) is not None:
                gpu, mib = map(int, match.groups())
                found[gpu] = max(found.get(gpu, 0), mib << 20)
        return found


def most(steps: list[dict], name: str, stage: int) -> int | None:
    """Of what the steps say of each stage; None where they do not."""
    return max((int(step[name][stage]) for step in steps if name in step), default=None)


def graphs_of(notes: list[str]) -> dict[int, int]:
    """Bytes of each stage's CUDA graphs, by its words."""
    return {int(match[1]): int(match[2]) << 20 for note in notes if (match := CAPTURED.search(note))}


def stages_of(forecast: dict, steps: list[dict], graphs: dict[int, int], gpus: dict[int, int]) -> list[dict]:
    """In bytes. The allocator's are of the stage's worker, in the whole attempt so far."""
    lines = []
    for stage, told in enumerate(forecast["stages"]):
        state, saved, working = (int(told.get(name, 0)) for name in ("state_bytes", "peak_saved_bytes", "working_bytes"))
        line = {"state": state, "saved": saved, "working": working, "planned": state + saved + working,
                "saved_found": most(steps, "stage_peak_saved_bytes", stage),
                "allocated": most(steps, "stage_peak_allocated_bytes", stage),
                "reserved": most(steps, "stage_peak_reserved_bytes", stage),
                "graphs": graphs.get(stage), "gpu": gpus.get(stage)}
        ratio = line["allocated"] / line["planned"] if line["allocated"] else None
        lines.append(line | {"ratio": ratio, "within": ratio is not None and abs(ratio - 1) <= WITHIN})
    return lines


def measure(row: Row, folder: pathlib.Path, options: argparse.Namespace, seconds: float) -> dict:
    """With several workers on a GPU the driver's number is no stage's."""
    with Driver(folder) as driver, ours.results(ours.spec_of(row, options), folder, options, seconds) as output:
        steps, notes = read_jsonl(output / "metrics.jsonl"), ours.notes_of(output)
        job = json.loads((output / "job.json").read_text())
    gpus = driver.peaks() if options.gpus == options.workers else {}
    return {"stages": stages_of(job["forecast"], steps, graphs_of(notes), gpus), "notes": notes}


def passed(measured: dict, device: str) -> bool:
    """A CPU's allocator keeps no count."""
    return "stages" in measured and all(stage["within"] or (device == "cpu" and stage["ratio"] is None)
                                        for stage in measured["stages"])


def table_lines(row: Row, measured: dict) -> list[str]:
    head = f"| {row.size} | {row.chunks} | {row.checkpoint} | {row.mode} | "
    if "stages" not in measured:
        return [f"{head}failed: {measured['error']}{' |' * (len(COLUMNS) + 3)}"]
    return [head + " | ".join([str(index), *(mib(stage[name]) for name in COLUMNS), judged(stage)]) + " |"
            for index, stage in enumerate(measured["stages"])]


def mib(found: int | None) -> str:
    return "" if found is None else f"{found / 2**20:.1f}"


def judged(stage: dict) -> str:
    return " | " if stage["ratio"] is None else f"{stage['ratio']:.3f} | {'yes' if stage['within'] else 'NO'}"


class Bench:
    def __init__(self, options: argparse.Namespace, folder: pathlib.Path):
        self.options, self.folder, self.budget = options, folder, Budget(options.seconds)
        self.versions, self.took = versions(), dict(ESTIMATE)
        self.found: dict[Row, dict] = {}
        self.left_out: list[str] = []

    def rows(self) -> list[Row]:
        options = self.options
        return [Row("ours", *way) for way in itertools.product(options.capture, options.sizes, options.chunks,
                                                               options.checkpoint)]

    def run(self) -> bool:
        """Whether all of what was measured is as it was planned."""
        written = export(self.options, self.folder, self.budget)
        print_head(self)
        for row in self.rows():
            if row.size in written and self.budget.left() > self.took[row.size]:
                self.run_row(row)
            else:
                self.left_out.append(row.name())
        return bool(self.found) and all(passed(measured, self.options.device) for measured in self.found.values())

    def run_row(self, row: Row) -> None:
        begin = time.monotonic()
        try:
            self.found[row] = measure(row, self.folder / row.size, self.options, self.budget.left())
            self.took[row.size] = time.monotonic() - begin
        except Failed as error:
            self.found[row] = {"error": str(error)}
        print("\n".join(table_lines(row, self.found[row])), flush=True)
        save(self.options, self.document())

    def document(self) -> dict:
        return {"versions": self.versions, "options": vars(self.options), "left_out": self.left_out,
                "rows": [dataclasses.asdict(row) | measured for row, measured in self.found.items()]}


def print_head(bench: Bench) -> None:
    print(f"{words_of(bench.versions)}\n{bench.options.workers} workers on {bench.options.gpus} devices; MiB\n\n"
          "| size | chunks | checkpoint | capture | stage | plan: state | saved | working | in all | found: saved | allocated | "
          f"reserved | graphs | GPU | allocated / plan | within {WITHIN:.0%} |\n|---|---:|---|---|{'---:|' * 11}---|")


def parse() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--checkpoint", nargs="+", choices=["never", "except_last", "always"],
                        default=["never", "except_last", "always"])
    parser.add_argument("--capture", nargs="+", choices=["auto", "never"], default=["auto"])
    parser.add_argument("--steps", type=int, default=4, help="a stage is recorded before the second one")
    parser.set_defaults(cut="planner", chunks=[8, 32])
    options = parser.parse_args()
    complete(options, parser, "memory", ["small", "mid"])
    if options.workers == 1:
        parser.error("a plan foretells nothing where there is no cut to choose: with one worker")
    return options


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Ends what it started, as Ctrl-C does.
    with tempfile.TemporaryDirectory(prefix="gpipe_memory.") as name:
        bench = Bench(options, pathlib.Path(name))
        as_planned = bench.run()
        if bench.left_out:
            print(f"\nleft out, as the time did not suffice or there is no model: {', '.join(bench.left_out)}")
    if not as_planned:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
