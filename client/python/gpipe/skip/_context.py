"""Where the stashed values of one forward are until they are popped.

Each thread has a context for skippable layers that are called as they are, as in a plain nn.Sequential: a skip passes
from any call to a later one. Where a forward begins and ends is not known there. What a failed one leaves is dropped if
a skippable layer failed, and is replaced by the next forward otherwise, which stashes before it pops. Whoever knows
where a forward begins and ends gives it a context of its own:

    with skip_context():
        output = model(input)

It sees nothing that another forward has left, and leaves nothing, whether it fails or not.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from torch import Tensor

from gpipe.skip._namespace import Key


class SkipContext:
    """What has been stashed and not yet popped."""

    def __init__(self) -> None:
        self.values: dict[Key, Tensor | None] = {}


class _Thread(threading.local):
    def __init__(self) -> None:
        self.context = SkipContext()


_thread = _Thread()


def current_context() -> SkipContext:
    return _thread.context


@contextlib.contextmanager
def skip_context() -> Iterator[SkipContext]:
    """An empty one, for what this thread runs within it."""
    outer, _thread.context = _thread.context, SkipContext()
    try:
        yield _thread.context
    finally:
        _thread.context = outer
