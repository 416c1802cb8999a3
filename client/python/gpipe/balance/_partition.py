"""The best cut of a sequence of costs into consecutive blocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

# Of one block, from a layer to before another. Values compare, and join() makes one of two.
Value: TypeAlias = Any
BlockValue: TypeAlias = Callable[[int, int], Value]


def check_partitions(layers: int, partitions: int) -> None:
    if partitions < 1:
        raise ValueError(f"partitions must be a positive integer ({partitions} < 1)")
    if layers < partitions:
        raise ValueError(f"sequence is shorter than intended partitions ({layers} < {partitions})")


def partition(costs: Sequence[int], partitions: int) -> list[int]:
    """Numbers of layers, none of them 0. The largest block is as small as it can be, the others are as even as that
    allows, and where costs do not tell, so are the numbers of layers, the last ones being the smaller.

    In O(partitions * layers^2).
    """
    check_partitions(len(costs), partitions)
    sums = [0, *itertools.accumulate(costs)]
    least, _ = _best_cut(len(costs), partitions, lambda begin, end: sums[end] - sums[begin], max)

    def unevenness(begin: int, end: int) -> tuple[int, ...]:
        cost = sums[end] - sums[begin]
        return (int(cost > least), cost**2, (end - begin)**2)

    return _best_cut(len(costs), partitions, unevenness, _added)[1]


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(sum, zip(one, other)))


def _best_cut(layers: int, blocks: int, value: BlockValue,
              join: Callable[[Value, Value], Value]) -> tuple[Value, list[int]]:
    """The least value that the blocks of a cut can have together, and such a cut."""
    # Of the first `end` layers, in as many blocks as were gone through, and where the last of these begins.
    best = {end: (value(0, end), 0) for end in range(1, layers + 1)}
    rows = [best]
    for done in range(1, blocks):
        best = {end: min(((join(best[begin][0], value(begin, end)), begin) for begin in range(end - 1, done - 1, -1)),
                         key=lambda choice: choice[0])
                for end in range(done + 1, layers + 1)}
        rows.append(best)
    return best[layers][0], _counts(rows, layers)


def _counts(rows: list[dict[int, tuple[Value, int]]], layers: int) -> list[int]:
    counts: list[int] = []
    end = layers
    for row in reversed(rows):
        begin = row[end][1]
        counts.insert(0, end - begin)
        end = begin
    return counts
