#!/usr/bin/env python3
"""Whether the timeline of a real step can be believed: on each worker no two actions overlap, and none begins before what
it needs has been computed elsewhere. timeline_check.py [--devices cuda:0 cuda:1]. Leaves the drawing in $OUT, if that is
set."""

import argparse
import json
import os
import pathlib
import tempfile

from cluster import Cluster, gpipe, write_spec

# Half of a heartbeat's shortest round trip, of each of two workers, in microseconds.
CLOCKS = 1000
CHUNKS = 8


def spec(workers, width):
    layers = []
    for _ in range(3 * workers):
        layers += [{"linear": {"in_features": width, "out_features": width}}, {"relu": {}}]
    return {"name": "timeline", "model": {"sequential": layers},
            "pipeline": {"balance": [6] * workers, "chunks": CHUNKS},
            "train": {"dataset": {"random": {"samples": 4096, "input_shape": [width], "classes": width, "seed": 1}},
                      "batch_size": width, "steps": 20, "loss": {"cross_entropy": {}}, "optimizer": {"sgd": {"lr": 0.01}}}}


def check_order(actions, clocks, rounding=0):
    """That no two actions of a stage overlap, and none begins before what it needs has ended. `actions` is {(stage, name):
    (start, end)}, with names as `F3` and `B3`; `clocks` is how far those of two workers may be apart, `rounding` how far
    two times of one. Returns how many were compared with what they need."""
    for stage in {stage for stage, _ in actions}:
        mine = sorted(span for (other, _), span in actions.items() if other == stage)
        for (_, end), (start, _) in zip(mine, mine[1:]):
            assert start >= end - rounding, f"actions of stage {stage} overlap by {end - start}"
    compared = 0
    for (stage, name), (start, _) in actions.items():
        before = stage - 1 if name.startswith("F") else stage + 1 if name.startswith("B") else None
        if (before, name) in actions:
            compared += 1
            early = actions[before, name][1] - start
            assert early <= clocks, f"stage {stage} begins {name} {early} before stage {before} has ended it"
    return compared


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", nargs="+", default=["cpu", "cpu"])
    devices = parser.parse_args().devices
    folder = pathlib.Path(os.environ.get("OUT") or tempfile.mkdtemp())
    with tempfile.TemporaryDirectory() as scratch:
        cluster = Cluster(pathlib.Path(scratch))
        try:
            for index, device in enumerate(devices):
                cluster.start_worker(f"w{index}", device=device)
            cluster.wait_idle(len(devices))
            job = cluster.submit(write_spec(pathlib.Path(scratch), spec(len(devices), 256 if devices[0] == "cpu" else 4096)))
            assert cluster.wait(job, 300)["state"] == "STATE_SUCCEEDED", cluster.job(job)
            for name in ("trace.json", "timeline.svg"):
                gpipe("job", "timeline", job, "-o", folder / name, address=cluster.address)
            trace = json.loads((folder / "trace.json").read_text())
            actions = {(event["pid"], event["name"]): (event["ts"], event["ts"] + event["dur"])
                       for event in trace["traceEvents"] if event["ph"] == "X"}
            assert check_order(actions, CLOCKS, rounding=1) == 2 * (len(devices) - 1) * CHUNKS
            print(gpipe("job", "timeline", job, address=cluster.address).stdout)
            print(gpipe("worker", "list", address=cluster.address).stdout)
            print(f"{len(actions)} actions in order")
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
