"""Where a model's sessions run, and how one begins: a private cluster of one's own, or a cluster that was given."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gpipe._client import Client
from gpipe._cluster import Cluster
from gpipe._gpipe import embedded
from gpipe._gpipe.exchange import Exchange, SharedFolder, Upload
from gpipe._gpipe.losses import Loss
from gpipe._gpipe.program import FILE, Program
from gpipe._gpipe.session import Session
from gpipe._wire import BlockingWire

@dataclasses.dataclass(frozen=True)
class Settings:
    """What a GPipe was made with."""

    chunks: int
    checkpoint: str
    deferred_batch_norm: bool
    devices: Sequence[torch.device]  # One for each partition.
    device: str  # Of the workers: any, cpu, cuda.
    cluster: Client | str | None
    loss: Loss | None


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a session is for."""

    optimizer: Mapping[str, Any]  # As a spec has it.
    input_gradients: bool
    seed: int


class Launcher:
    """Of one model. Borrows an embedded cluster when a session needs it, until close()."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._client: Client | None = None
        self._owner = os.getpid()
        self._borrows = settings.cluster is None and not os.environ.get("GPIPE_ORCHESTRATOR")

    def launch(self, program: Program, folder: pathlib.Path, like: Sequence[torch.Tensor], wanted: Wanted) -> Session:
        """Submits a job, and waits until it runs. `like` are tensors as its mini-batches have them."""
        client = self._connected()
        exchange = self._exchange(client)
        try:
            job = client.submit(self._spec(program, exchange.folder, like, wanted), folder=folder)
            return Session(_wire(client), job.id, exchange, program.inputs)
        except BaseException:
            exchange.close()
            raise

    def end(self, session: Session) -> None:
        """Of a job that nobody but this process can know there need not be a model."""
        if isinstance(self._client, Cluster):
            session.cancel()
        else:
            session.end()

    def close(self) -> None:
        """All sessions have ended. Not from a process that was forked off; may be called again."""
        client, self._client = self._client, None
        if isinstance(client, Cluster) and self._borrows and os.getpid() == self._owner:
            embedded.give_back(self._settings.devices, client)
            embedded.leave(self)

    def _connected(self) -> Client:
        if self._borrows:
            return self._borrowed()
        if self._client is None:
            given = self._settings.cluster
            self._client = given if isinstance(given, Client) else Client(given)
        return self._client

    def _borrowed(self) -> Cluster:
        """Another one, if one of its processes has ended."""
        client = self._client
        if not isinstance(client, Cluster) or client.failure:
            self.close()
            embedded.enter(self)
            try:
                client = self._client = embedded.borrow(self._settings.devices)
            except BaseException:  # Whoever has none has nothing to give back either.
                embedded.leave(self)
                raise
        return client

    def _exchange(self, client: Client) -> Exchange:
        if isinstance(client, Cluster) and client.shared_memory is not None:
            return SharedFolder(client.shared_memory)  # Whose name is that of all that go with the cluster.
        return Upload(_wire(client))

    def _spec(self, program: Program, exchange: str, like: Sequence[torch.Tensor], wanted: Wanted) -> dict[str, Any]:
        inputs = [{"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape[1:])}
                  for name, tensor in zip(program.inputs, like, strict=True)]
        settings = self._settings
        return {
            "name": "gpipe", "max_restarts": 0, "model": {"exported": {"path": FILE}},
            "pipeline": {"split": list(program.split), "workers": len(program.split) + 1, "chunks": settings.chunks,
                         "checkpoint": settings.checkpoint, "deferred_batch_norm": settings.deferred_batch_norm,
                         "device": settings.device},
            "train": {"dataset": {"client": {"inputs": inputs, "input_gradients": wanted.input_gradients,
                                             "exchange": exchange}},
                      "batch_size": like[0].shape[0], "optimizer": wanted.optimizer, "seed": wanted.seed}}


def _wire(client: Client) -> BlockingWire:
    return typing.cast(BlockingWire, client._operations.wire)
