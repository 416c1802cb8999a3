"""What a model takes and returns, for gpipe.export, in the terms that torch.export.save knows: arguments by name, and
outputs in dicts, tuples and lists. A loaded program then needs none of the classes that the model's outputs are of."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import unittest.mock
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.export.graph_signature import InputKind

from gpipe._export.weights import ExportError

Parameter = inspect.Parameter

LEAVES = (torch.Tensor, bool, int, float, complex, str, type(None), torch.SymInt, torch.SymFloat, torch.SymBool)


@contextlib.contextmanager
def in_plain_terms(model: nn.Module, kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Meanwhile forward() takes by name what is given so, also where it has it from its **kwargs, and a call of the
    model returns plain outputs."""
    signature, original = _signature(model, kwargs), model.forward

    @functools.wraps(original)
    def forward(*args: Any, **given: Any) -> Any:
        return original(*args, **given)

    forward.__signature__ = signature
    # The last of the model's own hooks: they see what forward() returns.
    handle = model.register_forward_hook(lambda _, __, returned: plain(returned))
    try:
        with unittest.mock.patch.object(model, "forward", forward):
            yield
    finally:
        handle.remove()


def _signature(model: nn.Module, kwargs: Mapping[str, Any]) -> inspect.Signature:
    """torch.export does not take apart what is in a **kwargs."""
    signature = inspect.signature(model.forward)
    parameters = [p for p in signature.parameters.values() if p.kind != Parameter.VAR_KEYWORD]
    more = [Parameter(name, Parameter.KEYWORD_ONLY) for name in kwargs if name not in signature.parameters]
    return signature.replace(parameters=[*parameters, *more])


# --- Outputs ---

def plain(value: Any, place: str = "") -> Any:
    """What forward() returns, in dicts by the names of its keys and fields, tuples and lists."""
    if isinstance(value, LEAVES):
        return value
    fields = _fields(value)
    if fields is not None:
        return {name: plain(field, _join(place, name)) for name, field in fields.items()}
    if isinstance(value, (tuple, list)):
        elements = [plain(element, _join(place, number)) for number, element in enumerate(value)]
        return elements if isinstance(value, list) else tuple(elements)
    raise ExportError(f"forward() returns a {type(value).__name__}{f' at {place}' if place else ''}, which "
                      "torch.export does not know; return tensors, or a dict, tuple, list, NamedTuple or dataclass of "
                      "them, without a cache (use_cache=False)")


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """Those of a dict, which the ModelOutput of Hugging Face is, too, of a NamedTuple, of a result of PyTorch's such as
    torch.max's, of a dataclass, and of what is registered with torch.utils._pytree."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value))
    if type(value).__module__ == torch.return_types.__name__:
        return dict(zip(type(value).__match_args__, value))
    registered = pytree.SUPPORTED_NODES.get(type(value))
    if registered is not None and registered.flatten_with_keys_fn is not None:
        children = registered.flatten_with_keys_fn(value)[0]
        return None if isinstance(value, (tuple, list)) else {path_name((key,)): child for key, child in children}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def _join(place: str, name: Any) -> str:
    return f"{place}.{name}" if place else str(name)


def path_name(path: tuple) -> str:
    """Of a leaf, as programs name their outputs."""
    return ".".join(str(next(getattr(key, name) for name in ("key", "idx", "name") if hasattr(key, name)))
                    for key in path)


# --- Inputs ---

def inputs_of(program: torch.export.ExportedProgram) -> list[torch.fx.Node]:
    """One for each leaf of the model's arguments, in their order."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    return [nodes[spec.arg.name] for spec in program.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT]


def refuse_unused(model: nn.Module, args: tuple, kwargs: Mapping[str, Any],
                  programs: Iterable[torch.export.ExportedProgram]) -> None:
    """A tensor that forward() takes among its **kwargs, and that no program uses, has a wrong name, or no use."""
    known = inspect.signature(model.forward).parameters
    used = [[_is_used(node) for node in inputs_of(program)] for program in programs]
    for (path, leaf), *uses in zip(pytree.tree_flatten_with_path((args, dict(kwargs)))[0], *used, strict=True):
        of_kwargs = path[0].idx == 1 and path[1].key not in known
        if of_kwargs and isinstance(leaf, torch.Tensor) and not any(uses):
            raise ExportError(f"nothing uses the input '{path_name(path[1:])}', which {type(model).__name__}.forward() "
                              "takes among its **kwargs; is that its name? What the model does not use is to be left "
                              "out")


def _is_used(node: torch.fx.Node) -> bool:
    """For its values: torch.export takes the batch size from any input."""
    return any(user.target is not torch.ops.aten.sym_size.int for user in node.users)
