#!/usr/bin/env python3
"""What mTLS costs: the same files sent, and the same steps made, on two clusters of which one has certificates, in turn.

    bench/tls.py [--runs 5] [--mebibytes 512] [--steps 60]
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import statistics
import subprocess
import tempfile
import time

import common
from watchers import processor_seconds


def flags(folder: pathlib.Path, name: str) -> list:
    return ["--tls-ca", folder / "ca.crt", "--tls-cert", folder / f"{name}.crt", "--tls-key", folder / f"{name}.key"]


class Side:
    """A cluster of two workers and how to call it."""

    def __init__(self, folder: pathlib.Path, certificates: pathlib.Path | None):
        self.of = (lambda name: flags(certificates, name)) if certificates else (lambda name: [])
        self.cluster = common.Cluster(folder, lease_millis=10000, arguments=self.of("orchestrator"))
        self.seconds_per_gigabyte: list[float] = []
        for index in range(2):
            self.cluster.start_worker(f"worker-{index}", arguments=self.of("worker"))

    def call(self, *command) -> str:
        return common.gpipe(*self.of("client"), *command, address=self.cluster.address, timeout=900).stdout

    def wait_idle(self) -> None:
        common.wait_until(lambda: len([worker for worker in json.loads(self.call("worker", "list", "-o", "json"))
                                       .get("workers", []) if worker["state"] == "STATE_IDLE"]) == 2, 60, "idle workers")

    def processors(self) -> float:
        """Seconds that the orchestrator and all calls have computed."""
        calls = resource.getrusage(resource.RUSAGE_CHILDREN)
        return processor_seconds(self.cluster.orchestrator.pid) + calls.ru_utime + calls.ru_stime

    def upload_rate(self, folder: pathlib.Path, mebibytes: int) -> float:
        """Bytes per second of a submission: its file is hashed, sent, hashed there and synced."""
        begin, computed = time.monotonic(), self.processors()
        self.call("job", "submit", folder / "upload.yaml")
        rate = (mebibytes << 20) / (time.monotonic() - begin)
        self.seconds_per_gigabyte.append((self.processors() - computed) / (mebibytes << 20) * 1e9)
        return rate

    def step_seconds(self, folder: pathlib.Path, steps: int) -> float:
        self.wait_idle()
        job = self.call("job", "submit", folder / "steps.yaml").strip()
        self.call("job", "wait", job)
        self.call("job", "pull", job, "--output", folder / job)
        return common.step_seconds(folder, job, skip=steps // 10)


def write_upload(folder: pathlib.Path, mebibytes: int) -> None:
    """A new file each time."""
    import torch
    from safetensors.torch import save_file
    save_file({"input": torch.frombuffer(bytearray(os.urandom(mebibytes << 20)), dtype=torch.float32).reshape(-1, 1024)},
              folder / "upload.safetensors")
    common.write_spec(folder, {
        "name": "upload", "model": {"sequential": [{"relu": {}}]}, "pipeline": {"balance": [1], "device": "cuda"},
        "infer": {"inputs": ["upload.safetensors"], "batch_size": 1024}})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mebibytes", type=int, default=512)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    print(f"machine: {common.machine()}", flush=True)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        subprocess.run([common.ROOT / "deploy" / "certs.sh", folder / "certs"], check=True, stdout=subprocess.DEVNULL)
        sides = {"plain": Side(folder / "plain", None), "mTLS": Side(folder / "tls", folder / "certs")}
        for side in sides.values():
            stack.callback(side.cluster.stop)
        common.write_transformer_data(folder)
        common.write_spec(folder, common.transformer_spec("steps", 4, 2, chunks=8, steps=options.steps))
        measured = {name: ([], []) for name in sides}
        for turn in range(options.runs):
            write_upload(folder, options.mebibytes)
            for name, side in list(sides.items())[::1 if turn % 2 else -1]:
                os.sync()
                measured[name][0].append(side.upload_rate(folder, options.mebibytes))
                measured[name][1].append(side.step_seconds(folder, options.steps))
            print("  ".join(f"{name}: {rates[-1] / 1e9:.2f} GB/s, {steps[-1] * 1e3:.1f} ms"
                            for name, (rates, steps) in measured.items()), flush=True)
    print("of processors an upload takes", ", ".join(f"{statistics.median(side.seconds_per_gigabyte):.2f} s a GB ({name})"
                                                     for name, side in sides.items()))
    for what, index in (("a step", 1), ("an upload's rate", 0)):
        ratios = [tls / plain for plain, tls in zip(measured["plain"][index], measured["mTLS"][index])]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"of {what}: {middle - 1:+.1%}, median of {len(ratios)} pairs, quartiles {low - 1:+.1%} and {high - 1:+.1%}")


if __name__ == "__main__":
    main()
