#!/usr/bin/env python3
"""Loading a large archive on three workers of this machine, beside reading the file from the disk; what each worker
then holds beside what its stage has.

The file is dropped from the page cache before each measurement. `start` is from the submission of a file that the
orchestrator has already until all workers have loaded their stages; `submit` is the client's part of it, most of it the
file's hash. The workers read the orchestrator's disk, as those of `gpipe run` do, or with --sent have it sent.

    bench/exported_load.py [--gigabytes 1] [--runs 3] [--sent]
"""

import argparse
import os
import pathlib
import tempfile
import time

import torch
from safetensors.torch import save_file
from torch import nn

import common
from exported_models import export

WIDTH, WORKERS, PIECE = 4096, 3, 1 << 20
LAYER_BYTES = 4 * WIDTH * (WIDTH + 1)


def write_model(folder: pathlib.Path, layers: int) -> None:
    torch.manual_seed(0)
    export(nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(layers)]), (torch.randn(2, WIDTH),),
           folder / "large.pt2")
    save_file({"input": torch.randn(1 << 10, WIDTH)}, folder / "inputs.safetensors")


def drop_from_cache(path: pathlib.Path) -> None:
    os.sync()
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_seconds(path: pathlib.Path) -> float:
    drop_from_cache(path)
    begin = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.read(PIECE):
            pass
    return time.perf_counter() - begin


def resident(pid: int) -> dict[str, int]:
    """Bytes now, and the most so far."""
    lines = (line.split() for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    found = {line[0].rstrip(":"): int(line[1]) * 1024 for line in lines if line[0] in ("VmRSS:", "VmHWM:")}
    return {"now": found["VmRSS"], "peak": found["VmHWM"]}


def spec_of(layers: int) -> dict:
    # More mini-batches than there is patience for: the job is cancelled when all workers have loaded.
    return {"name": "load", "model": {"exported": {"path": "large.pt2"}},
            "pipeline": {"balance": common.even_balance(layers, WORKERS)},
            "infer": {"inputs": "inputs.safetensors", "batch_size": 1}}


def one_start(cluster: common.Cluster, folder: pathlib.Path, layers: int) -> dict:
    spec = common.write_spec(folder, spec_of(layers))
    idle = {name: resident(worker.pid) for name, worker in cluster.workers.items()}
    begin = time.perf_counter()
    job = cluster.submit(spec)
    submitted = time.perf_counter() - begin
    running = common.wait_until(lambda: (found := cluster.job(job))["state"] not in ("STATE_QUEUED", "STATE_STARTING")
                                and found, 300, "the job to run")
    started = time.perf_counter() - begin
    assert running["state"] == "STATE_RUNNING", running
    loaded = {name: resident(worker.pid) for name, worker in cluster.workers.items()}
    common.gpipe("job", "cancel", job, address=cluster.address)
    cluster.wait(job)
    growth = {name: {key: loaded[name][key] - idle[name]["now"] for key in ("now", "peak")}
              for name in running["workers"]}
    return {"submit": submitted, "start": started, "growth": growth}


def measure(folder: pathlib.Path, layers: int, sent: bool) -> dict:
    """One cold start on workers that have nothing yet, of a file that the orchestrator has."""
    cluster = common.Cluster(folder / "cluster")
    arguments = [] if sent else ["--artifacts-dir", folder / "cluster" / "state" / "artifacts"]
    try:
        cluster.start_workers(WORKERS, arguments=arguments)
        first = one_start(cluster, folder, layers)
        for worker in cluster.workers.values():
            worker.terminate()
            worker.wait()
        cluster.workers.clear()
        cluster.start_workers(WORKERS, arguments=arguments)
        for stored in (folder / "cluster" / "state").rglob("*"):
            if stored.is_file():
                drop_from_cache(stored)
        drop_from_cache(folder / "large.pt2")
        again = one_start(cluster, folder, layers)
    finally:
        cluster.stop()
    return {"first": first["start"], "submit": again["submit"], "start": again["start"], "growth": again["growth"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sent", action="store_true", help="over gRPC, as to other machines")
    options = parser.parse_args()
    print(f"machine: {common.machine()}")
    layers = round(options.gigabytes * 2**30 / LAYER_BYTES)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_model(folder, layers)
        size = (folder / "large.pt2").stat().st_size
        print(f"archive of {size / 2**20:.0f} MiB, {layers} layers on {WORKERS} workers")
        for run in range(options.runs):
            disk = read_seconds(folder / "large.pt2")
            with tempfile.TemporaryDirectory(dir=folder) as own:
                for file in ("large.pt2", "inputs.safetensors"):
                    os.link(folder / file, pathlib.Path(own) / file)
                result = measure(pathlib.Path(own), layers, options.sent)
            print(f"disk={disk:.2f} " + " ".join(f"{key}={result[key]:.2f}" for key in ("first", "submit", "start"))
                  + f" ratio={result['start'] / disk:.2f}")
            stages = common.even_balance(layers, WORKERS)
            for stage, (name, growth) in enumerate(result["growth"].items()):
                print(f"  {name}: stage of {stages[stage] * LAYER_BYTES / 2**20:.0f} MiB, grew by "
                      f"{growth['now'] / 2**20:.0f} MiB, at most {growth['peak'] / 2**20:.0f}", flush=True)


if __name__ == "__main__":
    main()
