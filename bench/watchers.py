#!/usr/bin/env python3
"""What watchers cost a running job: its step, and the orchestrator's processor time, without and with so many of them, each
on a connection of its own, with all steps and what their stages did.

    bench/watchers.py [--watchers 200] [--pairs 10] [--seconds 8] [--workers 1] [--http]

With --http they are as web pages are: server-sent events of JSON.

Without and with take turns, and what counts is the ratio within each pair. Workers have a core each; the orchestrator, the
watchers and the rest have the others, as an orchestrator has that runs on a machine of its own, unless no core is left.
The watchers give way to all others (nice 19).
"""

import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import common
from api import Api

WATCH = """
import http.client, os, sys, threading
os.nice(19)
tests, address, job, count, web = sys.argv[1:]
sys.path.insert(0, tests)
count, begun = int(count), threading.Semaphore(0)
if not web:
    from api import Api
    pool = Api(address).pool
def updates():
    if not web:
        api = Api(address, options=[("grpc.use_local_subchannel_pool", 1)], pool=pool)
        yield from api.WatchJob(id=job, stages=True, timeout=600)
    connection = http.client.HTTPConnection(web, timeout=600)
    connection.request("GET", f"/api/v1/jobs/{job}/watch?stages=true")
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    while data := answer.read1(1 << 16):
        yield data
def watch():
    for number, update in enumerate(updates()):
        if number == 1:
            begun.release()
threads = [threading.Thread(target=watch, daemon=True) for _ in range(count)]
[thread.start() for thread in threads]
[begun.acquire() for _ in range(count)]
print("watching", flush=True)
threads[0].join()
"""


def processor_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def steps_during(cluster: common.Cluster, job: str, seconds: float) -> tuple[float, int, float]:
    """Their median and number, and the share of a core that the orchestrator used."""
    used, begun, steps = processor_seconds(cluster.orchestrator.pid), time.monotonic(), []
    for update in Api(cluster.address).WatchJob(id=job):
        if update.HasField("step"):
            steps.append(update.step.step_seconds)
        if time.monotonic() - begun > seconds:
            break
    share = (processor_seconds(cluster.orchestrator.pid) - used) / (time.monotonic() - begun)
    return statistics.median(steps), len(steps), share


def web_address(cluster: common.Cluster) -> str:
    return re.search(r"serving HTTP on (\S+)", (cluster.folder / "orchestrator.log").read_text())[1]


def watched_steps(cluster: common.Cluster, job: str, options: argparse.Namespace) -> tuple[float, int, float]:
    watchers = subprocess.Popen([sys.executable, "-c", WATCH, common.ROOT / "tests" / "python", cluster.address, job,
                                 str(options.watchers), web_address(cluster) if options.http else ""],
                                stdout=subprocess.PIPE, text=True)
    try:
        assert watchers.stdout.readline() == "watching\n"
        time.sleep(1)
        return steps_during(cluster, job, options.seconds)
    finally:
        watchers.kill()
        watchers.wait()


def spec(workers: int) -> dict:
    layer = {"linear": {"in_features": 1024, "out_features": 1024}}
    random = {"samples": 1024, "input_shape": [1024], "classes": 10, "seed": 1}
    return {"name": "watched", "model": {"sequential": [layer] * 4},
            "pipeline": {"balance": common.even_balance(4, workers), "chunks": 4, "device": "cpu"},
            "train": {"dataset": {"random": random}, "batch_size": 256, "steps": 10_000_000, "loss": {"cross_entropy": {}},
                      "optimizer": {"sgd": {"lr": 1e-3}}}}


def start_workers(cluster: common.Cluster, count: int):
    cores = common.core_list()
    if len(cores) > count:
        os.sched_setaffinity(0, cores[count:])
        common.pin_process(cluster.orchestrator.pid, cores[count])
    cluster.start_workers(count, device="cpu")
    for process, core in zip(cluster.workers.values(), cores if len(cores) > count else ()):
        common.pin_process(process.pid, core)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--http", action="store_true")
    options = parser.parse_args()
    print(f"machine: {common.machine()}; {options}")
    with tempfile.TemporaryDirectory() as folder:
        cluster = common.Cluster(pathlib.Path(folder) / "cluster", lease_millis=10000,
                                 arguments=["--http-listen", "127.0.0.1:0"])
        try:
            start_workers(cluster, options.workers)
            job = cluster.submit(common.write_spec(pathlib.Path(folder), spec(options.workers)))
            common.wait_until(lambda: int(cluster.job(job).get("steps_done", 0)) > 20, 60, "steps")
            ratios, found = [], {False: [], True: []}
            for pair in range(options.pairs):
                for watched in (False, True) if pair % 2 else (True, False):
                    found[watched].append(watched_steps(cluster, job, options) if watched
                                          else steps_during(cluster, job, options.seconds))
                ratios.append(found[True][-1][0] / found[False][-1][0])
                without, with_them = (1e3 * found[watched][-1][0] for watched in (False, True))
                print(f"{without:.2f} ms without, {with_them:.2f} ms with: {ratios[-1] - 1:+.2%}", flush=True)
            for watched, rows in found.items():
                print(f"{'with' if watched else 'without':8} step {1e3 * statistics.median(row[0] for row in rows):.2f} ms, "
                      f"{sum(row[1] for row in rows)} steps; orchestrator "
                      f"{100 * statistics.mean(row[2] for row in rows):.1f}% of a core")
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"of a step: {middle - 1:+.2%}, median of {len(ratios)} pairs, quartiles {low - 1:+.2%} and {high - 1:+.2%}")
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
