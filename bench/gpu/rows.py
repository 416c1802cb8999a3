"""The rows of the table: which there are and in which order, what they cost, and what is made of their measurements."""

from __future__ import annotations

import argparse
import dataclasses
import statistics

import model as models

ESTIMATE = {"tiny": 15.0, "text": 20.0, "small": 20.0, "mid": 30.0, "big": 55.0}  # Seconds of a row, until one like it has been seen.
COMPILING = 60.0  # Seconds more.
RECOMPUTED = 4 / 3  # Work with a second forward, which is a third of forward and backward.
WHAT = {"alone": "PyTorch without a pipeline, {}", "peer": "torch.distributed.pipelining, {}", "ours": "ours, capture {}"}


@dataclasses.dataclass(frozen=True)
class Row:
    kind: str  # alone | peer | ours
    mode: str  # Of PyTorch alone: eager, graph, compiled, compiled+graph; of a peer its schedule; of ours `capture`.
    size: str
    chunks: int
    checkpoint: str = "never"

    def name(self) -> str:
        return f"{self.size}-m{self.chunks}-{self.checkpoint}-{self.kind}-{self.mode}"

    def what(self) -> str:
        return WHAT[self.kind].format(self.mode) + (", recomputing" if self.checkpoint == "always" else "")


def planned(options: argparse.Namespace) -> list[Row]:
    """In the order of measuring: what each size needs for its verdict, then other settings, then what is compiled."""
    rows = [row for size in options.sizes for row in essential(options, size)]
    rows += [row for size in options.sizes for row in others(options, size) if row not in rows]
    if options.device == "cuda" and options.only != "ours":
        rows += [Row("alone", mode, size, chunks) for size in options.sizes for mode in ("compiled+graph", "compiled")
                 for chunks in alone_chunks(options)]
    return rows


def alone_chunks(options: argparse.Namespace) -> list[int]:
    """With several workers one number is enough for the bound."""
    return options.chunks if options.workers == 1 else [8 if 8 in options.chunks else options.chunks[0]]


def essential(options: argparse.Namespace, size: str) -> list[Row]:
    captured = "graph" if options.device == "cuda" else "eager"
    checkpoint = options.checkpoint[0]
    rows = [Row("alone", captured, size, chunks) for chunks in alone_chunks(options)]  # The bound, also beside ours only.
    if options.only != "ours":
        rows += peers(options, size, checkpoint)
        rows += [Row("alone", "eager", size, chunks) for chunks in alone_chunks(options) if captured != "eager"]
    if options.only != "peers":
        rows += [Row("ours", options.capture[0], size, chunks, checkpoint) for chunks in options.chunks]
    return rows


def others(options: argparse.Namespace, size: str) -> list[Row]:
    """With the settings that are not the first ones."""
    rows = []
    for checkpoint in options.checkpoint:
        if options.only != "ours":
            rows += peers(options, size, checkpoint)
        if options.only != "peers":
            rows += [Row("ours", capture, size, chunks, checkpoint) for capture in options.capture
                     for chunks in options.chunks]
    return rows


def peers(options: argparse.Namespace, size: str, checkpoint: str) -> list[Row]:
    if options.workers == 1:
        return []
    return [Row("peer", schedule, size, chunks, checkpoint) for chunks in options.chunks
            for schedule in ("1f1b", "gpipe")]


class Results:
    """What was measured, and what is known from it about the rows to come."""

    def __init__(self, options: argparse.Namespace, card: str):
        self.options, self.peak = options, models.peak_flops(card)
        self.found: dict[Row, dict] = {}
        self.took: dict[tuple[str, str], float] = {}

    def expected_seconds(self, row: Row) -> float:
        known = self.took.get((row.kind, row.size), ESTIMATE[row.size])
        return known + (COMPILING if "compiled" in row.mode else 0.0)

    def add(self, row: Row, measured: dict, took: float) -> None:
        self.found[row] = measured
        if "step_seconds" in measured and "compiled" not in row.mode:
            self.took[row.kind, row.size] = max(took, self.took.get((row.kind, row.size), 0.0))

    def timed(self, row: Row) -> list[float]:
        """Without the first steps, in which things are allocated, chosen and captured."""
        return self.found.get(row, {}).get("step_seconds", [])[self.options.skip:]

    def seconds(self, row: Row) -> float | None:
        return statistics.median(self.timed(row)) if self.timed(row) else None

    def bound(self, row: Row, mode: str | None = None) -> float | None:
        """Of a pipeline: one GPU's captured time of a micro-batch / K for each of M + K - 1 cycles, and its optimizer / K."""
        mode = mode or ("graph" if self.options.device == "cuda" else "eager")
        alone = [Row("alone", mode, row.size, chunks) for chunks in [row.chunks, *alone_chunks(self.options)]]
        known = next((r for r in alone if self.seconds(r)), None)
        if known is None:
            return None
        gpus, update = self.options.gpus, self.found[known]["optimizer_seconds"]
        chunk = (self.seconds(known) - update) / known.chunks * (RECOMPUTED if row.checkpoint == "always" else 1.0)
        return chunk / gpus * (row.chunks + gpus - 1) + update / gpus

    def loss_difference(self, size: str, chunks: int) -> float | None:
        """The largest one between two rows' third steps, which all train the same, by the loss at first. None without
        two."""
        losses = [found["losses"] for row, found in self.found.items()
                  if (row.size, row.chunks) == (size, chunks) and len(found.get("losses") or ()) > 2]
        third = [each[2] for each in losses]
        return (max(third) - min(third)) / losses[0][0] if len(losses) > 1 else None

    def best_peer(self, row: Row) -> float | None:
        """Of the pipelines; without one, of PyTorch's eager steps on one GPU."""
        kinds = [("peer", "1f1b"), ("peer", "gpipe")] if self.options.workers > 1 else [("alone", "eager")]
        times = [self.seconds(Row(kind, mode, row.size, row.chunks, row.checkpoint)) for kind, mode in kinds]
        return min((t for t in times if t), default=None)

    def line(self, row: Row) -> dict:
        """The row's numbers, for the table and for JSON."""
        steps, seconds = self.timed(row), self.seconds(row)
        document = dataclasses.asdict(row) | {"what": row.what()} | self.found[row]
        if not seconds:
            return document
        shape, gpus = models.SIZES[row.size], 1 if row.kind == "alone" else self.options.gpus
        rate = row.chunks * models.MICRO_BATCH[row.size] * shape.tokens / seconds
        document |= {"seconds": seconds, "fastest": min(steps), "slowest": max(steps), "tokens_per_second": rate}
        if self.peak and self.options.device == "cuda":
            document["mfu"] = rate * models.flops_per_token(shape) / gpus / self.peak
        if row.kind != "alone" and (bound := self.bound(row)):
            document |= {"bound_seconds": bound, "share": bound / seconds}
        if row.kind == "ours" and (peer := self.best_peer(row)):
            document["times_best_peer"] = peer / seconds
        return document
