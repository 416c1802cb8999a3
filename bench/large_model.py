#!/usr/bin/env python3
"""A large language model's whole way, as a user has it: exported without its weights, planned, trained for a few steps
by `gpipe run`, its results fetched. What each part takes, what `gpipe run` said when, and the most memory that each
process had, beside the bytes of its stage.

    bench/large_model.py --preset 8b --device cuda --workers 2 --steps 2 [--folder DIR] [--gpus 1]

With --folder, model and data that are there are used again.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

import common
import decoder
from exported_load import drop_from_cache, read_seconds, resident

MIB, GIB = 2**20, 2**30


class MemoryWatch(threading.Thread):
    """The most memory of each descendant of a process, by its program and worker's name, seen twice a second."""

    def __init__(self, root: int):
        super().__init__()
        self.root, self.peaks, self.ended = root, {}, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            for pid in [self.root, *self.children()]:
                try:
                    words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                    self.peaks[name_of(words)] = resident(pid)["peak"]
                except (OSError, KeyError, IndexError):
                    continue  # It has just ended.

    def children(self) -> list[int]:
        listed = pathlib.Path(f"/proc/{self.root}/task/{self.root}/children")
        return [int(pid) for pid in listed.read_text().split()] if listed.exists() else []


def name_of(words: list[str]) -> str:
    program = pathlib.Path(words[0]).name
    return words[words.index("--name") + 1] if "--name" in words else program


def write_model(options: argparse.Namespace, folder: pathlib.Path) -> None:
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, str(pathlib.Path(decoder.__file__)), "--preset", options.preset, "--out",
                           str(folder), "--sequences", str(options.batch)], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout.strip().replace("\n", "; ") + f"; {time.perf_counter() - begin:.0f} s in all", flush=True)


def spec_of(options: argparse.Namespace) -> dict:
    return {"name": options.preset, "model": {"exported": {"path": "model.pt2"}, "weights": "weights"},
            "pipeline": {"workers": options.workers, "chunks": options.chunks, "checkpoint": options.checkpoint,
                         "device": options.device},
            "train": {"dataset": {"path": "data.safetensors", "inputs": ["tokens"], "target": "labels"},
                      "batch_size": options.batch, "steps": options.steps,
                      "loss": {"cross_entropy": {"class_dim": -1}}, "optimizer": {"adamw": {"lr": 1e-4}}}}


def plan(spec: pathlib.Path, workers: int) -> None:
    for command in (["validate"], ["plan", "--workers", str(workers)]):
        begin = time.perf_counter()
        common.gpipe(command[0], spec, *command[1:], timeout=600)
        print(f"gpipe {command[0]}: {time.perf_counter() - begin:.1f} s", flush=True)


def run(options: argparse.Namespace, spec: pathlib.Path, output: pathlib.Path) -> dict[str, int]:
    devices = ["--gpus", str(options.gpus)] if options.device == "cuda" else []
    begin = time.perf_counter()
    process = subprocess.Popen([str(common.BIN / "gpipe"), "run", str(spec), "--output", str(output),
                                "--overwrite", "--workers", str(options.workers), "--device", options.device, *devices],
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
    watch = MemoryWatch(process.pid)
    watch.start()
    for line in process.stderr:
        print(f"  {time.perf_counter() - begin:7.2f} s  {line.rstrip()}", flush=True)
    code = process.wait()
    watch.ended.set()
    watch.join()
    print(f"gpipe run: exit {code} after {time.perf_counter() - begin:.1f} s", flush=True)
    assert code == 0
    return watch.peaks


def show_memory(peaks: dict[str, int], output: pathlib.Path) -> None:
    forecast = json.loads((output / "job.json").read_text()).get("forecast", {})
    stages = [int(stage.get("state_bytes", stage.get("stateBytes", 0))) for stage in forecast.get("stages", [])]
    for name, peak in sorted(peaks.items()):
        own = re.fullmatch(r"w(\d+)", name)
        state = f", its stage's weights, gradients and optimizer {stages[int(own[1])] / MIB:.0f}" \
            if own and int(own[1]) < len(stages) else ""
        print(f"  {name}: at most {peak / MIB:.0f} MiB{state}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=decoder.PRESETS, default="mid")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--checkpoint", default="never")
    parser.add_argument("--runs", type=int, choices=[1, 2], default=2, help="cold, or cold and warm")
    parser.add_argument("--folder", type=pathlib.Path)
    options = parser.parse_args()
    print(f"{common.machine()}; {options.preset}, {options.workers} workers, {options.chunks} micro-batches")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or pathlib.Path(temporary)
        if not (folder / "data.safetensors").exists():
            write_model(options, folder)
        files = sorted((folder / "weights").glob("*.safetensors"))
        size = sum(file.stat().st_size for file in files)
        print(f"{size / GIB:.2f} GiB of weights, read from the disk in {sum(map(read_seconds, files)):.1f} s", flush=True)
        spec = common.write_spec(folder, spec_of(options))
        plan(spec, options.workers)
        for state in ("cold", "warm")[:options.runs]:
            print(f"{state}:", flush=True)
            for file in files if state == "cold" else []:
                drop_from_cache(file)
            output = folder / f"out-{state}"
            show_memory(run(options, spec, output), output)


if __name__ == "__main__":
    main()
