#!/usr/bin/env python3
"""Start-up and control plane: `gpipe --help`, the idle orchestrator's memory, 1000 submissions by 8 clients.

    bench/orchestrator.py
"""

import pathlib
import statistics
import subprocess
import tempfile
import time

import common


def help_milliseconds() -> float:
    def once() -> float:
        begin = time.perf_counter()
        subprocess.run([common.BIN / "gpipe", "--help"], check=True, capture_output=True)
        return (time.perf_counter() - begin) * 1000

    return statistics.median(once() for _ in range(21))


def resident_mebibytes(pid: int) -> float:
    status = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024


def main():
    print(f"machine: {common.machine()}")
    print(f"gpipe --help: {help_milliseconds():.1f} ms, median of 21")
    with tempfile.TemporaryDirectory() as folder:
        cluster = common.Cluster(pathlib.Path(folder))
        try:
            print(f"idle orchestrator: {resident_mebibytes(cluster.orchestrator.pid):.1f} MiB resident")
            subprocess.run([common.BIN / "submit_rate", cluster.address, "1000", "8"], check=True)
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
