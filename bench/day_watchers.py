#!/usr/bin/env python3
"""Watchers that come and go, for bench/day.py: of jobs and of the cluster, over gRPC and as server-sent events over HTTP.
One in five never reads what it is sent. Each stays a while on a connection of its own, and another one comes.

    bench/day_watchers.py ADDRESS HTTP_ADDRESS COUNT

Ends when its standard input does, with a line of JSON: what they have seen, and what should not have been. SIGUSR1 lets
those that are there stay and ask for nothing new, until SIGUSR2.
"""

from __future__ import annotations

import collections
import http.client
import json
import os
import random
import signal
import socket
import sys
import threading
import time

import grpc

import common  # noqa: F401  Its path has the next one.
from api import Api

MOST_SECONDS, MEAN_SECONDS = 60.0, 20.0
NOT_OVER = ["STATE_QUEUED", "STATE_STARTING", "STATE_RUNNING"]
OVER = ("STATE_SUCCEEDED", "STATE_FAILED", "STATE_CANCELLED")
# A connection that is not shared with other watchers, and takes little that nobody reads.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0), ("grpc.enable_retries", 0)]
# What a watcher may end with: it left, its job is forgotten already, or there are too many.
EXPECTED = {grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.NOT_FOUND}


class Watchers:
    """All of them; any of their threads."""

    def __init__(self, address: str, http_address: str):
        self.address, self.http_address = address, http_address
        self.api = Api(address)
        self.over, self.goes_on = threading.Event(), threading.Event()
        self.goes_on.set()
        self.lock = threading.Lock()
        self.seen, self.faults = collections.Counter(), []
        self.states = {state.number: state.name for state in
                       self.api.pool.FindMessageTypeByName("gpipe.v1.Job").enum_types_by_name["State"].values}

    def note(self, **counts: int):
        with self.lock:
            self.seen.update(counts)

    def fault(self, words: str):
        with self.lock:
            self.seen.update(faults=1)
            self.faults = [*self.faults, words][:20]

    def rest(self, least: float, most: float):
        self.over.wait(random.uniform(least, most))
        self.goes_on.wait()

    def come_and_go(self):
        kinds = {self.watch_jobs: 56, self.watch_cluster: 10, self.job_events: 9, self.cluster_events: 6,
                 self.silent: 11, self.silent_events: 8}
        while not self.over.is_set():
            visit = random.choices(list(kinds), kinds.values())[0]
            silent = visit in (self.silent, self.silent_events)
            stay = MOST_SECONDS if silent else min(MOST_SECONDS, random.expovariate(1 / MEAN_SECONDS))
            self.note(visits=1, **({"visits_that_never_read": 1} if silent else {}))
            try:
                visit(time.monotonic() + stay)
            except grpc.RpcError as error:
                self.judge(error)
            except (OSError, http.client.HTTPException) as error:
                self.fault(f"{visit.__name__}: {error!r}")
            self.rest(0.1, 1)

    def judge(self, error: grpc.RpcError):
        if error.code() not in EXPECTED and not self.over.is_set():
            self.fault(f"{error.code().name}: {error.details()}")

    def some_job(self, api: Api) -> str | None:
        """One that is not over, or the newest."""
        jobs = api.ListJobs(page_size=10, states=NOT_OVER).jobs or api.ListJobs(page_size=1).jobs
        return random.choice(jobs).id if jobs else None

    def own_api(self) -> Api:
        return Api(self.address, options=OWN_CONNECTION, pool=self.api.pool)

    def watch_jobs(self, deadline: float):
        """One job after the other, each to its end."""
        api = self.own_api()
        try:
            while (left := deadline - time.monotonic()) > 0 and not self.over.is_set():
                if job := self.some_job(api):
                    self.watch_job(api, job, left)
                self.rest(0.5, 3)
        finally:
            api.channel.close()

    def watch_job(self, api: Api, job: str, seconds: float):
        last = None
        for update in api.WatchJob(id=job, timeout=seconds, stages=random.random() < 0.5, cycles=random.random() < 0.2):
            last = self.states[update.job.state] if update.HasField("job") else last
            self.note(updates=1, dropped=update.dropped)
        self.note(watches_to_the_end=1)
        if last not in OVER:
            self.fault(f"the watch of {job} ended when it was {last}")

    def watch_cluster(self, deadline: float):
        api = self.own_api()
        try:
            for update in api.WatchCluster(timeout=deadline - time.monotonic()):
                self.note(updates=1, dropped=update.dropped)
        finally:
            api.channel.close()

    def silent(self, deadline: float):
        api = self.own_api()
        watch = api.WatchCluster(timeout=2 * MOST_SECONDS)
        self.over.wait(deadline - time.monotonic())
        watch.cancel()
        api.channel.close()

    def events(self, path: str, deadline: float):
        connection = http.client.HTTPConnection(self.http_address, timeout=30)
        connection.request("GET", f"/api/v1/{path}")
        answer = connection.getresponse()
        if answer.status != 200:
            self.note(turned_away=1)
            if answer.status not in (404, 429, 503):
                self.fault(f"{path}: {answer.status} {answer.read(200)}")
        for line in answer if answer.status == 200 else ():
            self.note(**({"events": 1} if line.startswith(b"data:") else {"comments": 1} if line.startswith(b":") else {}))
            if line.startswith(b"event: end") or time.monotonic() > deadline or self.over.is_set():
                break
        connection.close()

    def job_events(self, deadline: float):
        while time.monotonic() < deadline and not self.over.is_set():
            if job := self.some_job(self.api):
                self.events(f"jobs/{job}/watch?stages=true", deadline)
            self.rest(0.5, 3)

    def cluster_events(self, deadline: float):
        self.events("watch", deadline)

    def silent_events(self, deadline: float):
        host, _, port = self.http_address.rpartition(":")
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.sendall(b"GET /api/v1/watch HTTP/1.1\r\nHost: day\r\n\r\n")
            self.over.wait(deadline - time.monotonic())


def main():
    os.nice(5)
    watchers = Watchers(sys.argv[1], sys.argv[2])
    signal.signal(signal.SIGUSR1, lambda *_: watchers.goes_on.clear())
    signal.signal(signal.SIGUSR2, lambda *_: watchers.goes_on.set())
    threads = [threading.Thread(target=watchers.come_and_go) for _ in range(int(sys.argv[3]))]
    for thread in threads:
        thread.start()
    print("watching", flush=True)
    sys.stdin.read()
    watchers.over.set()
    watchers.goes_on.set()
    watchers.api.channel.close()
    for thread in threads:
        thread.join(MOST_SECONDS + 30)
    alive = sum(thread.is_alive() for thread in threads)
    print(json.dumps({**watchers.seen, "watchers_that_hang": alive, "words": watchers.faults}), flush=True)
    os._exit(0)  # Those that hang are told of.


if __name__ == "__main__":
    main()
