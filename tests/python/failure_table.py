#!/usr/bin/env python3
"""kill -9 of a worker in each phase of a job, as a table: phase, seconds until FAILED, reason shown.

The worker stops at a failpoint of the phase, so that it is killed there and nowhere else.
    failure_table.py [--device cuda:0]
"""

import argparse
import pathlib
import re
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cluster import DEVICE, Cluster, gpipe, wait_until, write_spec  # noqa: E402

# Failpoint, and the phase that the orchestrator reports for a worker stopped there.
PHASES = {
    "worker.preparing": "PHASE_PREPARING",
    "worker.joining": "PHASE_JOINING",
    "worker.forward@40": "PHASE_FORWARD",
    "worker.backward@40": "PHASE_BACKWARD",
    "worker.optimizer@5": "PHASE_OPTIMIZER",
    "worker.checkpoint": "PHASE_CHECKPOINT",
    "worker.evaluation": "PHASE_EVALUATION",
    "worker.finishing": "PHASE_FINISHING",
}


def training_spec(name: str, workers: int = 3, steps: int = 20, device: str = "any") -> dict:
    layer = {"linear": {"in_features": 16, "out_features": 16}}
    random = {"samples": 64, "input_shape": [16], "classes": 16, "seed": 1}
    return {
        "name": name,
        "model": {"sequential": [layer, {"relu": {}}, layer, {"relu": {}}, layer]},
        "pipeline": {"balance": {3: [2, 2, 1], 2: [2, 3], 1: [5]}[workers], "chunks": 4, "checkpoint": "always",
                     "device": device},
        "train": {"dataset": {"random": random}, "batch_size": 16, "steps": steps, "loss": {"cross_entropy": {}},
                  "optimizer": {"adam": {}}, "checkpoint_every": 8,
                  "evaluate": {"dataset": {"random": dict(random, seed=2)}, "every_steps": 8}},
    }


def failpoint(name: str, action: str) -> dict:
    point, _, hit = name.partition("@")
    return {"GPIPE_FAILPOINT": f"{point}={action}" + (f"@{hit}" if hit else "")}


def activity_of(cluster: Cluster, worker: str) -> dict:
    return next((w.get("activity", {}) for w in cluster.worker_list() if w["name"] == worker), {})


def where_it_stopped(cluster: Cluster, worker: str):
    """(step, micro-batch) of the failpoint that the worker has stopped at, or None."""
    found = re.search(r"stopped at failpoint \S+: step (-?\d+), micro-batch (-?\d+)",
                      (cluster.folder / f"{worker}.log").read_text())
    return found and tuple(map(int, found.groups()))


def wait_for_stop(cluster: Cluster, worker: str, point: str):
    """Waits until the worker has stopped at the failpoint and the orchestrator knows: not an earlier visit there."""
    wait_until(lambda: where_it_stopped(cluster, worker), 60, f"{worker} stopped at {point}")
    step, micro_batch = where_it_stopped(cluster, worker)

    def known():
        activity = activity_of(cluster, worker)
        return (activity.get("phase"), int(activity.get("step", 0)), activity.get("micro_batch", 0)) == (
            PHASES[point], step, micro_batch)

    wait_until(known, 60, f"{worker} in {PHASES[point]}")


def lose_worker(cluster: Cluster, folder: pathlib.Path, point: str, how=signal.SIGKILL, device=DEVICE):
    """Runs a job on w0, w1, w2; stops w1 at the failpoint, then kills it. Returns (seconds until FAILED, job)."""
    cluster.start_worker("w0", device)
    victim = cluster.start_worker("w1", device, environment=failpoint(point, "stop"))
    cluster.start_worker("w2", device)
    cluster.wait_idle(3)
    job = cluster.submit(write_spec(folder, training_spec("victim")))
    wait_for_stop(cluster, "w1", point)
    begin = time.monotonic()
    victim.send_signal(how)
    gpipe("job", "wait", job, "--timeout", 30, address=cluster.address, check=False)
    return time.monotonic() - begin, cluster.job(job)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default=DEVICE, help="cpu or cuda:N")
    options = parser.parse_args()
    print(f"{'phase':<18} {'signal':<8} {'seconds':>7}  reason")
    cases = [(point, signal.SIGKILL) for point in PHASES] + [("worker.forward@40", signal.SIGSTOP)]
    for point, how in cases:
        with tempfile.TemporaryDirectory() as name:
            cluster = Cluster(pathlib.Path(name) / "cluster", lease_millis=5000)
            try:
                seconds, job = lose_worker(cluster, pathlib.Path(name), point, how, options.device)
            finally:
                cluster.stop()
            print(f"{point.partition('@')[0][7:]:<18} {how.name:<8} {seconds:7.2f}  {job['state'][6:]}: {job.get('reason')}",
                  flush=True)


if __name__ == "__main__":
    main()
