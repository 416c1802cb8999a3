#!/usr/bin/env python3
"""How long a cluster takes to describe exported programs of growing size, to plan them for many stages, and how much
memory its programs need for it at most. A program of n operators is n/2 times `tanh(x + w)`, each w a parameter.

`validate` is a whole command on a warm cluster: reading and sending the file, the description on a worker and its
checks; `described` is the same without reading and sending, by a second spec of the same model; `planned` is one for
64 workers with given stages, forecast included.

    bench/inspection.py [--operators 1000 2000 4000 8000 20000] [--stages 64]
"""

import argparse
import pathlib
import tempfile
import time

import torch
from safetensors.torch import save_file
from torch import nn

import common
from exported_load import resident
from exported_models import export

WIDTH = 8


class Chain(nn.Module):
    def __init__(self, operators: int):
        super().__init__()
        self.biases = nn.ParameterList([nn.Parameter(torch.randn(WIDTH)) for _ in range(operators // 2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for bias in self.biases:
            x = torch.tanh(x + bias)
        return x


def write_program(folder: pathlib.Path, operators: int) -> None:
    export(Chain(operators), (torch.randn(2, WIDTH),), folder / f"chain{operators}.pt2")


def spec_of(operators: int, batch: int, **pipeline) -> dict:
    """Another batch size is another model to look at for the cluster, and the same file for its store."""
    return {"name": f"chain{operators}-{batch}", "model": {"exported": {"path": f"chain{operators}.pt2"}},
            "pipeline": pipeline,
            "train": {"dataset": {"path": "data.safetensors", "inputs": ["x"], "target": "y"}, "batch_size": batch,
                      "steps": 1, "loss": {"mse": {}}, "optimizer": {"sgd": {"lr": 0.1}}}}


def seconds(command: str, cluster: common.Cluster, folder: pathlib.Path, spec: dict, *arguments: str) -> float:
    path = common.write_spec(folder, spec)
    begin = time.perf_counter()
    common.gpipe(command, path, *arguments, address=cluster.address)
    return time.perf_counter() - begin


def measure(folder: pathlib.Path, operators: int, stages: int) -> None:
    begin = time.perf_counter()
    write_program(folder, operators)
    exported = time.perf_counter() - begin
    with common.running_cluster(folder / f"run{operators}", 1) as cluster:
        idle = resident(cluster.workers["w0"].pid)["now"]
        first = seconds("validate", cluster, folder, spec_of(operators, 8, workers=2))
        freezing = spec_of(operators, 8, workers=2)
        freezing["train"]["freeze"] = ["biases.0"]
        described = seconds("validate", cluster, folder, freezing)
        balance = common.even_balance(operators, stages)
        planned = seconds("plan", cluster, folder, spec_of(operators, 8, balance=balance), "--workers", str(stages))
        worker = resident(cluster.workers["w0"].pid)["peak"] - idle
        orchestrator = resident(cluster.orchestrator.pid)["peak"]
    size = (folder / f"chain{operators}.pt2").stat().st_size
    print(f"{operators:6} operators, {size / 2 ** 20:5.1f} MiB, exported in {exported:5.1f} s: validate {first:5.2f} s, "
          f"described {described:5.2f} s, {stages} stages planned {planned:5.2f} s, worker +{worker / 2 ** 20:.0f} MiB, "
          f"orchestrator {orchestrator / 2 ** 20:.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operators", type=int, nargs="+", default=[1000, 2000, 4000, 8000, 20000])
    parser.add_argument("--stages", type=int, default=64)
    options = parser.parse_args()
    print(common.machine())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        save_file({"x": torch.randn(64, WIDTH), "y": torch.randn(64, WIDTH)}, folder / "data.safetensors")
        for operators in options.operators:
            measure(folder, operators, options.stages)


if __name__ == "__main__":
    main()
