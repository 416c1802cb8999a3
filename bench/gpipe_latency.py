#!/usr/bin/env python3
"""Where the time of a pass of gpipe.GPipe goes: a network that computes next to nothing and the example's, in one and in
two partitions, as one and as eight micro-batches, on CPUs and on GPUs; what the program itself takes of it, and what it
waits.

    bench/gpipe_latency.py [--devices cpu cpu cuda:0 cuda:1]     pairs of devices, one after the other
"""

import argparse
import collections
import itertools
import pathlib
import statistics
import sys
import time

import torch
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "client" / "python"))

import gpipe  # noqa: E402
import gpipe_script  # noqa: E402
from gpipe._gpipe import engine, exchange, mirror, rounds  # noqa: E402

PASSES, WARM_UP = 100, 10
PARTS = {"prepare": (engine.Engine, "_prepare"), "changes": (mirror.Mirror, "send"), "put": (exchange.SharedFolder, "put"),
         "ask": (rounds.Rounds, "ask"), "wait": (rounds.Rounds, "wait"), "take": (exchange.SharedFolder, "take")}


class Clock:
    """Adds up what is spent in each of the parts."""

    def __init__(self):
        self.spent: dict[str, list[float]] = collections.defaultdict(list)
        for name, (owner, method) in PARTS.items():
            setattr(owner, method, self._timed(name, getattr(owner, method)))

    def _timed(self, name, call):
        def timed(*args, **options):
            begun = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                self.spent[name].append(1e3 * (time.perf_counter() - begun))
        return timed

    def take(self) -> str:
        text = ", ".join(f"{name} {statistics.median(spent):.2f} ({len(spent) // PASSES})"
                         for name, spent in self.spent.items() if len(spent) >= PASSES)
        self.spent.clear()
        return text


def measure(name: str, clock: Clock, call) -> None:
    for _ in range(WARM_UP):
        call()
    clock.take()
    taken = []
    for _ in range(PASSES):
        begun = time.perf_counter()
        call()
        taken.append(1e3 * (time.perf_counter() - begun))
    print(f"  {name}: {statistics.median(taken):.2f} ms: {clock.take()}", flush=True)


def nothing() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))


NETWORKS = {"nothing": nothing, "example": gpipe_script.network}


def passes(name: str, devices: list[str], parts: int, chunks: int, clock: Clock) -> None:
    torch.manual_seed(0)
    layers = NETWORKS[name]()
    balance = [len(layers)] if parts == 1 else [len(layers) // 2, len(layers) - len(layers) // 2]
    model = gpipe.GPipe(layers, balance=balance, devices=devices[:parts], chunks=chunks)
    x, optimizer = torch.randn(gpipe_script.BATCH, layers[0].in_features), torch.optim.SGD(model.parameters(), lr=0.01)

    def both():
        optimizer.zero_grad()
        model(x).sum().backward()

    def step():
        both()
        optimizer.step()

    print(f"{name}, {' '.join(devices[:parts])}, {chunks} micro-batches")
    with torch.no_grad():
        measure("forward", clock, lambda: model(x))
    measure("forward and backward", clock, both)
    measure("step", clock, step)
    model.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", nargs="+", default=["cpu", "cpu"])
    options = parser.parse_args()
    clock = Clock()
    for pair in zip(options.devices[::2], options.devices[1::2]):
        for name, (parts, chunks) in itertools.product(NETWORKS, ((1, 1), (2, 1), (2, 8))):
            passes(name, list(pair), parts, chunks, clock)


if __name__ == "__main__":
    main()
