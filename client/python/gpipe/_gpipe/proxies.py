"""Tensors of which workers have the originals: parameters, buffers and gradients.

Such a tensor is a copy, and looks like any other one: it is of the class that it always was, for isinstance. Where
something is done with its values and the workers' are newer, they are fetched before (`Owner.refresh`), all tensors at
once; nothing is fetched that nobody looks at. What is written to it is noticed, and is the owner's to send. What cannot
be noticed is a write through an alias with a version counter of its own, such as `.data` or a NumPy array: whoever
takes one is taken to write at once.
"""

from __future__ import annotations

import copy
import enum
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn

from gpipe import errors

Function: TypeAlias = Callable[..., Any]

# What is done with a tensor, and not with its values.
DESCRIBING: frozenset[Any] = frozenset(
    [getattr(torch.Tensor, name) for name in (
        "__len__", "contiguous", "dim", "element_size", "get_device", "is_complex", "is_contiguous",
        "is_floating_point", "is_shared", "is_signed", "ndimension", "nelement", "numel", "register_hook",
        "register_post_accumulate_grad_hook", "requires_grad_", "retain_grad", "size", "storage_offset", "stride")]
    + [getattr(torch.Tensor, name).__get__ for name in (
        "_backward_hooks", "_base", "_version", "device", "dtype", "grad_fn", "is_cpu", "is_cuda", "is_leaf",
        "is_meta", "is_mkldnn", "is_quantized", "is_sparse", "is_sparse_csr", "itemsize", "layout", "name", "names",
        "nbytes", "ndim", "output_nr", "requires_grad", "retains_grad", "shape")]
    + [torch.Tensor.requires_grad.__set__, torch._has_compatible_shallow_copy_type])  # type: ignore[attr-defined]
# What gives an alias, through which values can be written unnoticed.
ALIASING: frozenset[Any] = frozenset(
    [getattr(torch.Tensor, name) for name in (
        "__array__", "__cuda_array_interface__", "__dlpack__", "data_ptr", "numpy", "share_memory_", "storage",
        "untyped_storage", "_typed_storage", "_storage") if hasattr(torch.Tensor, name)]
    + [torch.Tensor.data.__get__, torch.Tensor.data.__set__])  # type: ignore[attr-defined]


# As autograd knows it, whatever a parameter's class says.
_GRADIENT: Any = torch.Tensor.grad


class Kind(enum.Enum):
    """What a tensor is a copy of."""

    VALUE = "value"  # A parameter or a buffer.
    GRADIENT = "gradient"


class Owner(Protocol):
    """Who fetches and sends."""

    def refresh(self, kind: Kind) -> None:
        """Brings all copies of a kind up to date."""

    def gradient(self, parameter: MirroredParameter) -> torch.Tensor | None:
        """What the parameter's .grad is."""

    def set_gradient(self, parameter: MirroredParameter, gradient: torch.Tensor | None) -> None:
        """The other way."""


class Copy:
    """What is known of a copy."""

    def __init__(self, name: str, kind: Kind, owner: Owner):
        self.name, self.kind = name, kind
        self.is_stale = False  # The workers have newer values.
        self._owner = weakref.ref(owner)
        self._version = -1  # Of the tensor when the workers had the same values; -1: they have not got these.

    @property
    def owner(self) -> Owner | None:
        """None: nobody has the model any more."""
        return self._owner()

    def prepare(self, aliased: bool) -> None:
        """Something is to be done with the values."""
        if self.is_stale:
            if (owner := self.owner) is None:
                raise errors.Error(f"the newest {self.kind.value} of '{self.name}' was on workers, and the model whose "
                                   "workers they were is gone; its close() would have fetched it")
            owner.refresh(self.kind)
        if self.is_stale:
            raise errors.Error(f"the {self.kind.value} of '{self.name}' was lost with the workers that had it")
        if aliased:
            self._version = -1

    def is_written(self, version: int) -> bool:
        """Whether these values are newer than those of the workers."""
        return not self.is_stale and self._version != version

    def set_equal(self, version: int) -> None:
        """The workers have the same."""
        self.is_stale, self._version = False, version

    def set_written(self) -> None:
        """The workers have not got these values."""
        self.is_stale, self._version = False, -1


class Mirrored(torch.Tensor):
    """A buffer or a gradient."""

    gpipe_copy: Copy

    @classmethod
    def __torch_function__(cls, function: Function, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function not in DESCRIBING:
            for tensor in _mirrored((args, kwargs)):
                tensor.gpipe_copy.prepare(function in ALIASING)
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))

    def as_other(self) -> torch.Tensor:
        """With the same memory, and no copy of the workers' tensor."""
        return self.detach()

    def __repr__(self, **options: Any) -> str:  # type: ignore[override]
        return repr(self.as_other())

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        copied = memo[id(self)] = copy.deepcopy(self.as_other())
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_other().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]


class MirroredParameter(Mirrored, nn.Parameter):
    """A parameter, whose gradient is on the workers, too."""

    @property
    def grad(self) -> torch.Tensor | None:
        """There is one from a backward pass on; its values are fetched when they are looked at."""
        owner = self.gpipe_copy.owner
        return own_gradient(self) if owner is None else owner.gradient(self)

    @grad.setter
    def grad(self, gradient: torch.Tensor | None) -> None:
        owner = self.gpipe_copy.owner
        if owner is None:
            set_own_gradient(self, gradient)
        else:
            owner.set_gradient(self, gradient)

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

    def as_other(self) -> torch.Tensor:
        return nn.Parameter(self.detach(), self.requires_grad)


def _mirrored(values: Any) -> Iterator[Mirrored]:
    """Among the arguments of an operator."""
    if isinstance(values, Mirrored):
        if hasattr(values, "gpipe_copy"):
            yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _mirrored(value)
    elif isinstance(values, dict):
        yield from _mirrored(list(values.values()))


# --- For owners, and without their being asked ---

def mirror(tensor: torch.Tensor, name: str, kind: Kind, owner: Owner) -> None:
    """From now on the tensor is a copy, which the workers have not got yet. One of another owner is taken from it as it
    is now."""
    if type(tensor) not in (nn.Parameter, torch.Tensor, MirroredParameter, Mirrored):
        raise TypeError(f"'{name}' is a {type(tensor).__name__}, which workers have not: only torch.Tensor and "
                        "nn.Parameter")
    if isinstance(tensor, Mirrored):
        tensor.gpipe_copy.prepare(aliased=False)
    as_mirrored(tensor, Copy(name, kind, owner))


def copy_of(tensor: torch.Tensor) -> Copy:
    """REQUIRES: it is one."""
    known: Copy = tensor.gpipe_copy  # type: ignore[attr-defined]
    return known


def as_plain(tensor: torch.Tensor) -> Copy:
    """It is a tensor like others. Returns what was known of the copy."""
    known = copy_of(tensor)
    del tensor.gpipe_copy  # type: ignore[attr-defined]
    tensor.__class__ = nn.Parameter if isinstance(tensor, nn.Parameter) else torch.Tensor
    return known


def as_mirrored(tensor: torch.Tensor, known: Copy) -> None:
    """The other way."""
    tensor.__class__ = MirroredParameter if isinstance(tensor, nn.Parameter) else Mirrored
    tensor.gpipe_copy = known  # type: ignore[attr-defined]


def alias(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor like others with the same memory, without a look at whose values are newer."""
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.detach()


def fill(tensor: torch.Tensor, values: torch.Tensor | None) -> None:
    """With what workers have; without them a gradient is zero, and a value stays."""
    with torch._C.DisableTorchFunctionSubclass():
        if values is not None:
            tensor.data.copy_(values)  # Through `.data`, as autograd would take it for a write of this process.
        elif copy_of(tensor).kind is Kind.GRADIENT:
            tensor.data.zero_()
    note(tensor, equal=True)


def note(tensor: torch.Tensor, equal: bool) -> None:
    """Whether the workers have the same values, or have still to get these."""
    with torch._C.DisableTorchFunctionSubclass():
        copy_of(tensor).set_equal(tensor._version) if equal else copy_of(tensor).set_written()


def is_written(tensor: torch.Tensor) -> bool:
    """Whether these values are newer than those of the workers."""
    with torch._C.DisableTorchFunctionSubclass():
        return copy_of(tensor).is_written(tensor._version)


def own_gradient(parameter: torch.Tensor) -> torch.Tensor | None:
    """What autograd in this process has left, of a loss that has the parameter itself in it."""
    with torch._C.DisableTorchFunctionSubclass():
        gradient: torch.Tensor | None = _GRADIENT.__get__(parameter)
        return gradient


def set_own_gradient(parameter: torch.Tensor, gradient: torch.Tensor | None) -> None:
    """As if it had."""
    with torch._C.DisableTorchFunctionSubclass():
        _GRADIENT.__set__(parameter, gradient)
