#!/usr/bin/env python3
"""How the orchestrator grows, by simulated workers (bench/crowd.cc): with the workers that are connected, the workers and
micro-batches of a job, and the jobs in its history. Each table measures against its number.

    bench/orchestrator_scale.py [workers] [stages] [micro-batches] [history] [crowded]

Fails when something that is measured grows by more than twice as much as the number does, over the whole table. The last
table is of 1000 workers and a history of 10,000 jobs together: how long what is asked often takes, and that fails when
the 99th percentile is over 50 ms.
"""

import argparse
import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import common
from api import Api
from orchestrator import resident_mebibytes

# Noise, and what does not grow, counts for less than this.
FLOOR = {"MiB": 4.0, "ms": 2.0}


def times_of(call, runs: int) -> list[float]:
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


class Crowd:
    """An orchestrator and so many simulated workers."""

    def __init__(self, folder: pathlib.Path, workers: int):
        self.cluster = common.Cluster(folder, lease_millis=10000)
        self.idle_mebibytes = self.mebibytes()
        self.process = subprocess.Popen([*common.program("crowd"), self.cluster.address, str(workers)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.join_seconds = self.answer()["join_seconds"]

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the simulated workers have failed")
        return json.loads(line)

    def do(self, *words) -> dict:
        print(*words, file=self.process.stdin, flush=True)
        return self.answer()

    def mebibytes(self) -> float:
        return resident_mebibytes(self.cluster.orchestrator.pid)

    def cpu_share(self, seconds: float = 5.0) -> float:
        """Of one core."""
        def ticks() -> int:
            fields = pathlib.Path(f"/proc/{self.cluster.orchestrator.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])
        before, begin = ticks(), time.monotonic()
        time.sleep(seconds)
        return (ticks() - before) / 100 / (time.monotonic() - begin)

    def all_seconds(self, *arguments, runs: int) -> list[float]:
        """Of the CLI, start included."""
        return times_of(lambda: common.gpipe(*arguments, address=self.cluster.address), runs)

    def seconds(self, *arguments, runs: int = 5) -> float:
        return statistics.median(self.all_seconds(*arguments, runs=runs))

    def stop(self):
        self.process.stdin.close()
        self.process.wait()
        self.cluster.stop()


@contextlib.contextmanager
def crowd(workers: int):
    with tempfile.TemporaryDirectory() as folder:
        one = Crowd(pathlib.Path(folder), workers)
        try:
            yield one
        finally:
            one.stop()


def connected(workers: int) -> dict:
    with crowd(workers) as one:
        return {"workers": workers, "joined ms": 1000 * one.join_seconds, "MiB": one.mebibytes() - one.idle_mebibytes,
                "CPU of a core": one.cpu_share(), "worker list ms": 1000 * one.seconds("worker", "list"),
                "place ms": 1000 * statistics.median(one.do("job", 4, 8, 1, 1)["place_seconds"] for _ in range(5))}


def placed(stages: int, micro_batches: int) -> dict:
    with crowd(stages) as one:
        before = one.mebibytes()
        job = one.do("job", stages, micro_batches, 1, 200)
        result = {"stages": stages, "micro-batches": micro_batches, "place ms": 1000 * job["place_seconds"],
                  "grant ms": 1000 * job["grant_seconds"], "largest assignment MiB": job["largest_assignment"] / 2**20,
                  "all assignments MiB": job["assigned_bytes"] / 2**20, "MiB": one.mebibytes() - before}
        folder = one.cluster.folder
        result["plan ms"] = 1000 * one.seconds("plan", common.write_spec(folder, spec(stages, micro_batches)), runs=1)
        return result


def spec(stages: int, micro_batches: int) -> dict:
    linear = {"linear": {"in_features": 8, "out_features": 8}}
    return {"name": "crowd", "model": {"sequential": [dict(linear) for _ in range(stages)]},
            "pipeline": {"balance": [1] * stages, "chunks": micro_batches},
            "train": {"dataset": {"random": {"samples": micro_batches, "input_shape": [8], "classes": 8}},
                      "batch_size": micro_batches, "steps": 10, "loss": {"cross_entropy": {}},
                      "optimizer": {"sgd": {"lr": 0.1}}}}


def history(jobs: list[int]) -> list[dict]:
    results, done = [], 0
    with crowd(0) as one:
        for count in jobs:
            one.do("history", count - done)
            done = count
            results.append({"jobs": count, "MiB": one.mebibytes() - one.idle_mebibytes,
                            "job list ms": 1000 * one.seconds("job", "list"),
                            "job list --state queued ms": 1000 * one.seconds("job", "list", "--state", "queued"),
                            "job list --limit 0 ms": 1000 * one.seconds("job", "list", "--limit", "0", runs=3)})
    return results


def crowded(workers: int, jobs: int) -> list[dict]:
    """A grant: from one clock cycle of all stages to the next, of a job in lock-step."""
    with crowd(workers) as one:
        api = Api(one.cluster.address)
        one.do("history", jobs)
        results = [percentiles("job list, by the CLI", one.all_seconds("job", "list", runs=300)),
                   percentiles("ListJobs of 100, of 16 layers each", times_of(lambda: api.ListJobs(page_size=100), 500)),
                   percentiles("worker list, by the CLI", one.all_seconds("worker", "list", runs=100))]
        for stages, micro_batches in ((4, 8), (16, 32), (64, 64)):
            placed = [one.do("job", stages, micro_batches, 1, 1)["place_seconds"] for _ in range(150)]
            results.append(percentiles(f"placing {stages} stages, {micro_batches} micro-batches", placed))
            job = one.do("job", stages, micro_batches, 1, 2000)
            results.append({"what": f"a grant to {stages} stages", "times": 2000, "median ms": 1000 * job["grant_seconds"],
                            "99% ms": 1000 * job["grant_seconds_99"]})
        print(f"{workers} workers, {jobs} jobs: the orchestrator has {one.mebibytes():.0f} MiB, {one.idle_mebibytes:.0f} when it "
              f"began, and uses {100 * one.cpu_share():.1f}% of a core for heartbeats\n")
    return results


def percentiles(what: str, seconds: list[float]) -> dict:
    return {"what": what, "times": len(seconds), "median ms": 1000 * statistics.median(seconds),
            "99% ms": 1000 * sorted(seconds)[len(seconds) * 99 // 100]}


def show_table(results: list[dict]):
    print("| " + " | ".join(results[0]) + " |\n|" + "---:|" * len(results[0]))
    for result in results:
        print("| " + " | ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in result.values()) + " |")
    print(flush=True)


def show_crowded(results: list[dict]) -> list[str]:
    show_table(results)
    return [f"{result['what']} takes {result['99% ms']:.1f} ms" for result in results if result["99% ms"] > 50]


def show(results: list[dict], number: str) -> list[str]:
    """Prints the table; returns what grew too fast."""
    show_table(results)
    first, last = results[0], results[-1]
    allowed = 2 * last[number] / first[number]
    return [f"{name} grows faster than linearly: {first[name]:.2f} to {last[name]:.2f}, with {number} {first[number]} to "
            f"{last[number]}"
            for name in first if isinstance(first[name], float)
            and last[name] > allowed * max(first[name], FLOOR.get(name.split()[-1], 0.0))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help="workers, stages, micro-batches, history, crowded; all when none is named")
    tables = parser.parse_args().tables or ["workers", "stages", "micro-batches", "history", "crowded"]
    print(f"machine: {common.machine()}\n")
    bad = []
    if "workers" in tables:
        bad += show([connected(count) for count in (125, 250, 500, 1000)], "workers")
    if "stages" in tables:
        bad += show([placed(stages, 1024) for stages in (8, 16, 32, 64)], "stages")
    if "micro-batches" in tables:
        bad += show([placed(64, count) for count in (128, 256, 512, 1024)], "micro-batches")
    if "history" in tables:
        bad += show(history([1250, 2500, 5000, 10000]), "jobs")
    if "crowded" in tables:
        bad += show_crowded(crowded(1000, 10000))
    if bad:
        sys.exit("; ".join(bad))


if __name__ == "__main__":
    main()
