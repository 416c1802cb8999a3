"""The oracle: a job spec run by PyTorch, the whole model in one process."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn import functional


class Stash(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name = name


class Pop(nn.Module):
    def __init__(self, name, cat_dim=None):
        super().__init__()
        self.name, self.cat_dim = name, cat_dim


MODULES = {
    "linear": nn.Linear,
    "conv_2d": nn.Conv2d,
    "embedding": nn.Embedding,
    "layer_norm": nn.LayerNorm,
    "batch_norm_1d": nn.BatchNorm1d,
    "batch_norm_2d": nn.BatchNorm2d,
    "dropout": nn.Dropout,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softmax": lambda dim=-1: nn.Softmax(dim=dim),
    "max_pool_2d": nn.MaxPool2d,
    "avg_pool_2d": nn.AvgPool2d,
    "flatten": nn.Flatten,
    "transformer_encoder_layer": lambda **kw: nn.TransformerEncoderLayer(batch_first=True, **kw),
    "stash": Stash,
    "pop_add": lambda name: Pop(name),
    "pop_cat": lambda name, dim=1: Pop(name, dim),
}


def build(spec: dict) -> nn.ModuleList:
    """The layers of a spec, named as in nn.Sequential.state_dict()."""
    layers = []
    for layer in spec["model"]["sequential"]:
        ((kind, arguments),) = layer.items()
        layers.append(MODULES[kind](**(arguments or {})))
    return nn.ModuleList(layers)


def forward(layers: nn.ModuleList, value: torch.Tensor) -> torch.Tensor:
    stashed = {}
    for layer in layers:
        if isinstance(layer, Stash):
            stashed[layer.name] = value
        elif isinstance(layer, Pop):
            other = stashed.pop(layer.name)
            value = value + other if layer.cat_dim is None else torch.cat([value, other], layer.cat_dim)
        else:
            value = layer(value)
    return value


def loss_of(spec: dict, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    ((kind, arguments),) = spec["train"]["loss"].items()
    if kind == "cross_entropy":
        return functional.cross_entropy(output, target, **(arguments or {}))
    # PyTorch's mse_loss goes back through one type only, and bce rounds its sum to a narrow target's type.
    wide = torch.promote_types(output.dtype, target.dtype)
    output, target = output.to(wide), target.to(wide)
    if kind == "mse":
        return functional.mse_loss(output, target)
    return functional.binary_cross_entropy_with_logits(output, target)


def optimizer_of(spec: dict, parameters) -> torch.optim.Optimizer:
    ((kind, arguments),) = spec["train"]["optimizer"].items()
    make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
    return make(parameters, **(arguments or {}))


def learning_rate(spec: dict, step: int, steps: int) -> float:
    ((_, arguments),) = spec["train"]["optimizer"].items()
    base = (arguments or {}).get("lr", 0.001)
    schedule = spec["train"].get("lr_schedule") or {"constant": {}}
    ((kind, options),) = schedule.items()
    if kind == "constant":
        return base
    if kind == "step":
        return base * options.get("gamma", 0.1) ** (step // options["step_size"])
    warmup, final = options["warmup_steps"], options.get("final_lr", 0.0)
    if step < warmup:
        return base * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    if kind == "warmup_cosine":
        return final + (base - final) * (1 + math.cos(math.pi * share)) / 2
    return base + (final - base) * share


def batches(samples: int, batch_size: int, steps: int):
    """Indices of each step's samples, in order, a smaller last batch kept, starting over after an epoch."""
    position = 0
    for _ in range(steps):
        if position >= samples:
            position = 0
        yield slice(position, min(position + batch_size, samples))
        position += batch_size


def micro_batches(batch: int, chunks: int) -> list[int]:
    count = min(batch, chunks)
    return [batch // count + (1 if i < batch % count else 0) for i in range(count)]


def has_batch_norm(spec: dict) -> bool:
    return any(kind.startswith("batch_norm") for layer in spec["model"]["sequential"] for kind in layer)


def optimise(optimizer: torch.optim.Optimizer, losses: Iterable[torch.Tensor], clip: float = 0) -> tuple[list, list]:
    """Takes a step for each loss; `losses` computes the next one of what the last step left. The losses, and with
    `clip`, the largest norm allowed, the norms of the gradients before it."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    values, norms = [], []
    for loss in losses:
        optimizer.zero_grad()
        loss.backward()
        if clip > 0:
            norms.append(nn.utils.clip_grad_norm_(parameters, clip).item())
        optimizer.step()
        values.append(loss.item())
    return values, norms


def train(spec: dict, weights: dict, inputs: torch.Tensor, targets: torch.Tensor, dtype=torch.float32):
    """Losses per step, gradient norms per step, and the final state dict. The mini-batch is run whole, except through
    batch norm, whose statistics in a pipeline are those of each micro-batch."""
    layers = build(spec).to(dtype)
    layers.load_state_dict(weights)
    layers.train()
    options = spec["train"]
    frozen = tuple(options.get("freeze", []))
    for name, parameter in layers.named_parameters():
        parameter.requires_grad_(not (frozen and name.startswith(frozen)))
    trained = [p for p in layers.parameters() if p.requires_grad]
    optimizer = optimizer_of(spec, trained)
    chunks = spec["pipeline"].get("chunks", 1) if has_batch_norm(spec) else 1

    def losses_of_steps() -> Iterator[torch.Tensor]:
        for step, part in enumerate(batches(len(inputs), options["batch_size"], options["steps"])):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(spec, step, options["steps"])
            x, y = inputs[part], targets[part]
            sizes = micro_batches(len(x), chunks)
            yield sum(loss_of(spec, forward(layers, xs), ys) * (len(xs) / len(x))
                      for xs, ys in zip(x.split(sizes), y.split(sizes)))

    losses, norms = optimise(optimizer, losses_of_steps(), options.get("grad_clip_norm") or math.inf)
    return losses, norms, {k: v.detach().clone() for k, v in layers.state_dict().items()}
