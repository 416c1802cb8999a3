#!/usr/bin/env python3
"""What the machine itself does to K single-threaded processes at once: cores, siblings, limits, and how evenly equal
pieces of work take. Reads the pipeline's bound by: jitter between micro-batches is what a pipeline cannot average away.

    bench/machine_noise.py [--processes 8] [--pin none|core]

With --pairs it shows which logical CPUs share what they compute with: how fast CPU 0 is while another one works, as a
share of its speed alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import common


def work(pieces: int) -> None:
    import torch
    torch.set_num_threads(1)
    a = torch.randn(64, 256)
    layers = [torch.randn(256, 256) for _ in range(96)]
    seconds = []
    for _ in range(pieces):
        begin = time.perf_counter()
        for layer in layers:
            torch.mm(a, layer)
        seconds.append(time.perf_counter() - begin)
    print(json.dumps(seconds))


def speed(cpus: list[int], seconds: float = 0.3) -> float:
    """Products per second on the first of `cpus` while all of them work."""
    import torch
    torch.set_num_threads(1)
    reading, writing = os.pipe()
    for cpu in cpus:
        if os.fork():
            continue
        os.sched_setaffinity(0, {cpu})
        a, b, done = torch.randn(64, 256), torch.randn(256, 256), 0
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            torch.mm(a, b)
            done += 1
        if cpu == cpus[0]:
            os.write(writing, str(done / seconds).encode())
        os._exit(0)
    for _ in cpus:
        os.wait()
    result = float(os.read(reading, 100))
    os.close(reading), os.close(writing)
    return result


def pairs() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    for other in cpus[1:]:
        alone = speed(cpus[:1])
        print(f"CPU {cpus[0]} beside CPU {other}: {speed([cpus[0], other]) / alone:.0%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--pieces", type=int, default=2000)
    parser.add_argument("--pin", choices=["none", "core"], default="none")
    parser.add_argument("--pairs", action="store_true")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.pieces)
    if options.pairs:
        return pairs()
    cores = common.core_list()
    print(f"{len(os.sched_getaffinity(0))} logical CPUs on {len(cores)} physical cores: {cores}")
    running = []
    for i in range(options.processes):
        pin = ["taskset", "-c", str(cores[i % len(cores)])] if options.pin == "core" else []
        running.append(subprocess.Popen([*pin, sys.executable, __file__, "--work", "--pieces", str(options.pieces)],
                                        stdout=subprocess.PIPE, text=True))
    for i, process in enumerate(running):
        seconds = json.loads(process.communicate()[0])[options.pieces // 10:]
        mean, deviation = statistics.mean(seconds), statistics.stdev(seconds)
        ordered = sorted(seconds)
        print(f"process {i}: mean {mean * 1e3:.3f} ms, deviation {deviation / mean:.1%}, median {ordered[len(ordered) // 2] * 1e3:.3f}, "
              f"99% {ordered[len(ordered) * 99 // 100] * 1e3:.3f}, longest {ordered[-1] * 1e3:.3f}")


if __name__ == "__main__":
    main()
