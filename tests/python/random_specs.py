#!/usr/bin/env python3
"""Random specs trained on a cluster and in PyTorch: prints the largest relative difference of final parameters.

    random_specs.py [--count 20] [--seed 0] [--device cpu|cuda] [--workers 4]

The difference of a parameter is its largest absolute difference over its largest absolute value. Beside it stands how
far PyTorch's float32 run is from its own float64 run: what rounding alone does to the spec.
"""

import argparse
import pathlib
import random
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

import reference
from cluster import Cluster, write_spec


def random_layers(rng: random.Random, features: int, classes: int) -> list[dict]:
    layers, width, stashed = [], features, None
    for index in range(rng.randint(3, 9)):
        choice = rng.choice(["linear", "act", "norm", "batch_norm", "stash", "pop"])
        if choice == "linear" and stashed is None:
            out = rng.choice([8, 16, 24])
            layers.append({"linear": {"in_features": width, "out_features": out, "bias": rng.random() < 0.8}})
            width = out
        elif choice == "norm":
            layers.append({"layer_norm": {"normalized_shape": [width]}})
        elif choice == "batch_norm":
            layers.append({"batch_norm_1d": {"num_features": width}})
        elif choice == "stash" and stashed is None:
            stashed = f"s{index}"
            layers.append({"stash": {"name": stashed}})
        elif choice == "pop" and stashed is not None:
            layers.append({"pop_add": {"name": stashed}})
            stashed = None
        else:
            layers.append({rng.choice(["gelu", "tanh", "sigmoid"]): {}})
    if stashed is not None:
        layers.append({"pop_add": {"name": stashed}})
    layers.append({"linear": {"in_features": width, "out_features": classes}})
    return layers


def random_cut(rng: random.Random, layers: int, stages: int) -> list[int]:
    cuts = sorted(rng.sample(range(1, layers), stages - 1))
    return [b - a for a, b in zip([0, *cuts], [*cuts, layers])]


def random_spec(rng: random.Random, number: int, workers: int, device: str) -> dict:
    layers = random_layers(rng, 10, 6)
    stages = rng.randint(1, min(workers + 1, len(layers)))
    loss = rng.choice([{"cross_entropy": {"label_smoothing": rng.choice([0.0, 0.1])}}, {"mse": {}}])
    # Batch norm over two or three samples amplifies rounding without bound; its micro-batches have eight or more.
    batch_norm = any("batch_norm_1d" in layer for layer in layers)
    # It also takes out any shift before it: the gradient of a bias there is rounding, which Adam makes full steps of.
    sgd = {"sgd": {"lr": 0.05, "momentum": 0.9}}
    optimizer = sgd if batch_norm else rng.choice([sgd, {"adam": {"lr": 0.003, "eps": 1e-4}},
                            {"adamw": {"lr": 0.003, "eps": 1e-4, "weight_decay": 0.05}}])
    return {
        "name": f"random{number}",
        "model": {"sequential": layers, "weights": "init.safetensors"},
        "pipeline": {"balance": random_cut(rng, len(layers), stages), "chunks": rng.choice([1, 2, 3, 4] if batch_norm else [1, 2, 3, 5, 8]),
                     "checkpoint": rng.choice(["always", "except_last", "never"]), "device": device,
                     "workers": min(stages, workers)},
        "train": {"dataset": {"path": "data.safetensors", "inputs": ["x"], "target": "y"}, "batch_size": 32,
                  "steps": rng.randint(3, 12), "loss": loss, "optimizer": optimizer,
                  "grad_clip_norm": rng.choice([0.0, 0.5])},
    }


def difference(actual: dict, expected: dict) -> float:
    return max(((actual[name].double() - tensor.double()).abs().max() / tensor.abs().max().clamp(min=1e-3)).item()
               for name, tensor in expected.items() if tensor.is_floating_point())


def differences(cluster: Cluster, folder: pathlib.Path, spec: dict, seed: int) -> tuple[float, float]:
    """Of the cluster against PyTorch, and of PyTorch's float32 against its float64."""
    torch.manual_seed(seed)
    inputs = torch.randn(64, 10)
    classes = "cross_entropy" in spec["train"]["loss"]
    targets = torch.randint(0, 6, (64,)) if classes else torch.randn(64, 6)
    weights = reference.build(spec).state_dict()
    save_file(weights, folder / "init.safetensors")
    save_file({"x": inputs, "y": targets}, folder / "data.safetensors")
    out = cluster.run(write_spec(folder, spec), folder / "out")
    trained = load_file(out / "model.safetensors")
    _, _, single = reference.train(spec, weights, inputs, targets)
    _, _, exact = reference.train(spec, weights, inputs.double(), targets if classes else targets.double(),
                                  dtype=torch.float64)
    return difference(trained, single), difference(single, exact)


def run(count: int, seed: int, workers: int, device: str) -> float:
    rng = random.Random(seed)
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        cluster = Cluster(pathlib.Path(name) / "cluster")
        try:
            for index in range(workers):
                cluster.start_worker(f"w{index}", "cpu" if device == "cpu" else "cuda:0")
            cluster.wait_idle(workers)
            for number in range(count):
                spec = random_spec(rng, number, workers, device)
                folder = pathlib.Path(name) / str(number)
                folder.mkdir()
                ours, rounding = differences(cluster, folder, spec, seed + number)
                worst = max(worst, ours)
                print(f"{number:3}  {ours:.2e}  (float32 against float64: {rounding:.2e})  layers {len(spec['model']['sequential'])} "
                      f"balance {spec['pipeline']['balance']} chunks {spec['pipeline']['chunks']} "
                      f"{spec['pipeline']['checkpoint']}", flush=True)
        finally:
            cluster.stop()
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    worst = run(options.count, options.seed, options.workers, options.device)
    print(f"largest relative difference of final parameters: {worst:.2e}")
    sys.exit(0 if worst < 1e-4 else 1)


if __name__ == "__main__":
    main()
