#!/usr/bin/env python3
"""Workers that die in each phase of a job, as a table: phase, signal, seconds until the job has ended, how and why.

The worker stops at a failpoint of the phase, so that it is killed there and nowhere else. `sent` is one that has sent
all it has to send, while another one has not received it; `finished` one whose results are uploaded, while another one
still uploads, and is killed then; with `stays` that one goes on, and the outputs are compared with another job's.
    failure_table.py [--devices cuda:0 cuda:1] [--phases sent stays]
"""

import argparse
import functools
import pathlib
import re
import signal
import tempfile
import time

import torch
from safetensors.torch import load_file

from cluster import DEVICES, Cluster, gpipe, preloaded, wait_until, write_spec

THREE = [DEVICES[index % len(DEVICES)] for index in range(3)]

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
        "pipeline": {"balance": {4: [2, 1, 1, 1], 3: [2, 2, 1], 2: [2, 3], 1: [5]}[workers], "chunks": 4,
                     "checkpoint": "always", "device": device},
        "train": {"dataset": {"random": random}, "batch_size": 16, "steps": steps, "loss": {"cross_entropy": {}},
                  "optimizer": {"adam": {}}, "checkpoint_every": 8, "keep_checkpoints": 0,
                  "evaluate": {"dataset": {"random": dict(random, seed=2)}, "every_steps": 8}},
    }


def once(spec: dict) -> dict:
    """The same job, which fails where another one would restart."""
    return dict(spec, max_restarts=0)


def failpoint(name: str, action: str) -> dict:
    point, _, hit = name.partition("@")
    return {"GPIPE_FAILPOINT": f"{point}={action}" + (f"@{hit}" if hit else "")}


def activity_of(cluster: Cluster, worker: str) -> dict:
    return next((w.get("activity", {}) for w in cluster.worker_list() if w["name"] == worker), {})


def state_of(cluster: Cluster, worker: str):
    return next((w["state"] for w in cluster.worker_list() if w["name"] == worker), None)


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


def start_workers(cluster: Cluster, devices: list[str], victim: int, point: str):
    """One on each device; `victim` stops at the failpoint."""
    for index, device in enumerate(devices):
        cluster.start_worker(f"w{index}", device, environment=failpoint(point, "stop") if index == victim else None)
    cluster.wait_idle(len(devices))


def lose_worker(cluster: Cluster, folder: pathlib.Path, point: str, how=signal.SIGKILL, devices=THREE):
    """Runs a job; stops w1 at the failpoint, then kills it. Returns (seconds until FAILED, job)."""
    start_workers(cluster, devices, 1, point)
    job = cluster.submit(write_spec(folder, once(training_spec("victim", len(devices)))))
    wait_for_stop(cluster, "w1", point)
    begin = time.monotonic()
    cluster.workers["w1"].send_signal(how)
    gpipe("job", "wait", job, "--timeout", 30, address=cluster.address, check=False)
    return time.monotonic() - begin, cluster.job(job)


def inference_spec(name: str, workers: int = 3) -> dict:
    """Four mini-batches of four micro-batches."""
    spec = training_spec(name, workers)
    del spec["train"]
    spec["infer"] = {"random_inputs": {"shape": [64, 16], "seed": 1}, "batch_size": 16}
    return spec


def hold_last_worker(cluster: Cluster, folder: pathlib.Path, spec: dict, point: str, devices=THREE) -> str:
    """Runs a job until its last worker has stopped at the failpoint. Returns its id."""
    last = len(devices) - 1
    start_workers(cluster, devices, last, point)
    job = cluster.submit(write_spec(folder, spec))
    wait_until(lambda: where_it_stopped(cluster, f"w{last}"), 60, f"w{last} stopped at {point}")
    return job


def lose_sender(cluster: Cluster, folder: pathlib.Path, how: int, devices=THREE):
    """Ends the last but one when it has sent its last micro-batch, and the last has not taken it. Returns (seconds until
    FAILED, job)."""
    spec = once(inference_spec("sent", len(devices)))
    job = hold_last_worker(cluster, folder, spec, "worker.forward@16", devices)
    begin = time.monotonic()
    cluster.workers[f"w{len(devices) - 2}"].send_signal(how)
    gpipe("job", "wait", job, "--timeout", 30, address=cluster.address, check=False)
    return time.monotonic() - begin, cluster.job(job)


def lose_finished(cluster: Cluster, folder: pathlib.Path, how: int, devices=THREE):
    """Ends the last but one when it has finished, and the last has not; then that one. Returns (seconds until the first
    had gone, job)."""
    job = hold_last_worker(cluster, folder, once(training_spec("finished", len(devices))), "worker.finishing", devices)
    gone = end_finished(cluster, job, f"w{len(devices) - 2}", how)
    cluster.workers[f"w{len(devices) - 1}"].kill()
    gpipe("job", "wait", job, "--timeout", 30, address=cluster.address, check=False)
    return gone, cluster.job(job)


def end_finished(cluster: Cluster, job: str, victim: str, how: int) -> float:
    """Ends a worker when it has finished, and others have not. Returns the seconds until it had gone."""
    log = cluster.folder / "orchestrator.log"
    wait_until(lambda: f"{job}: {victim} has finished" in log.read_text(), 60, f"{victim} has finished")
    begin = time.monotonic()
    cluster.workers[victim].send_signal(how)
    cluster.workers[victim].wait(30)
    gone = time.monotonic() - begin
    wait_until(lambda: state_of(cluster, victim) in (None, "STATE_LOST"), 30, "the orchestrator has noticed")
    assert cluster.job(job)["state"] == "STATE_RUNNING", cluster.job(job)
    return gone


def large_inference_spec(name: str, workers: int) -> dict:
    """With 16 MiB of outputs."""
    spec = inference_spec(name, workers)
    spec["model"]["sequential"][-1] = {"linear": {"in_features": 16, "out_features": 4096}}
    spec["infer"] |= {"random_inputs": {"shape": [1024, 16], "seed": 1}, "batch_size": 256}
    return spec


def slow_disk(folder: pathlib.Path) -> dict:
    """The environment of an orchestrator to which 16 MiB take some seconds."""
    return {"LD_PRELOAD": str(preloaded("slow_disk", folder)), "SLOW_DISK_MILLIS": "250"}


def leave_finished(cluster: Cluster, folder: pathlib.Path, how: int, devices=THREE):
    """Ends the last but one when it has finished, while the last still hands its outputs over, to an orchestrator with a
    slow disk; the job goes on. Returns (seconds until the first had gone, job)."""
    start_workers(cluster, devices, -1, "")
    job = cluster.submit(write_spec(folder, large_inference_spec("stays", len(devices))))
    gone = end_finished(cluster, job, f"w{len(devices) - 2}", how)
    return gone, cluster.wait(job, 60)


def check_outputs(cluster: Cluster, job: dict, folder: pathlib.Path):
    """They are what the same job has, with other cuts, whose workers all stay."""
    cluster.pull(job["id"], folder / "found")
    remaining = sum(process.poll() is None for process in cluster.workers.values())
    spec = large_inference_spec("undisturbed", remaining)
    cluster.wait_idle(remaining)
    cluster.run(write_spec(folder, spec), folder / "expected")
    found, expected = (load_file(folder / name / "outputs.safetensors") for name in ("found", "expected"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", nargs="+", default=THREE, help="of two to four workers: cpu or cuda:N")
    parser.add_argument("--phases", nargs="+", help="only these")
    options = parser.parse_args()
    devices = options.devices
    print(f"workers on {', '.join(devices)}\n{'phase':<18} {'signal':<8} {'seconds':>7}  outcome")
    cases = [(point.partition("@")[0][7:], signal.SIGKILL, functools.partial(lose_worker, point=point))
             for point in PHASES]
    cases.append(("forward", signal.SIGSTOP, functools.partial(lose_worker, point="worker.forward@40")))
    sent_all = {"sent": lose_sender, "finished": lose_finished, "stays": leave_finished}
    cases += [(name, how, lose) for name, lose in sent_all.items() for how in (signal.SIGTERM, signal.SIGKILL)]
    for phase, how, lose in [case for case in cases if options.phases is None or case[0] in options.phases]:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            environment = slow_disk(folder) if lose is leave_finished else None
            cluster = Cluster(folder / "cluster", lease_millis=5000, environment=environment)
            try:
                seconds, job = lose(cluster, folder, how=how, devices=devices)
                if job["state"] == "STATE_SUCCEEDED":
                    check_outputs(cluster, job, folder)
            finally:
                cluster.stop()
            equal = ", outputs as without" if job["state"] == "STATE_SUCCEEDED" else ""
            print(f"{phase:<18} {how.name:<8} {seconds:7.2f}  {job['state'][6:]}: {job.get('reason')}{equal}", flush=True)


if __name__ == "__main__":
    main()
