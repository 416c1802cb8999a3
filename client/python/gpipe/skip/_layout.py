"""Which layers of a Sequential stash and pop what, as they have declared it. Nothing is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from gpipe.skip._namespace import Key, Namespace
from gpipe.skip._skippable import Skippable


class Skip(NamedTuple):
    """One skip connection. Layers are the children of the outermost Sequential, counted from 0."""

    name: str
    namespace: Namespace | None
    stashed_by: int
    popped_by: int


def verify_skippables(module: nn.Sequential) -> None:
    """Raises a TypeError that names every skip which is not stashed once, and popped once by a later layer."""
    _Layout(module).verify()


def skips_of(module: nn.Sequential) -> list[Skip]:
    """In the order in which they are stashed. Raises as verify_skippables() does."""
    layout = _Layout(module)
    layout.verify()
    return [Skip(name, namespace, index, layout.popped[namespace, name])
            for (namespace, name), index in layout.stashed.items()]


@dataclasses.dataclass
class _Place:
    """Of a skippable layer: the child of the outermost Sequential that it is or is within, and its name."""

    index: int
    name: str
    layer: Skippable


class _Layout:
    def __init__(self, module: nn.Sequential):
        self.stashed: dict[Key, int] = {}
        self.popped: dict[Key, int] = {}
        self._wrong: list[str] = []
        for place in _places(module):
            self._add(place)
        self._wrong += [f"no module declared '{name}' as poppable but stashed"
                        for namespace, name in self.stashed if (namespace, name) not in self.popped]

    def verify(self) -> None:
        if self._wrong:
            lines = "\n".join(f"* {line}" for line in self._wrong)
            raise TypeError(f"one or more pairs of stash and pop do not match:\n\n{lines}")

    def _add(self, place: _Place) -> None:
        both = place.layer.stashable_names & place.layer.poppable_names
        self._wrong += [f"'{place.name}' declared '{name}' both as stashable and as poppable" for name in sorted(both)]
        for key in place.layer.stashable():
            if key[1] not in both:
                self._add_stashed(place, key)
        for key in place.layer.poppable():
            if key[1] not in both:
                self._add_popped(place, key)

    def _add_stashed(self, place: _Place, key: Key) -> None:
        if key in self.stashed:
            self._wrong.append(f"'{place.name}' redeclared '{key[1]}' as stashable but not isolated by namespace")
        else:
            self.stashed[key] = place.index

    def _add_popped(self, place: _Place, key: Key) -> None:
        if key in self.popped:
            self._wrong.append(f"'{place.name}' redeclared '{key[1]}' as poppable but not isolated by namespace")
        elif key not in self.stashed:
            self._wrong.append(f"'{place.name}' declared '{key[1]}' as poppable but it was not stashed")
        else:
            self.popped[key] = place.index


def _places(module: nn.Sequential) -> Iterator[_Place]:
    for index, (name, layer) in enumerate(module._modules.items()):
        for path, found in _skippables(name, layer):
            yield _Place(index, path, found)


def _skippables(path: str, layer: nn.Module | None) -> Iterator[tuple[str, Skippable]]:
    """The layer, or those within it, where it runs them one after the other."""
    if isinstance(layer, Skippable):
        yield path, layer
    elif isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
        for name, child in layer._modules.items():
            yield from _skippables(f"{path}.{name}", child)
