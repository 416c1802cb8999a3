#!/usr/bin/env python3
"""A day of work in an hour: many small jobs from a few clients, watchers who come and go (bench/day_watchers.py), and a
worker killed (SIGKILL) and started again each minute, on real processes.

    bench/day.py [--minutes 60] [--jobs 10000] [--workers 3] [--watchers 100] [--keep-jobs 500] [--log FOLDER]

Each job has to succeed, also one whose worker was killed, with the losses and the model of others of the same spec in
every bit, and files that are what their hashes say. Meanwhile the orchestrator's memory, descriptors, threads and disk are
sampled; only the newest --keep-jobs jobs are kept, so that what is there levels out long before half of the time.
Fails when a job was lost, or when a line fitted to the samples of the second half grows by more than 5%, the floors below
and twice its standard error.

SIGUSR1 lets the day stand still (no new jobs, no kills), SIGUSR2 lets it go on; that time does not count.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import hashlib
import json
import os
import pathlib
import queue
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import grpc
from google.protobuf import json_format

import common
from api import Api
from disk_space import used
from orchestrator import resident_mebibytes

SAMPLE_SECONDS = 10.0
WIDTH = 48
# What does not count as growth, beside the 5%.
FLOORS = {"MiB": 3.0, "descriptors": 6.0, "threads": 3.0, "artifacts MB": 0.5, "files": 20.0, "database MB": 0.3, "jobs": 20.0}


def spec_of(number: int, keep_jobs: int) -> dict:
    """The same again after three times as many as are kept, so that each of these has files of its own."""
    number %= 50 * max(1, 3 * keep_jobs // 50)
    stages = (1, 1, 2, 1, 3)[number % 5]
    long = number % 50 == 2
    linear = {"linear": {"in_features": WIDTH, "out_features": WIDTH}}
    data = {"samples": 64, "input_shape": [WIDTH], "classes": WIDTH, "seed": 1}
    return {"name": f"day-{stages}{'-long' if long else ''}", "max_restarts": 20,
            "model": {"sequential": [linear, {"tanh": {}}, linear], "init_seed": 1 + number},
            "pipeline": {"balance": {1: [3], 2: [2, 1], 3: [1, 1, 1]}[stages], "chunks": 4},
            "train": {"dataset": {"random": data}, "batch_size": 32, "steps": 400 if long else 8,
                      "loss": {"cross_entropy": {}}, "optimizer": {"adam": {}}, "checkpoint_every": 50 if long else 4}}


class Pace:
    """Gives the numbers of jobs out, evenly over the time; and lets the day stand still. Its clock is in seconds."""

    def __init__(self, options: argparse.Namespace):
        self.jobs, self.seconds = options.jobs, 60 * options.minutes
        self.numbers: queue.Queue = queue.Queue(1)
        self.over = threading.Event()
        self.held, self.held_since, self.given, self.begun = 0.0, None, 0, time.monotonic()

    def begin(self):
        self.begun = time.monotonic()

    def hold(self):
        self.held_since = self.held_since or time.monotonic()

    def go_on(self):
        self.held += time.monotonic() - (self.held_since or time.monotonic())
        self.held_since = None

    def end(self):
        self.over.set()
        self.held_since = time.monotonic()

    def elapsed(self) -> float:
        return (self.held_since or time.monotonic()) - self.begun - self.held

    def give_out(self, clients: int):
        """Somewhat faster than even, so that the last ones end in time as well."""
        while self.given < self.jobs and self.elapsed() < self.seconds:
            self.wait(self.given * 0.97 * self.seconds / self.jobs)
            self.numbers.put(self.given)
            self.given += 1
        for _ in range(clients):
            self.numbers.put(None)

    def wait(self, until: float):
        while not self.over.is_set() and (self.held_since or self.elapsed() < until):
            self.over.wait(1 if self.held_since else min(1, max(0, until - self.elapsed())))


class Day:
    """The cluster, those who send jobs, and what was found of these."""

    def __init__(self, folder: pathlib.Path, options: argparse.Namespace):
        self.options, self.pace = options, Pace(options)
        self.cluster = common.Cluster(folder, lease_millis=10000, arguments=["--keep-jobs", options.keep_jobs,
                                                                             "--http-listen", "127.0.0.1:0"])
        self.http_address = re.findall(r"serving HTTP on (\S+)", (folder / "orchestrator.log").read_text())[-1]
        self.lock = threading.Lock()
        self.acknowledged: list[str] = []
        self.first_of: dict[str, tuple] = {}  # What the first job of a spec made.
        self.compared, self.restarts, self.kills, self.kills_at_work = 0, 0, 0, 0
        self.faults: list[str] = []
        self.seconds: list[float] = []
        self.watchers: subprocess.Popen | None = None

    def hold(self, number, _):
        """The handler of both signals, which its watchers get, too."""
        self.pace.hold() if number == signal.SIGUSR1 else self.pace.go_on()
        if self.watchers and self.watchers.poll() is None:
            self.watchers.send_signal(number)

    def fault(self, words: str):
        with self.lock:
            self.faults.append(words)
        print(f"FAULT {words}", flush=True)

    def send_jobs(self):
        api = Api(self.cluster.address)
        while (number := self.pace.numbers.get()) is not None:
            try:
                self.run_job(api, number)
            except grpc.RpcError as error:
                self.fault(f"job {number}: {error.code().name}: {error.details()}")

    def run_job(self, api: Api, number: int):
        begin, request = time.monotonic(), {"spec": spec_of(number, self.options.keep_jobs), "request_id": f"day-{number}"}
        job = api.SubmitJob(**request).id
        with self.lock:
            self.acknowledged.append(job)
        if number % 16 == 0 and api.SubmitJob(**request).id != job:
            self.fault(f"job {number} was submitted twice, and is two jobs")
        for _ in api.WatchJob(id=job, timeout=600):
            pass
        seconds = time.monotonic() - begin
        self.check(api, api.GetJob(id=job), json.dumps(request["spec"]))
        with self.lock:
            self.seconds.append(seconds)

    def check(self, api: Api, job, spec: str):
        if job.state != job.STATE_SUCCEEDED:
            return self.fault(f"{job.id} is in state {job.state}: {job.reason}")
        steps = api.ListJobMetrics(id=job.id).steps
        if [step.step for step in steps] != list(range(1, job.steps_total + 1)):
            self.fault(f"{job.id} has the metrics of {len(steps)} of {job.steps_total} steps")
        for file in job.results:
            content = b"".join(part.data for part in api.DownloadArtifact(ref=json_format.MessageToDict(file.artifact)))
            if hashlib.sha256(content).hexdigest() != file.artifact.sha256:
                self.fault(f"{job.id}: {file.path} is not what its hash says")
        files = {file.path: file.artifact.sha256 for file in job.results}
        found = ([step.loss for step in steps], files.get("model.safetensors"))
        with self.lock:
            first = self.first_of.setdefault(spec, found)
            self.compared += first is not found
            self.restarts += job.restarts
        if found[1] is None or first != found:
            self.fault(f"{job.id} ({job.restarts} restarts) differs from the first job of its spec, or has no model")

    def kill_workers(self):
        """One at work, where there is one."""
        api, each = Api(self.cluster.address), 60.0
        while not self.pace.over.is_set():
            self.pace.wait((self.kills + 0.5) * each)
            if self.pace.over.is_set():
                break
            self.kills += 1
            try:
                workers = {worker.name: worker.state == worker.STATE_ASSIGNED for worker in api.ListWorkers().workers}
            except grpc.RpcError as error:
                self.fault(f"listing workers: {error.code().name}: {error.details()}")
                continue
            name = random.choice([name for name, at_work in workers.items() if at_work] or list(self.cluster.workers))
            self.kills_at_work += workers.get(name, False)
            self.cluster.workers[name].kill()
            self.cluster.workers[name].wait()
            self.cluster.start_worker(name, device="cpu")

    def stored(self, api: Api) -> list:
        """The newest first."""
        jobs, token = [], ""
        while True:
            page = api.ListJobs(page_size=1000, page_token=token)
            jobs, token = [*jobs, *page.jobs], page.next_page_token
            if not token:
                return jobs

    def sample(self, api: Api) -> dict[str, float]:
        process = pathlib.Path(f"/proc/{self.cluster.orchestrator.pid}")
        jobs = len(self.stored(api))
        files, content, database = used(self.cluster.state)
        return {"minutes": self.pace.elapsed() / 60, "done": float(len(self.seconds)), "jobs": float(jobs),
                "MiB": resident_mebibytes(int(process.name)), "descriptors": float(len(os.listdir(process / "fd"))),
                "threads": float(len(os.listdir(process / "task"))), "files": float(files), "artifacts MB": content / 1e6,
                "database MB": database / 1e6}

    def check_stored(self, api: Api):
        """Those that retention leaves are there, and over."""
        jobs = {job.id: job.state for job in self.stored(api)}
        newest = self.acknowledged[-max(0, self.options.keep_jobs - 2 * self.options.clients):]
        for job in set(newest) - set(jobs):
            self.fault(f"{job} was acknowledged, and is not there")
        for job, state in jobs.items():
            if state < 5:
                self.fault(f"{job} is not over, but in state {state}")


def growth(samples: list[dict], name: str) -> tuple[float, float, float]:
    """By how much a fitted line grows over the time of the samples, with its standard error; and their mean."""
    times, values = [sample["minutes"] for sample in samples], [sample[name] for sample in samples]
    slope, start = statistics.linear_regression(times, values)
    rest = sum((value - start - slope * at) ** 2 for at, value in zip(times, values)) / max(1, len(times) - 2)
    spread = sum((at - statistics.mean(times)) ** 2 for at in times)
    span = times[-1] - times[0]
    return slope * span, span * (rest / spread) ** 0.5, statistics.mean(values)


def row(words: str, sample: dict) -> str:
    return f"| {words} | " + " | ".join(f"{value:.1f}" if value % 1 else f"{value:.0f}" for value in sample.values()) + " |"


def show(before: dict, samples: list[dict], after: dict, rows: int = 12) -> list[str]:
    """Prints the table, of each part of the time the mean; returns what has grown."""
    print(f"\n| | {' | '.join(before)} |\n|---|{'---:|' * len(before)}\n{row('before', before)}")
    for part in range(rows):
        some = samples[len(samples) * part // rows:len(samples) * (part + 1) // rows]
        if some:
            print(row(f"{part + 1}", {name: statistics.mean(sample[name] for sample in some) for name in before}))
    print(row("after, all gone", after))
    second, grown = samples[len(samples) // 2:], []
    if len(second) < 3:
        return ["the time was too short to tell what grows"]
    print(f"\nover the second half ({len(second)} samples) a line grows by:")
    for name, floor in FLOORS.items():
        by, error, mean = growth(second, name)
        allowed = max(floor, 0.05 * mean) + 2 * error
        print(f"  {name}: {by:+.2f} +- {error:.2f} of {mean:.1f}, allowed {allowed:.2f}")
        if by > allowed:
            grown.append(f"{name} grows by {by:.2f} of {mean:.1f}")
    return grown


def watch(day: Day) -> subprocess.Popen:
    command = [sys.executable, pathlib.Path(__file__).with_name("day_watchers.py"), day.cluster.address, day.http_address]
    watchers = subprocess.Popen([*map(str, command), str(day.options.watchers)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                text=True)
    assert watchers.stdout.readline() == "watching\n"
    return watchers


def end_watch(day: Day):
    seen = json.loads(day.watchers.communicate()[0] or "{}")
    print(f"watchers: {seen}")
    if not seen or seen.get("faults") or seen["watchers_that_hang"]:
        day.fault("of the watchers")


def run(day: Day) -> tuple[dict, list[dict], dict]:
    api, clients = Api(day.cluster.address), day.options.clients
    day.cluster.start_workers(day.options.workers, device="cpu")
    before, samples = day.sample(api), []
    day.watchers = watch(day)
    day.pace.begin()
    with concurrent.futures.ThreadPoolExecutor(clients + 2) as pool:
        sending = [pool.submit(day.send_jobs) for _ in range(clients)]
        others = [pool.submit(day.pace.give_out, clients), pool.submit(day.kill_workers)]
        while concurrent.futures.wait(sending, SAMPLE_SECONDS).not_done:
            if not day.pace.held_since:
                samples.append(day.sample(api))
                print(row("", samples[-1]), flush=True)
        day.pace.end()
        for each in [*sending, *others]:
            each.result()
    end_watch(day)
    day.check_stored(api)
    common.wait_until(lambda: len(day.stored(api)) <= day.options.keep_jobs, 180, "retention")
    time.sleep(SAMPLE_SECONDS)  # What nobody needs any more may take a while to go.
    return before, samples, day.sample(api)


def tell(day: Day):
    seconds, pace = sorted(day.seconds), day.pace
    print(f"{len(day.acknowledged)} of {day.options.jobs} jobs in {pace.elapsed() / 60:.1f} minutes (stood still for "
          f"{pace.held / 60:.1f}), {len(seconds)} ended; from submission to end median {statistics.median(seconds):.2f} s, "
          f"99% {seconds[len(seconds) * 99 // 100]:.2f} s\n{day.compared} compared with another one of their spec; "
          f"{day.kills} workers killed, {day.kills_at_work} of them at work; {day.restarts} restarts of jobs")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--jobs", type=int, default=10000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--keep-jobs", type=int, default=500)
    parser.add_argument("--log", type=pathlib.Path, help="keep the cluster's folder here")
    options = parser.parse_args()
    print(f"machine: {common.machine()}; {options}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        day = Day(options.log or pathlib.Path(folder), options)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, day.hold)
        try:
            before, samples, after = run(day)
        finally:
            day.cluster.stop()
    tell(day)
    grown = show(before, samples, after)
    for reason, count in collections.Counter([*day.faults, *grown]).items():
        print(f"{count} times: {reason}")
    sys.exit(1 if day.faults or grown else 0)


if __name__ == "__main__":
    main()
