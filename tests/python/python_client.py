"""What tests of the Python package share: small jobs, and a link that can be cut."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import threading
from collections.abc import Iterator

import torch
from safetensors.torch import save_file
from torch import nn


def training_spec(name: str, steps: int = 12, **train) -> dict:
    """A layer list on two workers, over data.safetensors (write_data)."""
    return {
        "name": name,
        "model": {"sequential": [{"linear": {"in_features": 8, "out_features": 16}}, "relu",
                                 {"linear": {"in_features": 16, "out_features": 3}}], "init_seed": 1},
        "pipeline": {"balance": [2, 1], "chunks": 2},
        "train": {"dataset": {"path": "data.safetensors"}, "batch_size": 16, "steps": steps,
                  "loss": {"cross_entropy": {}}, "optimizer": {"sgd": {"lr": 0.1}}, **train},
    }


def endless_spec(name: str) -> dict:
    """Runs until somebody ends it; needs no file."""
    spec = training_spec(name, steps=10_000_000)
    spec["train"]["dataset"] = {"random": {"samples": 64, "input_shape": [8], "classes": 3}}
    return spec


def write_data(folder: pathlib.Path) -> pathlib.Path:
    generator = torch.Generator().manual_seed(0)
    data = {"input": torch.randn(48, 8, generator=generator), "target": torch.randint(3, (48,), generator=generator)}
    save_file(data, folder / "data.safetensors")
    return folder


class Net(nn.Module):
    """Two inputs, and no batch statistics: the cluster's steps are PyTorch's."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, ids, scale):
        x = self.embedding(ids).mean(1) * scale[:, None]
        return self.down(torch.relu(self.up(x)))


def net_data(samples: int) -> tuple[torch.Tensor, ...]:
    """ids, scale, target"""
    generator = torch.Generator().manual_seed(2)
    return (torch.randint(10, (samples, 5), generator=generator), torch.rand(samples, generator=generator),
            torch.randint(3, (samples,), generator=generator))


class CutLink:
    """Passes connections on to an address; cut() breaks those that are there."""

    def __init__(self, address: str):
        host, port = address.split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.connections = 0
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        while self._sockets:
            with contextlib.suppress(OSError):
                self._sockets.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, there = self._listener.accept()[0], socket.create_connection(self._target)
                self.connections += 1
                self._sockets += [here, there]
                for source, target in ((here, there), (there, here)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cut_link(address: str) -> Iterator[CutLink]:
    link = CutLink(address)
    try:
        yield link
    finally:
        link.close()
