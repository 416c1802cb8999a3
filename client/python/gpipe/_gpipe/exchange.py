"""How tensors go to workers and come back: through a folder in memory that all see, or through the orchestrator."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import tempfile
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch

from gpipe import v1
from gpipe._files import FileDelivery, download
from gpipe._gpipe import tensor_file
from gpipe._gpipe.folder import Folder
from gpipe._wire import Wire, run


class Exchange(Protocol):
    """For one job, and for one thread at a time, but for discard(), which any may call."""

    @property
    def folder(self) -> str:
        """What the job's spec says of it (ClientData.exchange)."""

    def put(self, tensors: Mapping[str, torch.Tensor]) -> v1.ArtifactRef:
        """Gives them to the workers."""

    def take(self, ref: v1.ArtifactRef) -> dict[str, torch.Tensor]:
        """What a worker has made. It is this process's own afterwards."""

    def discard(self, refs: Iterable[v1.ArtifactRef]) -> None:
        """Nobody reads them any more."""

    def close(self) -> None:
        """Leaves nothing behind."""


class SharedFolder:
    """Directly below /dev/shm: a tensor is written once, and read where it is."""

    def __init__(self, prefix: pathlib.Path):
        self._folder = Folder(prefix)
        self._numbers = itertools.count()

    @property
    def folder(self) -> str:
        return str(self._folder.path)

    def put(self, tensors: Mapping[str, torch.Tensor]) -> v1.ArtifactRef:
        """The file appears whole."""
        path = self._folder.path / f"client-{next(self._numbers)}.safetensors"
        partial = path.with_suffix(".part")
        try:
            tensor_file.write(partial, tensors)
            os.rename(partial, path)
        except BaseException:  # A full folder, a Ctrl-C.
            partial.unlink(missing_ok=True)
            raise
        status = path.stat()
        return v1.ArtifactRef(shared_path=str(path), size=status.st_size, modified_nanos=status.st_mtime_ns)

    def take(self, ref: v1.ArtifactRef) -> dict[str, torch.Tensor]:
        """The memory is free again when the last of the tensors is."""
        tensors = tensor_file.read(ref.shared_path)
        os.unlink(ref.shared_path)
        return tensors

    def discard(self, refs: Iterable[v1.ArtifactRef]) -> None:
        for ref in refs:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(ref.shared_path)

    def close(self) -> None:
        self._folder.remove()


class Upload:
    """Through the orchestrator, by content."""

    folder = ""

    def __init__(self, wire: Wire):
        self._wire = wire
        self._delivery = FileDelivery(wire, None, None)

    def put(self, tensors: Mapping[str, torch.Tensor]) -> v1.ArtifactRef:
        with tempfile.TemporaryDirectory(prefix="gpipe-") as folder:
            path = pathlib.Path(folder) / "tensors.safetensors"
            tensor_file.write(path, tensors)
            return run(self._delivery.give([path]))[0]

    def take(self, ref: v1.ArtifactRef) -> dict[str, torch.Tensor]:
        with tempfile.NamedTemporaryFile(prefix="gpipe-") as file:
            run(download(self._wire, ref, file))
            file.flush()
            return tensor_file.read(file.name)

    def discard(self, refs: Iterable[v1.ArtifactRef]) -> None:
        """The orchestrator keeps them for as long as the job needs them."""

    def close(self) -> None:
        """Nothing is here."""
