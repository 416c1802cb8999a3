#!/usr/bin/env python3
"""What a running job feels of what happens around it: the time of its steps before, during and after

    uploads   four files are sent to an orchestrator whose disk takes 200 ms for each MiB
    plan      `gpipe plan` of 64 stages and 1024 micro-batches
    clock     the wall clock of all processes is set ahead, or back, by 60 s (needs libfaketime)
    stop      the orchestrator is stopped (SIGSTOP) for 20 s; the job has a checkpoint every 50 steps
    disk      a file that has no room is submitted, then somebody else fills the orchestrator's disk for 5 s

One worker of one thread, so that the rest has a core of its own. Each step's end is stamped when it is reported; a gap is
the time between two of them.

    bench/disturbances.py [uploads plan ahead back stop disk]
"""

import argparse
import concurrent.futures
import glob
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import common
from cluster import preloaded
from test_disk_space import fill
from test_failures import full_disk
from test_files import inference_spec

CALM = 5.0  # Seconds before and after.
WIDTH = 512


class Job:
    """A training job without an end, and when each of its steps was reported."""

    def __init__(self, cluster: common.Cluster, folder: pathlib.Path, checkpoint_every: int):
        random = {"samples": 64, "input_shape": [WIDTH], "classes": WIDTH, "seed": 1}
        layer = {"linear": {"in_features": WIDTH, "out_features": WIDTH}}
        self.cluster = cluster
        self.id = cluster.submit(common.write_spec(folder, {
            "name": "disturbed", "model": {"sequential": [layer] * 4},
            "pipeline": {"balance": [4], "chunks": 4, "device": "cpu"},
            "train": {"dataset": {"random": random}, "batch_size": 64, "steps": 10_000_000, "loss": {"cross_entropy": {}},
                      "optimizer": {"sgd": {"lr": 1e-3}}, "checkpoint_every": checkpoint_every}}))
        self.watch = subprocess.Popen([str(common.BIN / "gpipe"), "job", "watch", self.id, "-o", "json"],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                      env=dict(os.environ, GPIPE_ORCHESTRATOR=cluster.address))
        self.ends: list[tuple[float, int]] = []
        threading.Thread(target=self.read, daemon=True).start()
        common.wait_until(lambda: len(self.ends) > 50, 60, "steps")

    def read(self):
        for line in self.watch.stdout:
            update = json.loads(line)
            if "step" in update:
                self.ends.append((time.monotonic(), int(update["step"].get("step", 0))))

    def gaps(self, begin: float, end: float) -> list[float]:
        times = [at for at, _ in self.ends]
        return [1e3 * (after - before) for before, after in zip(times, times[1:]) if begin <= after <= end]

    def stop(self) -> dict:
        job = self.cluster.job(self.id)
        common.gpipe("job", "cancel", self.id, address=self.cluster.address)
        self.watch.wait(30)
        return job


def row(name: str, job: Job, begin: float, end: float):
    now = time.monotonic()
    words = [f"{name:8}"]
    for first, last in [(begin - CALM, begin), (begin, end), (end, now)]:
        gaps = job.gaps(first, last) or [float("nan")]
        words.append(f"{statistics.median(gaps):7.2f} {max(gaps):9.1f} {len(gaps):6d}")
    state = job.stop()
    repeated = len(job.ends) - len({step for _, step in job.ends})
    print(" |".join(words) + f" | {end - begin:5.1f} s, attempt {state['attempt']}, {repeated} steps again", flush=True)


def measure(name: str, cluster: common.Cluster, folder: pathlib.Path, disturb, checkpoint_every=0):
    """`disturb` runs between two calm times."""
    try:
        cluster.start_worker("w0")
        cluster.wait_idle(1)
        job = Job(cluster, folder, checkpoint_every)
        time.sleep(CALM)
        begin = time.monotonic()
        disturb(cluster)
        end = time.monotonic()
        time.sleep(CALM)
        row(name, job, begin, end)
    finally:
        cluster.stop()


def uploads(folder: pathlib.Path):
    specs = [inference_spec(folder, f"upload{i}", mebibytes=8) for i in range(4)]

    def disturb(cluster):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(cluster.submit, specs))

    measure("uploads", common.Cluster(folder / "cluster", lease_millis=5000, environment={
        "LD_PRELOAD": str(preloaded("slow_disk", folder)), "SLOW_DISK_MILLIS": "200"}), folder, disturb)


def plan(folder: pathlib.Path):
    layer = {"linear": {"in_features": 64, "out_features": 64}}
    random = {"samples": 1024, "input_shape": [64], "classes": 64, "seed": 1}
    spec = common.write_spec(folder, {
        "name": "large", "model": {"sequential": [layer] * 64}, "pipeline": {"balance": [1] * 64, "chunks": 1024},
        "train": {"dataset": {"random": random}, "batch_size": 1024, "steps": 10, "loss": {"cross_entropy": {}},
                  "optimizer": {"sgd": {"lr": 1e-3}}}})

    def disturb(cluster):
        for _ in range(3):
            common.gpipe("plan", spec, address=cluster.address)

    measure("plan", common.Cluster(folder / "cluster", lease_millis=5000), folder, disturb)


def clock(folder: pathlib.Path, seconds: int):
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    if not found:
        sys.exit("the clock cannot be set for some processes alone without libfaketime (Debian: faketime)")
    offset = folder / "offset"
    offset.write_text("+0")
    environment = {"LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1",
                   "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    os.environ.update(environment)  # The worker's and the clients', too.

    def disturb(_):
        offset.write_text(f"{seconds:+d}")
        time.sleep(2 * CALM)

    try:
        measure("ahead" if seconds > 0 else "back",
                common.Cluster(folder / "cluster", lease_millis=5000), folder, disturb)
    finally:
        for name in environment:
            del os.environ[name]


def stop(folder: pathlib.Path):
    def disturb(cluster):
        cluster.orchestrator.send_signal(signal.SIGSTOP)
        time.sleep(20)
        cluster.orchestrator.send_signal(signal.SIGCONT)

    measure("stop", common.Cluster(folder / "cluster", lease_millis=5000), folder, disturb, checkpoint_every=50)


def disk(folder: pathlib.Path):
    (folder / "small").mkdir()
    large = inference_spec(folder, "large", mebibytes=128)
    with full_disk(folder / "small", 64 << 10) as (state, enter):
        cluster = common.Cluster(folder / "cluster", lease_millis=5000, state=state, enter=enter)
        inside = pathlib.Path(f"/proc/{cluster.orchestrator.pid}/root", *state.parts[1:])

        def disturb(cluster):
            refused = common.gpipe("job", "submit", large, address=cluster.address, check=False)
            assert "disk full" in refused.stderr, refused.stderr
            fill(inside)
            common.wait_until(lambda: common.gpipe("health", address=cluster.address, check=False).returncode == 1,
                              what="read-only")
            time.sleep(CALM)
            (inside / "filler").unlink()

        measure("disk", cluster, folder, disturb)


DISTURBANCES = {"uploads": uploads, "plan": plan, "ahead": lambda folder: clock(folder, 60),
                "back": lambda folder: clock(folder, -60), "stop": stop, "disk": disk}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*DISTURBANCES, []])
    names = parser.parse_args().names or list(DISTURBANCES)
    print("gaps in ms   " + " | ".join(f"{when:>7}: median, max, steps" for when in ("before", "during", "after")))
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            DISTURBANCES[name](pathlib.Path(folder))


if __name__ == "__main__":
    main()
