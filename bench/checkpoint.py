#!/usr/bin/env python3
"""What a checkpoint costs training: the time between two steps with a checkpoint between them, against the others.

Linear layers of --megabytes of parameters in fp32 with Adam, so a checkpoint has three times as many, on two workers of
one thread that hand their files over on this machine. Each step's end is stamped when it is reported.

    bench/checkpoint.py [--megabytes 400] [--every 4] [--steps 33] [--batch 256]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import common

WIDTH = 2048


def spec(name: str, options: argparse.Namespace, every: int) -> dict:
    layers = round(options.megabytes * 1e6 / (4 * WIDTH * WIDTH))
    random = {"samples": options.batch, "input_shape": [WIDTH], "classes": WIDTH, "seed": 1}
    return {
        "name": name,
        "model": {"sequential": [{"linear": {"in_features": WIDTH, "out_features": WIDTH}} for _ in range(layers)]},
        "pipeline": {"balance": common.even_balance(layers, 2), "chunks": 4, "checkpoint": "never", "device": "cpu"},
        "train": {"dataset": {"random": random}, "batch_size": options.batch, "steps": options.steps,
                  "loss": {"cross_entropy": {}}, "optimizer": {"adam": {"lr": 1e-5}}, "checkpoint_every": every},
    }


def stamps(cluster: common.Cluster, folder: pathlib.Path, job: dict) -> dict[int, float]:
    """When each step was reported to be done."""
    name = cluster.submit(common.write_spec(folder, job))
    watch = subprocess.Popen([str(common.BIN / "gpipe"), "job", "watch", name, "-o", "json"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, text=True,
                             env=dict(os.environ, GPIPE_ORCHESTRATOR=cluster.address))
    ends = {}
    for line in watch.stdout:
        update = json.loads(line)
        if "step" in update:
            ends[int(update["step"].get("step", 0))] = time.monotonic()
    if watch.wait() != 0:
        raise SystemExit(f"{job['name']} failed")
    return ends


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=400)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--steps", type=int, default=33)
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    print(f"machine: {common.machine()}; {options.megabytes:.0f} MB of parameters, a checkpoint of "
          f"{3 * options.megabytes:.0f} MB every {options.every} steps")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        cluster = common.Cluster(folder / "cluster", lease_millis=10000)
        try:
            cluster.start_workers(2, arguments=["--artifacts-dir", cluster.folder / "state" / "artifacts"])
            saved = stamps(cluster, folder, spec("saved", options, options.every))
            plain = stamps(cluster, folder, spec("plain", options, 0))
        finally:
            cluster.stop()
    seconds = {step: saved[step] - saved[step - 1] for step in saved if step > 2 and step - 1 in saved}
    # A checkpoint of step k is begun before step k + 1, and written beside it and those after it.
    at = statistics.median(t for step, t in seconds.items() if step % options.every == 1)
    others = statistics.median(t for step, t in seconds.items() if step % options.every != 1)
    last = options.steps
    whole = (saved[last] - saved[2]) / (plain[last] - plain[2]) - 1
    print(f"step {others:.3f} s; the one after a checkpoint {at:.3f} s: {100 * (at / others - 1):+.1f}%, medians; all "
          f"steps {100 * whole:+.1f}% against a job without checkpoints")


if __name__ == "__main__":
    main()
