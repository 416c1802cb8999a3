"""Layers that stash and pop. Their forward() is a generator, whose commands are carried out here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from types import GeneratorType
from typing import Any, ClassVar, TypeAlias, TypeVar

from torch import Tensor, nn

from gpipe.skip._context import SkipContext, current_context
from gpipe.skip._namespace import Key, Namespace

TensorOrTensors: TypeAlias = Tensor | tuple[Tensor, ...]
Self = TypeVar("Self", bound="Skippable")


@dataclasses.dataclass(frozen=True, eq=False)
class stash:
    """`yield stash(name, tensor)` keeps a tensor, or None, for the layer that pops the name."""

    name: str
    tensor: Tensor | None = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, eq=False)
class pop:
    """`tensor = yield pop(name)` takes what an earlier layer has stashed."""

    name: str


class Skippable(nn.Module):
    """What skippable() makes of a class: a module with an instance of that class as its submodule `module`."""

    module_cls: ClassVar[type[nn.Module]]
    stashable_names: ClassVar[frozenset[str]]
    poppable_names: ClassVar[frozenset[str]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.module = self.module_cls(*args, **kwargs)
        self.namespaces: dict[str, Namespace] = {}

    def __repr__(self) -> str:
        return f"@skippable({self.module})"

    def isolate(self: Self, ns: Namespace, *, only: Iterable[str] | None = None) -> Self:
        """Moves the skips of this layer, or `only` some, into a namespace. Returns the layer."""
        names = self.stashable_names | self.poppable_names if only is None else _names("only", only)
        self.namespaces.update(dict.fromkeys(names, ns))
        return self

    def stashable(self) -> list[Key]:
        return self._keys(self.stashable_names)

    def poppable(self) -> list[Key]:
        return self._keys(self.poppable_names)

    def forward(self, input: TensorOrTensors) -> TensorOrTensors:
        """RuntimeError where the layer does not do what it has declared."""
        context = current_context()
        try:
            return self._forward(input, context)
        except BaseException:
            # This forward ends here: what it has stashed would be there for the next one.
            context.values.clear()
            raise

    def _keys(self, names: frozenset[str]) -> list[Key]:
        return [(self.namespaces.get(name), name) for name in sorted(names)]

    def _forward(self, input: TensorOrTensors, context: SkipContext) -> TensorOrTensors:
        commands = _Commands(self, self._taken(context))
        output: TensorOrTensors = commands.carry_out(self.module(input))
        commands.check_all_done()
        context.values.update({key: commands.stashed[key[1]] for key in self.stashable()})
        return output

    def _taken(self, context: SkipContext) -> dict[str, Tensor | None]:
        """All that this layer pops: it is there before the layer begins, or the layer does not begin."""
        for key in self.poppable():
            if key not in context.values:
                raise RuntimeError(f"'{key[1]}' has not been stashed")
        return {key[1]: context.values.pop(key) for key in self.poppable()}


class _Commands:
    """Those of one forward of a layer."""

    def __init__(self, layer: Skippable, poppable: dict[str, Tensor | None]):
        self._layer, self._poppable = layer, poppable
        self.stashed: dict[str, Tensor | None] = {}

    def carry_out(self, forward: Any) -> Any:
        """Returns what forward() returns. One that is no generator has no commands, and is that already."""
        if not isinstance(forward, GeneratorType):
            return forward
        answer = None
        while True:
            try:
                command = forward.send(answer)
            except StopIteration as end:  # Its `value` is nothing that an export with strict=True can trace.
                return end.args[0] if end.args else None
            answer = self._carry_out_one(command)

    def _carry_out_one(self, command: Any) -> Tensor | None:
        if isinstance(command, stash):
            self._stash(command.name, command.tensor)
            return None
        if isinstance(command, pop):
            return self._pop(command.name)
        raise TypeError(f"{command!r} is not a command from @skippable")

    def _stash(self, name: str, tensor: Tensor | None) -> None:
        if name not in self._layer.stashable_names:
            raise RuntimeError(f"'{name}' has not been declared as stashable")
        self.stashed[name] = tensor

    def _pop(self, name: str) -> Tensor | None:
        if name not in self._layer.poppable_names:
            raise RuntimeError(f"'{name}' has not been declared as poppable")
        if name not in self._poppable:
            raise RuntimeError(f"'{name}' has already been popped")
        return self._poppable.pop(name)

    def check_all_done(self) -> None:
        if left := [name for name in self._layer.stashable_names if name not in self.stashed]:
            raise RuntimeError(f"{_quoted(left)} must be stashed but have not")
        if self._poppable:
            raise RuntimeError(f"{_quoted(self._poppable)} must be popped but have not")


def skippable(stash: Iterable[str] = (), pop: Iterable[str] = ()) -> Callable[[type[nn.Module]], type[Skippable]]:
    """Decorates a class of modules whose forward() stashes and pops these names, each exactly once."""
    stashable_names, poppable_names = _names("stash", stash), _names("pop", pop)

    def decorate(module_cls: type[nn.Module]) -> type[Skippable]:
        return type(module_cls.__name__, (Skippable,), {
            "__module__": module_cls.__module__, "__qualname__": module_cls.__qualname__, "__doc__": module_cls.__doc__,
            "module_cls": module_cls, "stashable_names": stashable_names, "poppable_names": poppable_names,
        })

    return decorate


def _names(option: str, names: Iterable[str]) -> frozenset[str]:
    """A string is an iterable of strings, too, and never meant to be."""
    if isinstance(names, str):
        raise TypeError(f"{option} must be a list of names, as in {option}=[{names!r}], and not one string")
    return frozenset(names)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))
