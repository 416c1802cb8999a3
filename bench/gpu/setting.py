"""What the programs of this folder share: the options that all of them have, the machine that they find, the time that
they may take, and the models that they write."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import torch

import model as models

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))

import common  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent


class Budget:
    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        return self.end - time.monotonic()


def nvidia_smi(query: str) -> list[str]:
    """Of each GPU; none without the program."""
    try:
        done = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], text=True,
                              capture_output=True, check=True, timeout=30)
        return done.stdout.strip().splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def versions() -> dict:
    gpipe = common.gpipe("--version").stdout.split()[-1] if (common.BIN / "gpipe").exists() else ""
    return {"machine": common.machine(), "driver": ", ".join(sorted(set(nvidia_smi("driver_version")))),
            "gpipe": gpipe, "torch": torch.__version__, "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if torch.version.cuda else None}


def export(options: argparse.Namespace, folder: pathlib.Path, budget: Budget) -> set[str]:
    """The sizes that could be written, all at the same time: nothing is measured meanwhile."""
    processes = {}
    for size in options.sizes:
        command = [sys.executable, str(HERE / "export.py"), "--size", size, "--out", str(folder / size), "--chunks",
                   *map(str, options.chunks)]
        log = open(folder / f"{size}.export.log", "w")
        processes[size] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        log.close()
    written = {size for size, process in processes.items() if ended_well(process, budget.left() / 2)}
    for size in set(processes) - written:
        words = (folder / f"{size}.export.log").read_text(errors="replace").strip().splitlines()
        print(f"{size} was not exported: {' | '.join(words[-2:])}", flush=True)
    return written


def ended_well(process: subprocess.Popen, seconds: float) -> bool:
    try:
        return process.wait(timeout=max(1.0, seconds)) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def make_parser(words: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, help="default: all")
    parser.add_argument("--workers", type=int, help="of each pipeline; default: one a GPU")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--sizes", nargs="+", choices=models.SIZES, help="cheapest first")
    parser.add_argument("--chunks", nargs="+", type=int)
    parser.add_argument("--seconds", type=float, default=570, help="for everything")
    parser.add_argument("--out", type=pathlib.Path, help="JSON; default: a file in $OUT where OUT is set")
    return parser


def complete(options: argparse.Namespace, parser: argparse.ArgumentParser, name: str, sizes: list[str]) -> None:
    """Defaults that depend on the machine and on each other; `sizes` are those for GPUs."""
    cards = len(nvidia_smi("name"))
    if options.device == "cpu":
        options.gpus = options.gpus or options.workers or 2
    elif cards == 0 or (options.gpus or 0) > cards:
        parser.error(f"there are {cards} GPUs" + (f", not {options.gpus}" if options.gpus else "; --device cpu is a try"))
    options.gpus = options.gpus or cards
    options.workers = options.workers or options.gpus
    options.gpus = min(options.gpus, options.workers)
    options.sizes = sorted(options.sizes or (["tiny"] if options.device == "cpu" else sizes),
                           key=list(models.SIZES).index)
    fewest = min(models.SIZES[size].layers for size in options.sizes)
    if options.workers > fewest + 1:
        parser.error(f"{options.workers} workers for {fewest} layers and a head")
    if not options.out and os.environ.get("OUT"):
        options.out = pathlib.Path(os.environ["OUT"]) / f"{name}.json"


def words_of(versions: dict) -> str:
    return "; ".join(f"{name} {value}" for name, value in versions.items() if value)


def save(options: argparse.Namespace, document: dict) -> None:
    """Where it is asked for."""
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(document, indent=1, default=str))
