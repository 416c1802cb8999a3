"""Clusters of this process's own, for models that are given none. Each model has one to itself for as long as it is
there; with the last model all of them go, and with the process."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from gpipe._cluster import Cluster

Key = tuple[str, ...]  # A worker's device each.


class _Pool:
    """Without a lock, as models end at any time, also within any of this; single operations on lists are safe."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.users: list[object] = []
        self.idle: list[tuple[Key, Cluster]] = []


_pool = _Pool()


def enter(user: object) -> None:
    """Somebody who may borrow."""
    _pool_here().users.append(user)


def leave(user: object) -> None:
    """Not any more."""
    pool = _pool_here()
    if user in pool.users:
        pool.users.remove(user)
    while not pool.users and pool.idle:
        pool.idle.pop()[1].close()


def borrow(devices: Sequence[torch.device]) -> Cluster:
    """One worker on each device; waits until they have been started."""
    key, pool = tuple(map(str, devices)), _pool_here()
    for entry in reversed(pool.idle):  # The last one is warm.
        if entry[0] == key:
            pool.idle.remove(entry)
            if not entry[1].failure:
                return entry[1]
            entry[1].close()
    return Cluster(len(devices), device=key)


def give_back(devices: Sequence[torch.device], cluster: Cluster) -> None:
    """For the next one, if all of its processes are there."""
    if cluster.failure:
        cluster.close()
    else:
        _pool_here().idle.append((tuple(map(str, devices)), cluster))


def _pool_here() -> _Pool:
    """A process that was forked off has none of its parent's."""
    global _pool
    if _pool.owner != os.getpid():
        _pool = _Pool()
    return _pool
