"""Losses that workers compute, so that outputs stay where they are.

A loss is any function of outputs and targets. Of each micro-batch comes back what it returns, sample by sample: a
tensor that has the samples first as it is, and of a number its parts. Such a number is a mean or a sum over elements,
by a loss of torch.nn.functional (those of torch.nn call it) or by mean() or sum(). It is taken apart where that is
called: into the sums of each sample's elements, and for a mean what it is divided by. Sums over the whole mini-batch
give the number.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gpipe._gpipe.partitions import check_input

MEANS: frozenset[Any] = frozenset([torch.mean, torch.Tensor.mean])
SUMS: frozenset[Any] = frozenset([torch.sum, torch.Tensor.sum])
# Whose mean is over the targets' classes, by their weights.
OF_CLASSES: frozenset[Any] = frozenset([functional.cross_entropy, functional.nll_loss])
# Whose mean is over all elements,
OF_ELEMENTS: frozenset[Any] = frozenset([
    functional.binary_cross_entropy, functional.binary_cross_entropy_with_logits, functional.cosine_embedding_loss,
    functional.gaussian_nll_loss, functional.hinge_embedding_loss, functional.huber_loss, functional.kl_div,
    functional.l1_loss, functional.margin_ranking_loss, functional.mse_loss, functional.multi_margin_loss,
    functional.multilabel_margin_loss, functional.multilabel_soft_margin_loss, functional.poisson_nll_loss,
    functional.smooth_l1_loss, functional.soft_margin_loss, functional.triplet_margin_loss,
    functional.triplet_margin_with_distance_loss])
# but not if these have weights.
UNWEIGHTED: frozenset[Any] = frozenset([functional.huber_loss, functional.l1_loss, functional.mse_loss])

NO_PARTS = ("the loss returns a single number, and workers cannot tell what of it each sample has. Workers can return "
            "a mean or a sum as a loss of torch.nn or torch.nn.functional, mean() or sum() gives it; a tensor whose "
            "first dimension is the samples; or a tuple of such, for what is computed of them to be computed here")

USED = ("the loss computes with a mean or a sum over all samples, which workers have of a micro-batch only; return it, "
        "in a tuple with others, for that to be computed here")


class Kind(enum.Enum):
    """What comes back of a tensor that a loss returns."""

    ELEMENTS = "elements"  # The tensor.
    SUM = "sum"  # A number for each sample,
    MEAN = "mean"  # or two: its numerator and its denominator.


@dataclasses.dataclass(frozen=True)
class Composition:
    """How what a loss returns is put together."""

    kinds: tuple[Kind, ...]
    is_tuple: bool

    def join(self, parts: Sequence[torch.Tensor]) -> Any:
        """Of a whole mini-batch's. There may be more parts, which are nothing."""
        joined = tuple(_join(kind, part) for kind, part in zip(self.kinds, parts, strict=False))
        return joined if self.is_tuple else joined[0]


class Loss:
    """As it is when it is given: what is changed in a module afterwards is not seen."""

    def __init__(self, compute: Callable[..., Any]):
        if not callable(compute):
            raise TypeError(f"loss must be a module or function of outputs and targets, not a {type(compute).__name__}")
        self.module = _own_copy(compute) if isinstance(compute, nn.Module) else None
        self._compute = compute if self.module is None else self.module

    def __call__(self, output: Any, target: Any) -> Any:
        """In this process."""
        return self._compute(output, target)

    def parts(self, output: Any, target: Any) -> tuple[list[torch.Tensor], Composition]:
        """What workers make. ValueError where it has no parts."""
        with _Reductions(pytree.tree_leaves(target)[0].shape[0]) as reductions:
            returned = self._compute(output, target)
        is_tuple = isinstance(returned, (tuple, list))
        check_input(tuple(returned) if is_tuple else returned)
        found = [reductions.part_of(tensor) for tensor in (returned if is_tuple else (returned,))]
        return [part for _, part in found], Composition(tuple(kind for kind, _ in found), is_tuple)

    def check(self, output: Any, target: Any) -> Composition:
        """Of some samples. ValueError if the loss of all is not what is put together of one's and the others'."""
        expected = self._compute(output, target)
        parts, composition = self.parts(output, target)
        try:
            pieces = [self.parts(*_rows(rows, output, target)) for rows in (slice(0, 1), slice(1, None))]
        except Exception as error:
            raise ValueError(f"the loss cannot be computed of some of the samples: {error}") from error
        found = composition.join([torch.cat(both) for both in zip(*(parts for parts, _ in pieces), strict=True)])
        if any(other != composition for _, other in pieces) or not _alike(found, expected):
            raise ValueError("the loss of a mini-batch must be made of its samples', each by itself: of "
                             f"{len(parts[0])} samples it is {_text(expected)}, and {_text(found)} where the first one "
                             "and the others are computed apart")
        return composition


class LossLayer(nn.Module):
    """The loss' parts, in a program."""

    def __init__(self, loss: Loss):
        super().__init__()
        self._loss = loss
        self.module = loss.module  # Its constants are the program's.

    def forward(self, output: Any, target: Any) -> tuple[torch.Tensor, ...]:
        """One or more tensors, which have the samples first."""
        return tuple(self._loss.parts(output, target)[0])


def _own_copy(module: nn.Module) -> nn.Module:
    if any(True for _ in module.parameters()):
        raise ValueError(f"the loss, a {type(module).__name__}, has parameters, which would be no partition's: make "
                         "what they are for a part of the model")
    own = copy.deepcopy(module).cpu()
    for each in own.modules():
        each._non_persistent_buffers_set.update(each._buffers)  # They are not the model's, which the job stores.
    return own


# --- Where numbers are taken apart ---

class _Reductions(TorchFunctionMode):
    """Notes what the numbers are made of that are computed meanwhile."""

    def __init__(self, samples: int):
        super().__init__()
        self._samples = samples
        self._found: dict[int, tuple[torch.Tensor, Kind, torch.Tensor]] = {}  # By the number's id.

    def part_of(self, tensor: torch.Tensor) -> tuple[Kind, torch.Tensor]:
        """What comes back of a tensor that the loss returns."""
        if id(tensor) in self._found:
            return self._found[id(tensor)][1:]
        if tensor.dim() == 0:
            raise ValueError(NO_PARTS)
        if not statically_known_true(tensor.shape[0] == self._samples):
            raise ValueError(f"the loss returns a tensor of {tuple(tensor.shape)}, whose first dimension is not the "
                             f"{self._samples} samples")
        return Kind.ELEMENTS, tensor

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._refuse_use(args, kwargs)
        terms = _terms(function, args, kwargs or {})
        if terms is None or not self._has_samples(terms.elements):
            return function(*args, **(kwargs or {}))
        kind, part = self._part(terms)
        number = _join(kind, part).to(terms.elements.dtype if terms.elements.is_floating_point() else part.dtype)
        self._found[id(number)] = (number, kind, part)
        return number

    def _refuse_use(self, *arguments: Any) -> None:
        """Of what would be a micro-batch's instead of the mini-batch's. Only while a program is made: with samples of
        a certain number others may look like theirs, such as as many classes."""
        uses = any(id(value) in self._found for value in pytree.tree_leaves(arguments))
        if uses and not isinstance(self._samples, int):
            raise ValueError(USED)

    def _has_samples(self, elements: torch.Tensor) -> bool:
        return elements.dim() > 0 and statically_known_true(elements.shape[0] % self._samples == 0)

    def _part(self, terms: _Terms) -> tuple[Kind, torch.Tensor]:
        elements = terms.elements.reshape(self._samples, -1)
        numerators = elements.sum(1, dtype=_sum_dtype(elements.dtype))
        if terms.kind is Kind.SUM:
            return Kind.SUM, numerators
        if terms.weights is None:
            denominators = torch.full_like(numerators, elements.shape[1])
        else:
            denominators = terms.weights.reshape(self._samples, -1).sum(1, dtype=numerators.dtype)
        return Kind.MEAN, torch.stack([numerators, denominators], 1)


@dataclasses.dataclass(frozen=True)
class _Terms:
    """What a number is the sum of, or the mean."""

    kind: Kind
    elements: torch.Tensor
    weights: torch.Tensor | None = None  # Of a mean; None: 1 for each element.


def _terms(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Terms | None:
    """None: it is no mean or sum over all elements."""
    if function in MEANS or function in SUMS:
        if len(args) != 1 or kwargs:
            return None
        return _Terms(Kind.MEAN if function in MEANS else Kind.SUM, args[0])
    if function not in OF_CLASSES and function not in OF_ELEMENTS:
        return None
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return _terms_of_loss(function, bound.arguments)


def _terms_of_loss(function: Any, arguments: dict[str, Any]) -> _Terms | None:
    reduction = arguments["reduction"]
    old = any(arguments.get(name) is not None for name in ("size_average", "reduce"))
    if reduction not in ("mean", "sum", "batchmean") or old or (function in UNWEIGHTED and _has_weights(arguments)):
        return None
    elements = function(**{**arguments, "reduction": "none"})
    if reduction == "sum":
        return _Terms(Kind.SUM, elements)
    if reduction == "batchmean":  # Of kl_div.
        return _Terms(Kind.MEAN, elements, elements.new_ones(elements.shape[:1]))
    return _Terms(Kind.MEAN, elements, _class_weights(arguments) if function in OF_CLASSES else None)


def _has_weights(arguments: Mapping[str, Any]) -> bool:
    return arguments.get("weight") is not None


def _class_weights(arguments: Mapping[str, Any]) -> torch.Tensor | None:
    target, weight = arguments["target"], arguments["weight"]
    if target.is_floating_point():  # Probabilities of the classes.
        return None
    counts = target != arguments["ignore_index"]
    weights: torch.Tensor = counts if weight is None else weight[torch.where(counts, target, 0)] * counts
    return weights


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """Exact enough to count in."""
    if not dtype.is_floating_point:
        return torch.int64
    return dtype if dtype.itemsize >= torch.float32.itemsize else torch.float32


def _join(kind: Kind, part: torch.Tensor) -> torch.Tensor:
    if kind is Kind.MEAN:
        return part[:, 0].sum() / part.detach()[:, 1].sum()
    return part.sum() if kind is Kind.SUM else part


# --- Whether the parts are right ---

def _rows(rows: slice, *values: Any) -> Any:
    return pytree.tree_map(lambda tensor: tensor[rows], values)


def _alike(found: Any, expected: Any) -> bool:
    pairs = list(zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True))
    return all(one.shape == other.shape and _close(one, other) for one, other in pairs)


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    if not expected.is_floating_point():
        return torch.equal(found, expected.to(found.dtype))
    tolerance = max(1e-2, 4 * torch.finfo(expected.dtype).eps)
    return torch.allclose(found.to(expected.dtype), expected, rtol=tolerance, atol=1e-6, equal_nan=True)


def _text(value: Any) -> str:
    numbers = [f"{tensor.item():.6g}" if tensor.dim() == 0 else f"a tensor of {tuple(tensor.shape)}"
               for tensor in pytree.tree_leaves(value)]
    return " and ".join(numbers)
