#!/usr/bin/env python3
"""Known architectures on one GPU: which are captured whole, which are not and why, and how fast, beside eager PyTorch.

known_models.py [NAME ...] [--seconds 500]: prints a markdown table of the models of tests/python/architecture_models.py
whose packages are there. Each is exported and trained 20 steps of SGD by one worker, in fp32 without TF32, small batches:
what costs the host much and the GPU little. `losses` is the largest relative difference of the first steps' losses from
eager PyTorch's on the same GPU; the models draw no random numbers there.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import tempfile
import time
import warnings

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "python"))

import architectures_cluster as pipelines  # noqa: E402
from architecture_models import CASES, RANDOM, make, named_outputs  # noqa: E402
from cluster import Cluster, gpipe, read_jsonl, write_spec  # noqa: E402

STEPS, SKIPPED = 20, 5  # The first ones allocate, choose and record.
DEVICE = "cuda:0"


def on_gpu(value):
    if isinstance(value, torch.Tensor):
        return value.to(DEVICE)
    if isinstance(value, dict):
        return {key: on_gpu(item) for key, item in value.items()}
    return type(value)(map(on_gpu, value)) if type(value) in (list, tuple) else value


def eager(lesson: pipelines.Lesson) -> tuple[list[float], float]:
    """Losses, and seconds a step."""
    model = make(lesson.name, 1)[0].to(DEVICE).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], pipelines.LR)
    batches = [(on_gpu(inputs), on_gpu(target)) for inputs, target in zip(lesson.batches, lesson.targets)]
    losses, seconds = [], []
    for step in range(STEPS):
        inputs, target = batches[step % len(batches)]
        begin = time.perf_counter()
        optimizer.zero_grad()
        loss = lesson.objective.loss(named_outputs(model(**inputs)), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - begin)
    return losses, statistics.median(seconds[SKIPPED:])


def ours(cluster: Cluster, job: pipelines.Job) -> tuple[list[float], float, str]:
    """Losses, seconds a step, and whether the stage is captured."""
    spec = job.spec("architecture", 1, "never")
    spec["train"]["steps"] = STEPS
    spec["pipeline"]["device"] = torch.device(DEVICE).type
    done = cluster.wait(cluster.submit(write_spec(job.folder, spec)), 120)
    if done["state"] != "STATE_SUCCEEDED":
        raise RuntimeError(done.get("reason", done["state"]))
    steps = read_jsonl(cluster.pull(done["id"], job.folder / "output") / "metrics.jsonl")
    words = gpipe("job", "logs", done["id"], address=cluster.address).stdout
    return ([step["loss"] for step in steps], statistics.median(step["step_seconds"] for step in steps[SKIPPED:]),
            how_captured(words))


def how_captured(words: str) -> str:
    for line in words.splitlines():
        if "runs without CUDA graphs: " in line:
            return f"no: {line.split('runs without CUDA graphs: ', 1)[1]}"
    return "whole" if "is captured" in words else "?"


def row(cluster: Cluster, name: str, folder: pathlib.Path) -> str:
    lesson = pipelines.Lesson.of(name)
    job = pipelines.prepare(lesson, folder)
    expected, eager_seconds = eager(lesson)
    losses, seconds, captured = ours(cluster, job)
    first = range(len(lesson.batches))
    worst = "-" if name in RANDOM else f"{max(abs(losses[i] / expected[i] - 1) for i in first):.1e}"
    return pipelines.table_row([name, captured, f"{1e3 * eager_seconds:.2f}", f"{1e3 * seconds:.2f}",
                                f"{eager_seconds / seconds:.2f}", worst])


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", help="parts of names of architectures")
    arguments.add_argument("--seconds", type=float, default=500, help="begins no other model after so long")
    options = arguments.parse_args()
    warnings.filterwarnings("ignore")
    torch.backends.cudnn.allow_tf32 = False
    names = [name for name in CASES if not options.names or any(part in name for part in options.names)]
    print("| architecture | captured | eager ms a step | ours ms a step | times | losses |\n|---|---|---:|---:|---:|---:|")
    end, left_out = time.monotonic() + options.seconds, []
    with tempfile.TemporaryDirectory() as place:
        cluster = Cluster(pathlib.Path(place) / "cluster", lease_millis=20000)
        try:
            cluster.start_worker("w0", device=DEVICE, threads=4)
            for number, name in enumerate(names):
                if time.monotonic() > end:
                    left_out.append(name)
                    continue
                folder = pathlib.Path(place) / str(number)
                folder.mkdir()
                try:
                    print(row(cluster, name, folder), flush=True)
                except ImportError as error:
                    left_out.append(f"{name} ({error.name} is not here)")
                except Exception as error:  # The others still say how they do.
                    print(pipelines.table_row([name, f"failed: {error}"[:300].replace("\n", " "), "", "", "", ""]), flush=True)
        finally:
            cluster.stop()
    print(f"\nleft out: {', '.join(left_out) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
