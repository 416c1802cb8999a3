#!/usr/bin/env python3
"""Loss curves of a small language model on a real text, ours in a pipeline beside PyTorch's on one GPU, in pure bf16
and in bf16 with fp32 masters. How to read what it prints: bench/gpu/README.md.

    bench/gpu/text_curve.py [--gpus 2] [--chunks 8] [--steps 200] [--lr 3e-4] [--out FILE.json]
    bench/gpu/text_curve.py --device cpu --sizes tiny --steps 30          a try without a GPU

Ends with 1 where a curve of ours, in means over ten steps, is not PyTorch's within 1%. With $OUT set, all losses are in
$OUT/text_curve.json, too.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import pathlib
import signal
import sys
import tempfile
from collections.abc import Iterator

import torch
from safetensors.torch import save_file

import alone
import model as models
import ours
from common import read_jsonl
from decoder import write_weights
from export import write_program
from mixed_precision import Masters, Trainer
from ranks import Failed
from rows import Row
from setting import Budget, complete, make_parser, save, versions, words_of

WITHIN = 0.01
SMOOTHED = 10  # Steps. In pure bf16 roundings alone move a single one's loss by up to 1%.
KINDS = {"fp32": "pure bf16", "bf16": "bf16 with fp32 masters"}  # By `train.precision`: fp32 is the model's own types.

Losses = list[float]


def read_text() -> bytes:
    """The sources of torch.nn: the same bytes wherever this version of torch is."""
    folder = pathlib.Path(torch.nn.__file__).parent
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*.py")))


def windows(text: bytes, tokens: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """From random places of the text, a byte a token; and the same a byte later."""
    numbers = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    starts = torch.randint(len(numbers) - tokens, (count,), generator=torch.Generator().manual_seed(1))
    found = numbers[starts[:, None] + torch.arange(tokens + 1)]
    return found[:, :-1].contiguous(), found[:, 1:].contiguous()


class Pure:
    """Steps in the type that the parameters have."""

    def __init__(self, model: models.Decoder, spec: dict, device: torch.device):
        self.optimizer = alone.make_optimizer(model.parameters(), device, **spec["train"]["optimizer"]["adamw"])
        self.losses: Losses = []

    def step(self, losses: list) -> None:
        """Of functions, each makes the loss of a micro-batch, weighed."""
        self.optimizer.zero_grad()
        made = [loss() for loss in losses]
        for loss in reversed(made):  # The order of GPipe's backward.
            loss.backward()
        self.losses.append(sum(loss.item() for loss in made))
        self.optimizer.step()


class Case:
    """A size and a number of micro-batches: the files of its jobs, and its curves."""

    def __init__(self, size: str, chunks: int, options: argparse.Namespace, folder: pathlib.Path):
        self.row, self.options, self.folder = Row("ours", "auto", size, chunks), options, folder
        self.shape, self.device = models.SIZES[size], torch.device("cuda:0" if options.device == "cuda" else "cpu")
        self.batch = chunks * models.MICRO_BATCH[size]
        self.notes: dict[str, list[str]] = {}

    def write(self, text: bytes) -> None:
        """Weights in fp32 for all: pure bf16 begins with their roundings."""
        self.folder.mkdir(parents=True)
        self.data = windows(text, self.shape.tokens, self.options.steps * self.batch)
        save_file(dict(zip(("tokens", "labels"), self.data)), self.folder / f"data{self.row.chunks}.safetensors")
        with contextlib.redirect_stdout(sys.stderr):  # It is no line of the table.
            write_program(self.shape, self.folder / "model.pt2")
        write_weights(models.empty_model(dataclasses.replace(self.shape, dtype=torch.float32)), self.folder / "weights")

    def spec(self, precision: str) -> dict:
        spec = ours.spec_of(self.row, self.options)
        spec["name"] += f"-{precision}"
        spec["train"] |= {"precision": precision, "optimizer": {"adamw": models.ADAMW | {"lr": self.options.lr}}}
        return spec

    def train_ours(self, precision: str, seconds: float) -> Losses:
        with ours.results(self.spec(precision), self.folder, self.options, seconds) as output:
            self.notes[precision] = ours.notes_of(output)
            return [step["loss"] for step in read_jsonl(output / "metrics.jsonl")]

    def train_pytorch(self, precision: str, chunks: int) -> Losses:
        model = models.empty_model(self.shape)
        models.load_weights(model, self.folder / "weights", self.device)
        exact = {name: parameter.detach() for name, parameter in model.named_parameters()}
        model.to(self.shape.dtype)
        spec = self.spec(precision)
        trainer = Trainer(Masters(model, exact), spec) if precision == "bf16" else Pure(model, spec, self.device)
        for tokens, labels in zip(*(tensor.to(self.device).split(self.batch) for tensor in self.data)):
            trainer.step([lambda x=x, y=y: models.loss_of(model(x), y) / chunks
                          for x, y in zip(tokens.chunk(chunks), labels.chunk(chunks))])
        return trainer.losses

    def curves(self, precision: str, budget: Budget) -> Iterator[tuple[str, Losses]]:
        """PyTorch's comes first; its second one differs by roundings only, and shows how much they make."""
        yield "PyTorch", self.train_pytorch(precision, self.row.chunks)
        yield f"PyTorch in {2 * self.row.chunks} micro-batches", self.train_pytorch(precision, 2 * self.row.chunks)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        yield "ours", self.train_ours(precision, budget.left())


def compare(expected: Losses, found: Losses) -> dict:
    """Relative differences, step by step and of means over some steps. Where nothing is learned nothing is shown."""
    curves = torch.tensor([expected, found], dtype=torch.float64)
    raw, smoothed = (differences(c) for c in (curves, curves.unfold(1, min(SMOOTHED, curves.shape[1]), 1).mean(-1)))
    document = {"largest": raw.max().item(), "mean": raw.mean().item(), "largest_smoothed": smoothed.max().item(),
                "mean_smoothed": smoothed.mean().item(), "first": expected[0], "last": [expected[-1], found[-1]]}
    return document | {"passed": document["largest_smoothed"] <= WITHIN and expected[-1] < expected[0]}


def differences(curves: torch.Tensor) -> torch.Tensor:
    return (curves[1] / curves[0] - 1).abs()


def table_line(case: Case, kind: str, name: str, pair: dict) -> str:
    cells = [f"{pair[key]:.3%}" for key in ("largest", "mean", "largest_smoothed", "mean_smoothed")]
    return " | ".join([f"| {case.row.size} | {case.row.chunks} | {kind}: {name}", *cells, f"{pair['first']:.4f}",
                       *(f"{loss:.4f}" for loss in pair["last"]), f"{'PASS' if pair['passed'] else 'FAIL'} |"])


def measure(case: Case, precision: str, budget: Budget, document: dict) -> bool:
    """Whether ours is PyTorch's curve. Prints a line for each curve but the first."""
    kind, curves, passed = KINDS[precision], {}, False
    entry = {"size": case.row.size, "chunks": case.row.chunks, "kind": kind, "curves": curves, "pairs": {}}
    document["cases"].append(entry)
    try:
        for name, losses in case.curves(precision, budget):
            curves[name] = losses
            if name != "PyTorch":
                pair = entry["pairs"][name] = compare(curves["PyTorch"], losses)
                print(table_line(case, kind, name, pair), flush=True)
                passed = name == "ours" and pair["passed"]
    except Failed as error:
        entry["error"] = str(error)
        print(f"| {case.row.size} | {case.row.chunks} | {kind}: failed: {error} | | | | | | | | FAIL |", flush=True)
    entry["notes"] = case.notes.get(precision, [])
    save(case.options, document)
    return passed


def parse() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.set_defaults(chunks=[8], cut="planner")
    options = parser.parse_args()
    complete(options, parser, "text_curve", ["text"])
    return options


def print_head(options: argparse.Namespace, found: dict, text: bytes) -> None:
    print(f"{words_of(found)}\n{options.workers} workers; {options.steps} steps of AdamW at {options.lr:g} on "
          f"{len(text)} bytes of source text, sha256 {hashlib.sha256(text).hexdigest()[:16]}\n\n"
          f"| size | chunks | what, beside PyTorch | largest difference | mean "
          f"| largest of means over {SMOOTHED} steps | mean | first loss | PyTorch's last | its last "
          f"| within {WITHIN:.0%} |\n|---|---:|---|{'---:|' * 7}---|")


def run(options: argparse.Namespace, folder: pathlib.Path) -> bool:
    """Whether all of ours passed."""
    budget, text, passed = Budget(options.seconds), read_text(), []
    document = {"versions": versions(), "options": vars(options), "cases": []}
    print_head(options, document["versions"], text)
    for size, chunks in itertools.product(options.sizes, options.chunks):
        case = Case(size, chunks, options, folder / f"{size}-{chunks}")
        case.write(text)
        passed += [measure(case, precision, budget, document) for precision in KINDS]
    return all(passed)


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Ends what it started, as Ctrl-C does.
    if options.device == "cpu":
        torch.set_num_threads(1)  # As a worker has there.
    with tempfile.TemporaryDirectory(prefix="gpipe_text.") as name:
        if not run(options, pathlib.Path(name)):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
