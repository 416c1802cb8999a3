#!/usr/bin/env python3
"""Serves the page with the API of a made-up cluster of any size, to see how quick the page is with it, and to work on it.

    web_stub.py [--port 8089] [--jobs 1000] [--workers 64]
"""

import argparse
import datetime
import functools
import http.server
import json
import math
import pathlib
import random
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
STATIC = ROOT / "orchestrator" / "web" / "static"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".svg": "image/svg+xml"}
HEADERS = {"Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff"}
STATES = ["SUCCEEDED", "SUCCEEDED", "FAILED", "CANCELLED", "QUEUED"]
STAGES, CHUNKS = 4, 8


def stamp(seconds_ago: float) -> str:
    when = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=seconds_ago)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def grid(step_seconds: float) -> list[dict]:
    """GPipe's actions of one step, each at its clock cycle and its time."""
    half, actions, rng = CHUNKS + STAGES - 1, [], random.Random(1)
    cell = step_seconds / (3.1 * half)
    for stage in range(STAGES):
        for i in range(CHUNKS):
            start = (i + stage) * cell
            actions.append(("FORWARD", stage, i, i + stage, start, cell * rng.uniform(0.8, 0.98)))
            back = half + CHUNKS - 1 - i + STAGES - 1 - stage
            start = half * cell + (back - half) * 2 * cell
            if i < CHUNKS - 1:
                actions.append(("RECOMPUTE", stage, i, back, start, cell * 0.6))
            actions.append(("BACKWARD", stage, i, back, start + cell * 0.62, cell * rng.uniform(1.1, 1.3)))
        actions.append(("OPTIMIZER", stage, -1, 2 * half, 3.02 * half * cell, cell * 0.5))
    return [{"kind": f"ACTION_KIND_{kind}", "stage": stage, "micro_batch": i, "cycle": cycle,
             "start_nanos": str(int(start * 1e9)), "nanos": str(int(size * 1e9))}
            for kind, stage, i, cycle, start, size in sorted(actions, key=lambda action: action[4])]


class MadeUp:
    """A cluster whose first job runs, one step after the other."""

    def __init__(self, jobs: int, workers: int, step_seconds: float = 0.8):
        self.step_seconds, self.started, self.total = step_seconds, time.time() - 200, 5000
        self.workers = [self.worker(index) for index in range(workers)]
        self.others = [self.job(index) for index in range(1, jobs)]

    def worker(self, index: int) -> dict:
        rng = random.Random(index)
        return {"name": f"gpu-{index:02d}", "state": "STATE_ASSIGNED" if index < STAGES else "STATE_IDLE",
                "hello": {"device": "cuda:0", "device_name": "NVIDIA H100 80GB HBM3", "memory_bytes": str(80 << 30), "version": "0.1",
                          "software": {"torch": "2.11.0", "cudnn": "9.19.0"}},
                "heartbeat_age_seconds": 0.2,
                "use": {"process_bytes": str(3 << 30), "device_used_bytes": str(int(rng.uniform(2, 70) * 2**30)), "utilization": rng.random(),
                        "gpu": {"temperature_celsius": 40 + index % 45, "power_watts": 412.5, "clock_mhz": 1335 if index == 1 else 1980,
                                "max_clock_mhz": 1980, **({"slowed_by": ["heat"], "uncorrected_errors": "2"} if index == 1 else {})}},
                **({"attempt": {"job": "gpt2-char-a1b2c3", "attempt": 1},
                    "activity": {"phase": "PHASE_FORWARD", "stage": index, "step": "12", "micro_batch": 3}} if index < STAGES else {})}

    def job(self, index: int) -> dict:
        rng = random.Random(index)
        state = STATES[index % len(STATES)]
        return {"id": f"job-{index:04d}-x{index:05d}", "state": f"STATE_{state}", "create_time": stamp(600 * index),
                "reason": "the loss is not finite in step 12" if state == "FAILED" else "waiting for 4 workers" if state == "QUEUED" else "",
                "start_time": stamp(600 * index - 2), "end_time": stamp(600 * index - 300) if state != "QUEUED" else None,
                "workers": ["gpu-00", "gpu-01"], "steps_done": "500" if state == "SUCCEEDED" else str(rng.randrange(500)), "steps_total": "500",
                "last_step": {"step": "500", "loss": rng.uniform(0.1, 3), "samples_per_second": 800, "step_seconds": 0.1}}

    def steps_done(self) -> int:
        return int((time.time() - self.started) / self.step_seconds)

    def loss(self, step: int) -> float:
        return 0.4 + 3.8 * math.exp(-step / 120) + 0.12 * random.Random(step).gauss(0, 1) * math.exp(-step / 400)

    def step(self, step: int) -> dict:
        return {"step": str(step), "loss": self.loss(step), "lr": 1e-3, "step_seconds": self.step_seconds, "samples_per_second": 320.4,
                "bubble_share": 0.27, "stage_busy": [0.72, 0.74, 0.71, 0.69], "stage_peak_saved_bytes": [str(300 << 20)] * STAGES}

    def running(self) -> dict:
        done = self.steps_done()
        return {"id": "gpt2-char-a1b2c3", "state": "STATE_RUNNING", "create_time": stamp(time.time() - self.started + 4), "attempt": 1,
                "start_time": stamp(time.time() - self.started), "workers": [f"gpu-{i:02d}" for i in range(STAGES)],
                "stage_worker": list(range(STAGES)), "balance": ["7", "6", "6", "7"], "steps_done": str(done), "steps_total": str(self.total),
                "checkpoint_step": str(done // 50 * 50), "last_step": self.step(done),
                "activities": [{"phase": "PHASE_FORWARD", "stage": i, "step": str(done + 1), "micro_batch": i} for i in range(STAGES)]}

    def stages(self, step: int) -> dict:
        part = self.step_seconds / 10
        return {"step": str(step), "stages": [
            {"stage": i, "forward": 2.1 * part, "recompute": 1.2 * part, "backward": 3.6 * part, "optimizer": 0.3 * part, "idle": 2.8 * part,
             "traffic": [{"worker": (i + 1) % STAGES, "sent_bytes": str(12 << 20), "received_bytes": str(12 << 20), "wait_nanos": str(int(1e8 * (i + 1)))}],
             "peak_saved_bytes": str((310 - 20 * i) << 20)} for i in range(STAGES)]}

    def timeline(self, step: int) -> dict:
        return {"job": "gpt2-char-a1b2c3", "attempt": 1, "step": str(step or self.steps_done()), "actions": grid(self.step_seconds),
                "workers": [f"gpu-{i:02d}" for i in range(STAGES)], "stage_worker": list(range(STAGES)), "step_seconds": self.step_seconds,
                "bubble_share": 0.29, "ideal_bubble_share": 3 / 11, "forecast": {"step_seconds": 0.76, "bubble_share": 0.28},
                "first_kept": str(max(1, self.steps_done() - 20)), "last_kept": str(self.steps_done())}

    def events(self) -> list[dict]:
        said = [("client", "submitted"), ("orchestrator", "placed on gpu-00, gpu-01, gpu-02, gpu-03"),
                ("gpu-00", "built stage 0 of 4 (layers 0 to 6), 7.2 million parameters"), ("gpu-01", "built stage 1 of 4 (layers 7 to 12)"),
                ("orchestrator", "all workers are prepared"), ("gpu-03", "<img src=x onerror=alert(1)> & friends")]
        return [{"sequence": str(i + 1), "time": stamp(200 - i), "attempt": 1, "state": "STATE_RUNNING", "actor": actor, "message": message,
                 "warning": i == 5} for i, (actor, message) in enumerate(said)]

    def answer(self, path: str, query: dict) -> dict | None:
        """Of a path below /api/v1."""
        if path == "/version":
            return {"version": "0.1.0"}
        if path == "/access":
            return {"open": True}
        if path == "/jobs":
            first, size = int(query.get("page_token") or 0), int(query.get("page_size") or 100)
            jobs = [self.running(), *self.others]
            return {"jobs": jobs[first:first + size], **({"next_page_token": str(first + size)} if first + size < len(jobs) else {})}
        if path == "/jobs/gpt2-char-a1b2c3":
            return {**self.running(), "spec": {"name": "gpt2-char", "pipeline": {"chunks": str(CHUNKS)}, "train": {"batch_size": "256"}}}
        if path.endswith("/events"):
            return {"events": self.events()}
        if path.endswith("/metrics"):
            done = self.steps_done()
            return {"steps": [self.step(i) for i in range(1, done + 1)],
                    "evaluations": [{"step": str(i), "loss": self.loss(i) + 0.1, "accuracy": 0.8} for i in range(50, done, 50)]}
        if path.endswith("/timeline"):
            return self.timeline(int(query.get("step") or 0))
        return None

    def watch_cluster(self):
        for worker in self.workers:
            yield {"worker": worker}
        for job in [self.running(), *(job for job in self.others if job["state"] == "STATE_QUEUED")]:
            yield {"job": job}
        yield {"complete": True}
        while True:
            time.sleep(1 / 30)
            worker = random.choice(self.workers)
            yield {"worker": {**worker, "use": {**worker["use"], "utilization": random.random()}}}
            yield {"job": self.running()}

    def watch_job(self):
        yield {"job": self.running()}
        while True:
            step = self.steps_done() + 1
            actions = grid(self.step_seconds)
            time.sleep(self.step_seconds)
            for cycle in range(2 * (CHUNKS + STAGES - 1) + 1):
                yield {"cycle": {"round": str(step), "cycle": cycle, "actions": [a for a in actions if a["cycle"] == cycle]}}
            yield {"step": self.step(step)}
            yield {"stages": self.stages(step)}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, made_up: MadeUp, *args):
        self.made_up = made_up
        super().__init__(*args)

    def log_message(self, *_):
        pass

    def send(self, status: int, kind: str, body: bytes):
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_json(self, status: int, value: dict):
        self.send(status, "application/json", json.dumps(value).encode())

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if not path.startswith("/api/v1/"):
            file = STATIC / ("index.html" if path == "/" else path.removeprefix("/"))
            known = file.parent == STATIC and file.is_file()
            return self.send(200, TYPES[file.suffix], file.read_bytes()) if known else self.send(404, "text/plain", b"not here\n")
        path = urllib.parse.unquote(path.removeprefix("/api/v1"))
        if path.endswith("/watch"):
            return self.stream(self.made_up.watch_cluster() if path == "/watch" else self.made_up.watch_job())
        answer = self.made_up.answer(path, dict(urllib.parse.parse_qsl(query)))
        return self.send_json(200, answer) if answer is not None else self.send_json(404, {"code": 5, "message": f"no job {path}"})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_json(403, {"code": 7, "message": "this cluster is made up"})

    def stream(self, updates):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for update in updates:
                self.wfile.write(f"data: {json.dumps(update)}\n\n".encode())
                self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            pass


def serve(made_up: MadeUp, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server whose threads end with the process; its address is server_address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, made_up))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8089)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=64)
    flags = parser.parse_args()
    print("http://%s:%d/" % serve(MadeUp(flags.jobs, flags.workers), flags.port).server_address)
    threading.Event().wait()
