"""Starts real orchestrators and workers on loopback, runs jobs on them through the CLI, and stops them by their id."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("GPIPE_BIN_DIR", ROOT / "build" / "bin"))
# Those of workers, in turn: `cuda:0` runs the same tests with all of them on one GPU.
DEVICES = os.environ.get("GPIPE_TEST_DEVICE", "cpu").split()
DEVICE = DEVICES[0]


def gpipe(*arguments, address=None, check=True, timeout=120, environment=None):
    """Runs the CLI. Returns the finished process; raises with its words when check and it failed."""
    env = dict(os.environ, NO_COLOR="1", **(environment or {}))
    if address:
        env["GPIPE_ORCHESTRATOR"] = address
    done = subprocess.run([str(BIN / "gpipe"), *map(str, arguments)], env=env, text=True, capture_output=True,
                          timeout=timeout, stdin=subprocess.DEVNULL)
    if check and done.returncode != 0:
        raise AssertionError(f"gpipe {arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def wait_until(condition, seconds=30.0, what="condition"):
    """Returns the first true value of condition()."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come true within {seconds} s")


def preloaded(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Builds the library of `name`.c beside this file, for LD_PRELOAD."""
    library = folder / f"{name}.so"
    compiler = next(found for found in ("cc", "gcc", "clang") if shutil.which(found))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, pathlib.Path(__file__).parent / f"{name}.c", "-ldl"],
                   check=True)
    return library


def write_spec(folder: pathlib.Path, spec: dict) -> pathlib.Path:
    path = folder / f"{spec['name']}.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


class Cluster:
    """One orchestrator and its workers."""

    def __init__(self, folder: pathlib.Path, lease_millis=2000, environment=None, arguments=(), state=None, enter=(),
                 host="127.0.0.1"):
        """`enter` is the command that the orchestrator needs before its own to see the folder `state`."""
        self.folder, self.lease_millis = pathlib.Path(folder), lease_millis
        self.folder.mkdir(parents=True, exist_ok=True)
        self.workers: dict[str, subprocess.Popen] = {}
        self.environment, self.arguments = environment or {}, arguments  # Of the orchestrator.
        self.state, self.enter, self.host = state or self.folder / "state", enter, host
        self.orchestrator = None
        self.address = None
        self.start_orchestrator()

    def start_orchestrator(self, port=0):
        read, write = os.pipe()
        log = open(self.folder / "orchestrator.log", "ab")
        self.orchestrator = subprocess.Popen(
            [*self.enter, str(BIN / "gpipe-orchestrator"), "--listen", f"{self.host}:{port}", "--state-dir", str(self.state),
             "--lease-millis", str(self.lease_millis), "--heartbeat-millis", str(self.lease_millis // 5),
             "--ready-fd", str(write), *map(str, self.arguments)], pass_fds=[write], stdout=log, stderr=log,
            env=dict(os.environ, **self.environment))
        os.close(write)
        with os.fdopen(read) as ready:
            self.address = ready.readline().strip()
        assert self.address, (self.folder / "orchestrator.log").read_text()

    def start_worker(self, name, device=None, threads=1, environment=None, arguments=(), leave_within=5):
        device = device or DEVICES[len(self.workers) % len(DEVICES)]
        log = open(self.folder / f"{name}.log", "ab")
        self.workers[name] = subprocess.Popen(
            [str(BIN / "gpipe-worker"), "--orchestrator", self.address, "--name", name, "--device", device,
             "--threads", str(threads), "--leave-within", str(leave_within), *map(str, arguments)], stdout=log, stderr=log,
            env=dict(os.environ, **(environment or {})))
        return self.workers[name]

    def start_workers(self, count, **options):
        for index in range(count):
            self.start_worker(f"w{index}", **options)
        self.wait_idle(count)

    def wait_idle(self, count):
        wait_until(lambda: sum(w["state"] == "STATE_IDLE" for w in self.worker_list()) >= count, 60,
                   f"{count} idle workers")

    def worker_list(self):
        answer = json.loads(gpipe("worker", "list", "-o", "json", address=self.address).stdout)
        return answer.get("workers", [])

    def job(self, job_id):
        return json.loads(gpipe("job", "get", job_id, "-o", "json", address=self.address).stdout)

    def submit(self, spec_path, *arguments):
        return json.loads(gpipe("job", "submit", spec_path, "-o", "json", *arguments, address=self.address).stdout)["id"]

    def refusal(self, spec_path) -> str:
        """What `validate` and `submit` say alike of a spec that cannot be run."""
        asked = [gpipe(*command, spec_path, address=self.address, check=False)
                 for command in (["validate"], ["job", "submit"])]
        assert [done.returncode for done in asked] == [2, 2], asked
        assert asked[0].stderr == asked[1].stderr, asked
        return asked[0].stderr

    def wait(self, job_id, seconds=60):
        """Waits for a terminal state and returns the job."""
        gpipe("job", "wait", job_id, "--timeout", seconds, address=self.address, check=False, timeout=seconds + 30)
        return self.job(job_id)

    def run(self, spec_path, output: pathlib.Path, *arguments, seconds=120) -> pathlib.Path:
        """Runs a job to success and pulls its results into output."""
        job = self.wait(self.submit(spec_path, *arguments), seconds)
        assert job["state"] == "STATE_SUCCEEDED", job
        return self.pull(job["id"], output)

    def pull(self, job_id, output: pathlib.Path) -> pathlib.Path:
        gpipe("job", "pull", job_id, "--output", output, address=self.address)
        return output

    def stop(self):
        for process in [*self.workers.values(), self.orchestrator]:
            if process and process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.terminate()
        for process in [*self.workers.values(), self.orchestrator]:
            if process is None:
                continue
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def read_jsonl(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def losses_of(results: pathlib.Path) -> list[float]:
    """Of each step, from the folder of a job's results."""
    return [step["loss"] for step in read_jsonl(results / "metrics.jsonl")]
