#!/usr/bin/env python3
"""The example as a script of torchgpipe's with one import changed: whether it computes what PyTorch does, what a pass
takes, and a training loop of it beside the same training as a job. (Where a pass takes its time: gpipe_latency.py.)

    bench/gpipe_script.py [--devices cpu cpu | cuda:0 cuda:1] [--steps 300]
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time

import torch
from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "client" / "python"))

import gpipe  # noqa: E402

BATCH, CHUNKS, LR = 64, 8, 0.05


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, 10))


def data(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(steps * BATCH, 1024, generator=generator),
            torch.randint(10, (steps * BATCH,), generator=generator))


def milliseconds(call, times: int = 50) -> float:
    """The median; the first calls are not counted."""
    taken = []
    for _ in range(times + 5):
        begun = time.perf_counter()
        call()
        taken.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(taken[5:])


def loss_alone(output: torch.Tensor, y: torch.Tensor) -> None:
    """What the script itself computes of a pass, with all of PyTorch's threads."""
    nn.functional.cross_entropy(output.requires_grad_(), y).backward()


def passes(model: gpipe.GPipe) -> None:
    x, y = data(1)
    plain = network()
    expected = plain(x)
    found = model(x)
    print(f"output: largest difference from PyTorch {(found - expected).abs().max():.2e}")

    def both():
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
    with torch.no_grad():
        forward = milliseconds(lambda: model(x))
    print(f"forward {forward:.2f} ms, forward and backward {milliseconds(both):.2f} ms; "
          f"PyTorch on the CPU: {milliseconds(lambda: nn.functional.cross_entropy(plain(x), y).backward()):.2f} ms, "
          f"the loss alone {milliseconds(lambda: loss_alone(expected.detach(), y)):.2f} ms")


def loop(model: gpipe.GPipe, steps: int) -> tuple[list[float], list[float]]:
    """Its losses, and the seconds of each of the last two thirds of its steps."""
    x, y = data(steps)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    losses, seconds = [], []
    for step in range(steps):
        begun = time.perf_counter()
        rows = slice(step * BATCH, (step + 1) * BATCH)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - begun)
    return losses, seconds[steps // 3:]


def job(devices: list[str], steps: int) -> tuple[list[float], list[float]]:
    """The same as a job."""
    x, y = data(steps)
    with tempfile.TemporaryDirectory() as folder, gpipe.Cluster(len(devices), device=tuple(devices)) as cluster:
        save_file({"x": x, "y": y}, f"{folder}/data.safetensors")
        save_file(network().state_dict(), f"{folder}/weights.safetensors")
        layers = [{"linear": {"in_features": 1024, "out_features": 2048}}, {"relu": {}},
                  {"linear": {"in_features": 2048, "out_features": 1024}}, {"relu": {}},
                  {"linear": {"in_features": 1024, "out_features": 10}}]
        spec = {"name": "script", "model": {"sequential": layers, "weights": f"{folder}/weights.safetensors"},
                "pipeline": {"balance": [2, 3], "chunks": CHUNKS},
                "train": {"dataset": {"path": f"{folder}/data.safetensors", "inputs": ["x"], "target": "y"},
                          "batch_size": BATCH, "steps": steps, "loss": {"cross_entropy": {}},
                          "optimizer": {"sgd": {"lr": LR, "momentum": 0.9}}}}
        submitted = cluster.submit(spec)
        submitted.wait()
        metrics = submitted.metrics()
        return list(metrics.loss), list(metrics.step_seconds[steps // 3:])


def spread(seconds: list[float]) -> str:
    ranked = sorted(seconds)
    return (f"{1e3 * statistics.fmean(seconds):.2f} ms (median {1e3 * statistics.median(seconds):.2f}, "
            f"90 % under {1e3 * ranked[len(ranked) * 9 // 10]:.2f}, longest {1e3 * ranked[-1]:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", nargs=2, default=["cpu", "cpu"])
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    model = gpipe.GPipe(network(), balance=[2, 3], devices=options.devices, chunks=CHUNKS)
    passes(model)
    model.close()
    model = gpipe.GPipe(network(), balance=[2, 3], devices=options.devices, chunks=CHUNKS)
    losses, seconds = loop(model, options.steps)
    trained = {name.split(".", 2)[2]: tensor.clone() for name, tensor in model.state_dict().items()}
    model.close()
    of_job, job_seconds = job(options.devices, options.steps)
    worst = max(abs(a - b) / b for a, b in zip(losses, of_job))
    print(f"a step of the loop {spread(seconds)}, of the job {spread(job_seconds)}: "
          f"{statistics.fmean(job_seconds) / statistics.fmean(seconds):.0%}; "
          f"losses differ by at most {worst:.1e}; {len(trained)} tensors trained")


if __name__ == "__main__":
    main()
