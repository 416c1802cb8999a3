"""Ours: `gpipe run` of the exported model, for a row of a table."""

from __future__ import annotations

import contextlib
import gzip
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import model as models
from ranks import Failed
from rows import Row

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))

import common  # noqa: E402
import trace_summary  # noqa: E402

THREADS = {"cuda": 4, "cpu": 1}
TO_END = 15.0  # Seconds that an interrupted run has for ending its processes.


def spec_of(row: Row, options) -> dict:
    shape = models.SIZES[row.size]
    pipeline = {"workers": options.workers, "chunks": row.chunks, "checkpoint": row.checkpoint, "device": options.device}
    if options.cut == "layers" and options.workers > 1:
        pipeline["split"] = models.cut_names(shape, options.workers)
    if row.mode != "auto":
        pipeline["capture"] = row.mode
    return {
        "name": row.name(),
        "model": {"exported": {"path": "model.pt2"}, "weights": "weights"},
        "pipeline": pipeline,
        "train": {"dataset": {"path": f"data{row.chunks}.safetensors", "inputs": ["tokens"], "target": "labels"},
                  "batch_size": row.chunks * models.MICRO_BATCH[row.size], "steps": options.steps,
                  "loss": {"cross_entropy": {"class_dim": -1}},
                  "optimizer": {"adamw": models.ADAMW}},
    }


def command_of(spec: dict, folder: pathlib.Path, options, more: tuple[str, ...]) -> list[str]:
    path = common.write_spec(folder, spec)
    command = [str(common.BIN / "gpipe"), "run", str(path), "--output", str(folder / spec["name"]), "--overwrite",
               "--keep-logs", "-q", "--workers", str(options.workers), "--device", options.device,
               "--threads", str(THREADS[options.device])]
    if options.device == "cuda":
        command += ["--gpus", str(options.gpus)]
    return [*command, *more]


def execute(command: list[str], log: pathlib.Path, seconds: float) -> None:
    """Raises Failed with the last words when it does not succeed in time; its processes have ended then."""
    with open(log, "w") as words:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT)
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process)
    if code != 0:
        what = "no end in time" if code is None else f"exit {code}"
        raise Failed(f"{what}: {' | '.join(log.read_text(errors='replace').strip().splitlines()[-3:])}"[:600])


def end(process: subprocess.Popen) -> None:
    process.terminate()  # Nothing, if it has ended.
    try:
        process.wait(timeout=TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def results(spec: dict, folder: pathlib.Path, options, seconds: float, *more: str) -> Iterator[pathlib.Path]:
    """What a run in `folder` leaves, its output among its logs; gone at the end, as what was trained fills the disk. `more`
    are flags of gpipe run."""
    output = folder / spec["name"]
    try:
        execute(command_of(spec, folder, options, more), log_of(output), seconds)
        yield output
    finally:
        shutil.rmtree(output, ignore_errors=True)


def log_of(output: pathlib.Path) -> pathlib.Path:
    return output.parent / f"{output.name}.log"


def notes_of(output: pathlib.Path) -> list[str]:
    """What the run said about capturing: which stage is not, and why."""
    lines = [line for file in [log_of(output), *sorted((output / "logs").glob("*"))] if file.is_file()
             for line in file.read_text(errors="replace").splitlines() if "captur" in line]
    return list(dict.fromkeys(line[:300] for line in lines))[:8]


def measure(row: Row, folder: pathlib.Path, options, seconds: float, trace: pathlib.Path | None = None) -> dict:
    """With `trace`, the workers' traces go there."""
    with results(spec_of(row, options), folder, options, seconds, "--trace" if trace else "--timeline") as output:
        steps = common.read_jsonl(output / "metrics.jsonl")
        if trace:
            keep_traces(output / "trace", trace, row)
        elif options.timelines:
            options.timelines.mkdir(parents=True, exist_ok=True)
            for kind in ("svg", "json"):
                shutil.copy(output / f"timeline.{kind}", options.timelines / f"{row.name()}.{kind}")
        return {"step_seconds": [step["step_seconds"] for step in steps], "losses": [step["loss"] for step in steps],
                "bubble": steps[-1]["bubble_share"],
                "saved_gib": [int(held) / 2**30 for held in steps[-1]["stage_peak_saved_bytes"]],
                "notes": notes_of(output)}


def keep_traces(found: pathlib.Path, to: pathlib.Path, row: Row) -> None:
    """Packed, as they are large; their summary is printed."""
    files = sorted(found.glob("*.json"))
    trace_summary.print_table(files)
    to.mkdir(parents=True, exist_ok=True)
    for file in files:
        packed_file = to / f"{row.name()}-{file.stem.rsplit('-', 1)[-1]}.json.gz"
        with open(file, "rb") as source, gzip.open(packed_file, "wb") as packed:
            shutil.copyfileobj(source, packed)
