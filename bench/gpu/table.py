#!/usr/bin/env python3
"""One table of a Llama-like decoder in bf16 with AdamW on the GPUs of this machine: ours by `gpipe run`, PyTorch's own
pipelines, and PyTorch on one GPU, eager and as a CUDA graph. How to read it: bench/gpu/README.md.

    bench/gpu/table.py [--gpus N] [--sizes small mid big] [--chunks 8 32] [--checkpoint never always]
                       [--capture auto never] [--only ours|peers] [--seconds 570] [--out FILE.json]
    bench/gpu/table.py --trace DIR [--sizes mid] [--chunks 8]        traces of ours instead, and where their time goes
    bench/gpu/table.py --device cpu --sizes tiny --chunks 4          a try without a GPU

Without --gpus all of them. Ends with 1 where rows do not train the same. What the time does not suffice for is left out
and named. With $OUT set, the results are in $OUT/table.json, too.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import signal
import sys
import tempfile
import time

import model as models
import ours
from ranks import Failed, Ranks
from rows import Results, Row, planned
from setting import Budget, complete, export, make_parser, nvidia_smi, save, versions, words_of

LOSSES_WITHIN = 0.01  # In the third step, by the loss at first: roundings of bf16 make 1e-4 of difference until then.
PATIENCE = 4.0  # So many times as long as expected is a row's limit, where the budget has it.


class Bench:
    def __init__(self, options: argparse.Namespace, folder: pathlib.Path):
        self.options, self.folder = options, folder
        self.budget = Budget(options.seconds)
        self.versions = versions()
        self.results = Results(options, next(iter(nvidia_smi("name")), ""))
        self.ranks = Ranks(options.workers, options.gpus if options.device == "cuda" else 0, folder)
        self.left_out: list[Row] = []

    def run(self) -> None:
        written = export(self.options, self.folder, self.budget)
        print(f"exported {' '.join(sorted(written))}; {self.budget.left():.0f} s left", flush=True)
        try:
            for row in planned(self.options):
                self.run_row(row, written)
        finally:
            self.ranks.stop()

    def run_row(self, row: Row, written: set[str]) -> None:
        expected = self.results.expected_seconds(row)
        if row.size not in written or self.budget.left() < expected:
            self.left_out.append(row)
            return
        begin = time.monotonic()
        try:
            measured = self.measure(row, min(PATIENCE * expected, self.budget.left()))
        except Failed as error:
            measured = {"error": str(error)}
        self.results.add(row, measured, time.monotonic() - begin)
        seconds = self.results.seconds(row)
        said = f"{1000 * seconds:.1f} ms" if seconds else measured.get("error", "too few steps")
        print(f"{row.name()}: {said} (took {time.monotonic() - begin:.0f} s)", flush=True)
        self.save()

    def measure(self, row: Row, seconds: float) -> dict:
        if row.kind == "ours":
            self.ranks.stop()  # Theirs would hold memory of the GPUs.
            return ours.measure(row, self.folder / row.size, self.options, seconds)
        case = vars(row) | {"steps": self.options.steps, "skip": self.options.skip, "folder": str(self.folder / row.size)}
        answers = self.ranks.ask(case, seconds)
        if row.kind == "alone":
            return answers[0]
        together = [max(step) for step in zip(*(answer["step_seconds"] for answer in answers))]
        return answers[-1] | {"step_seconds": together, "peak_gib": [a.get("peak_gib") for a in answers]}

    def trained_the_same(self) -> bool:
        """A fast row that computes something else is worth nothing."""
        differences = [self.results.loss_difference(size, chunks)
                       for size, chunks in itertools.product(self.options.sizes, self.options.chunks)]
        return all(difference is None or difference <= LOSSES_WITHIN for difference in differences)

    def document(self) -> dict:
        return {"versions": self.versions, "options": vars(self.options),
                "rows": [self.results.line(row) for row in self.results.found],
                "left_out": [row.name() for row in self.left_out]}

    def save(self) -> None:
        """After each row, so that a run that is ended leaves what it has."""
        save(self.options, self.document())


def print_table(bench: Bench) -> None:
    options, results = bench.options, bench.results
    print(f"\n{words_of(bench.versions)}")
    peak = f"; MFU of {results.peak / 1e12:.0f} TFLOP/s a GPU" if results.peak else ""
    print(f"{options.workers} workers on {options.gpus} {'GPUs' if options.device == 'cuda' else 'CPU processes'}; median "
          f"of the steps after the first {options.skip}{peak}\n")
    print("| size | chunks | what | ms a step (fastest-slowest) | tokens/s | MFU | bound ms | share | best peer / ours |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    order = {"alone": 0, "peer": 1, "ours": 2}
    for row in sorted(results.found, key=lambda r: (options.sizes.index(r.size), r.chunks, r.checkpoint != "never",
                                                    order[r.kind])):
        print(table_line(results.line(row)))
    print()
    print_facts(bench)
    if bench.left_out:
        print(f"\nleft out, as the time did not suffice or there is no model: {', '.join(r.name() for r in bench.left_out)}")


def print_facts(bench: Bench) -> None:
    """Of each size and number of chunks: the bounds by every way in which one GPU was measured, and the losses."""
    options, results = bench.options, bench.results
    for size, chunks in itertools.product(options.sizes, options.chunks):
        row = Row("ours", "auto", size, chunks)
        known = {mode: results.bound(row, mode) for mode in ("eager", "graph", "compiled", "compiled+graph")}
        said = [f"bound from {mode} {1000 * bound:.1f} ms" for mode, bound in known.items() if bound]
        if (difference := results.loss_difference(size, chunks)) is not None:
            said.append(f"losses of the third step differ by {difference:.1e}"
                        + ("" if difference <= LOSSES_WITHIN else ": THEY DO NOT TRAIN THE SAME"))
        if said:
            print(f"{size}, {chunks} chunks: {', '.join(said)}")


def table_line(line: dict) -> str:
    head = f"| {line['size']} | {line['chunks']} | {line['what']} | "
    if "seconds" not in line:
        return head + f"failed: {line.get('error', 'too few steps')} | | | | | |"

    def shown(name: str, form: str, scale: float = 1.0) -> str:
        return format(scale * line[name], form) if name in line else ""

    spread = f"{1000 * line['seconds']:.1f} ({1000 * line['fastest']:.1f}-{1000 * line['slowest']:.1f})"
    cells = [spread, shown("tokens_per_second", ".0f"), shown("mfu", ".1%"), shown("bound_seconds", ".1f", 1000),
             shown("share", ".1%"), shown("times_best_peer", ".2f")]
    return head + " | ".join(cells) + " |"


def trace(options: argparse.Namespace, folder: pathlib.Path) -> None:
    """Of the first size, number of chunks and setting."""
    budget, size = Budget(options.seconds), options.sizes[0]
    options.sizes = [size]
    if not export(options, folder, budget):
        raise SystemExit(1)
    row = Row("ours", options.capture[0], size, options.chunks[0], options.checkpoint[0])
    measured = ours.measure(row, folder / size, options, budget.left(), options.trace)
    print(f"{row.name()}: steps of {[round(1000 * s, 1) for s in measured['step_seconds']]} ms, some of them traced")
    print(f"traces: {', '.join(sorted(file.name for file in options.trace.glob('*.json.gz')))}")


def parse() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--checkpoint", nargs="+", choices=["never", "always"], default=["never"])
    parser.add_argument("--capture", nargs="+", choices=["auto", "never"], default=["auto", "never"])
    parser.add_argument("--cut", choices=["planner", "layers"], default="planner",
                        help="of ours: measured by the planner, or between the layers where the peers are cut")
    parser.add_argument("--only", choices=["ours", "peers"], help="ours, with the one GPU that makes the bound; or theirs")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--skip", type=int, default=4, help="so many of them are not counted")
    parser.add_argument("--timelines", type=pathlib.Path, metavar="DIR", help="keep that of the last step of each of our rows")
    parser.add_argument("--trace", type=pathlib.Path, metavar="DIR", help="trace a run of ours into it instead")
    options = parser.parse_args()
    complete(options, parser, "table", ["small", "mid", "big"])
    options.chunks = options.chunks or ([1, 8, 32] if options.workers == 1 else [8, 32])
    if options.steps <= options.skip:
        parser.error("--steps must be more than --skip")
    return options


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Ends what it started, as Ctrl-C does.
    with tempfile.TemporaryDirectory(prefix="gpipe_table.") as name:
        if options.trace:
            trace(options, pathlib.Path(name))
            return
        bench = Bench(options, pathlib.Path(name))
        bench.run()
        print_table(bench)
    if not bench.trained_the_same() or not any(results.get("step_seconds") for results in bench.results.found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
