"""Losses and optimizers of PyTorch, as a spec has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# A name, as a spec has it; a module or function of torch.nn.
Loss = str | Mapping[str, Any] | nn.Module | Callable[..., Any]
# A name, as a spec has it; an optimizer of torch.optim, or what makes one of parameters.
Optimizer = str | Mapping[str, Any] | torch.optim.Optimizer | Callable[..., torch.optim.Optimizer]

LOSSES = ("cross_entropy", "mse", "bce_with_logits", "model_output")
FUNCTIONS: dict[Any, str] = {functional.cross_entropy: "cross_entropy", functional.mse_loss: "mse",
                             functional.binary_cross_entropy_with_logits: "bce_with_logits"}
OPTIMIZERS: dict[type[torch.optim.Optimizer], tuple[str, tuple[str, ...]]] = {
    torch.optim.SGD: ("sgd", ("lr", "momentum", "weight_decay", "nesterov", "dampening")),
    torch.optim.Adam: ("adam", ("lr", "betas", "eps", "weight_decay")),
    torch.optim.AdamW: ("adamw", ("lr", "betas", "eps", "weight_decay")),
}
# How an optimizer's steps are computed; no other way gives other results.
WAYS = ("foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay")
# What schedulers of the learning rate keep beside it.
NOTES = ("initial_lr", "max_lr", "min_lr")


def loss_spec(loss: Loss) -> dict[str, Any]:
    """ValueError for what the cluster has not got."""
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, and is '{loss}'")
        return {loss: {}}
    if isinstance(loss, Mapping):
        return dict(loss)
    if isinstance(loss, nn.CrossEntropyLoss):
        _refuse_options(loss, reduction="mean", weight=None)
        return {"cross_entropy": {"label_smoothing": loss.label_smoothing, "ignore_index": loss.ignore_index}}
    if isinstance(loss, nn.MSELoss):
        _refuse_options(loss, reduction="mean")
        return {"mse": {}}
    if isinstance(loss, nn.BCEWithLogitsLoss):
        _refuse_options(loss, reduction="mean", weight=None, pos_weight=None)
        return {"bce_with_logits": {}}
    if loss in FUNCTIONS:
        return {FUNCTIONS[loss]: {}}
    name = getattr(loss, "__name__", type(loss).__name__)
    raise ValueError(f"the cluster has no loss {name}, but {', '.join(LOSSES)}; "
                     "another one can be part of the model: return it from forward(), with loss='model_output'")


def _refuse_options(loss: nn.Module, **wanted: Any) -> None:
    for name, value in wanted.items():
        if getattr(loss, name) != value:
            raise ValueError(f"{type(loss).__name__} has another {name} than {value}, which the cluster has not")


def optimizer_spec(optimizer: Optimizer, lr: float | None, model: nn.Module) -> dict[str, Any]:
    """ValueError for what the cluster has not got."""
    if isinstance(optimizer, (str, Mapping)):
        return _named_optimizer(optimizer, lr)
    if lr is not None:
        raise ValueError("lr is for an optimizer that is given by its name")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    made = optimizer if isinstance(optimizer, torch.optim.Optimizer) else optimizer(trained)
    spec = spec_of_groups(made, made.param_groups)
    if made.state:
        raise ValueError("the optimizer has made steps, and the cluster's begins anew")
    if {id(p) for group in made.param_groups for p in group["params"]} != {id(p) for p in trained}:
        raise ValueError("the optimizer must have all parameters of the model that require a gradient, and no others")
    return spec


def spec_of_groups(made: torch.optim.Optimizer, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the optimizer does with some of its groups of parameters. ValueError for what the cluster has not got."""
    name, fields = OPTIMIZERS.get(type(made), ("", ()))
    if not name:
        raise ValueError(f"the cluster has no optimizer {type(made).__name__}, but sgd, adam and adamw")
    options = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    if any(other != options[0] for other in options[1:]):
        raise ValueError("the cluster's optimizers have the same options for all parameters")
    for key, value in options[0].items():
        if key not in fields and key not in WAYS and key not in NOTES and value not in (False, None):
            raise ValueError(f"{type(made).__name__} has {key}={value}, which the cluster's has not")
    if options[0].get("decoupled_weight_decay"):  # As torch calls AdamW.
        name = "adamw"
    return {name: {key: _plain(options[0][key]) for key in fields}}


def _named_optimizer(optimizer: str | Mapping[str, Any], lr: float | None) -> dict[str, Any]:
    names = [name for name, _ in OPTIMIZERS.values()]
    if isinstance(optimizer, str) and optimizer not in names:
        raise ValueError(f"optimizer must be one of {', '.join(names)}, and is '{optimizer}'")
    if isinstance(optimizer, Mapping):
        if lr is not None:
            raise ValueError("lr is for an optimizer that is given by its name")
        return dict(optimizer)
    if lr is None and optimizer == "sgd":
        raise ValueError("sgd needs an lr")
    return {optimizer: {} if lr is None else {"lr": lr}}


def _plain(value: Any) -> Any:
    """Learning rates may be tensors."""
    if isinstance(value, torch.Tensor):
        return value.item()
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value
