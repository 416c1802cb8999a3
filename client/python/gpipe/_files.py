"""Files by content, on their way to the cluster and back."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from gpipe import _atomic, _methods, errors, v1
from gpipe._hashes import PIECE, HashedFile, HashMemory, default_file
from gpipe._wire import Wire

# `reading train.safetensors`, `sending ...`, `fetching ...`; bytes done, bytes in all.
OnFile = Callable[[str, int, int], None]


class FileDelivery:
    """Gives files to the orchestrator: one of this process's own is told where they are, another one gets what it has
    not got. A file whose hash the user's memory knows is not read for it."""

    def __init__(self, wire: Wire, private_store: pathlib.Path | None, on_file: OnFile | None):
        self._wire, self._store, self._on_file = wire, private_store, on_file
        self._memory = HashMemory(default_file())

    async def give(self, paths: Iterable[pathlib.Path]) -> list[v1.ArtifactRef]:
        """In the order of the paths."""
        try:
            return [await self._give(path) for path in paths]
        finally:
            await self._wire.work(self._memory.save)

    async def _give(self, path: pathlib.Path) -> v1.ArtifactRef:
        file = await self._wire.work(lambda: self._hash(path))
        if self._store is not None:
            refer_to_file(self._store, file, path)
            return file.ref
        try:
            await self._upload(file.ref, path)
        except errors.DataLossError:  # On a file system that does not keep its times the memory is wrong.
            self._memory.forget(path)
            file = await self._wire.work(lambda: self._hash(path))
            await self._upload(file.ref, path)
        return file.ref

    def _hash(self, path: pathlib.Path) -> HashedFile:
        if self._on_file is None:
            return self._memory.hash(path)
        tell = self._on_file
        return self._memory.hash(path, lambda done, total: tell(f"reading {path.name}", done, total))

    async def _upload(self, ref: v1.ArtifactRef, path: pathlib.Path) -> None:
        answer = await self._wire.call(_methods.FIND_MISSING, v1.FindMissingArtifactsRequest(refs=[ref]))
        if answer.missing:
            with open(path, "rb") as file:
                await self._wire.send(_methods.UPLOAD, self._pieces(ref, path.name, file))

    def _pieces(self, ref: v1.ArtifactRef, name: str, file: IO[bytes]) -> Iterator[v1.UploadArtifactRequest]:
        yield v1.UploadArtifactRequest(ref=ref)
        sent = 0
        while piece := file.read(PIECE):
            yield v1.UploadArtifactRequest(data=piece)
            sent += len(piece)
            if self._on_file is not None:
                self._on_file(f"sending {name}", sent, ref.size)


def refer_to_file(store: pathlib.Path, file: HashedFile, path: pathlib.Path) -> None:
    """From now on the content is found at `path`: nothing is copied, and the file must stay as it is for as long as a
    job needs it (common/artifacts/local_store.h)."""
    sha256 = file.ref.sha256
    reference = store / sha256[:2] / f"{sha256}.ref"
    _atomic.write(reference, os.fsencode(f"gpipe reference 1\n{file.stamp} {os.path.abspath(path)}"))


async def download(wire: Wire, ref: v1.ArtifactRef, file: IO[bytes], on_file: OnFile | None = None,
                   name: str = "") -> None:
    """Writes the content into an open file. Raises DataLossError where it is another."""
    digest, done = hashlib.sha256(), 0
    async with contextlib.aclosing(wire.stream(_methods.DOWNLOAD, v1.DownloadArtifactRequest(ref=ref))) as parts:
        async for part in parts:
            digest.update(part.data)
            file.write(part.data)
            done += len(part.data)
            if on_file is not None:
                on_file(f"fetching {name}", done, ref.size)
    if digest.hexdigest() != ref.sha256:
        raise errors.DataLossError(f"the content that arrived for {name or ref.sha256} is not {ref.sha256}",
                                   "DATA_LOSS")


async def download_to(wire: Wire, ref: v1.ArtifactRef, path: pathlib.Path, on_file: OnFile | None = None) -> None:
    """The file appears whole, or not at all."""
    with _atomic.replacing(path) as file:
        await download(wire, ref, file, on_file, path.name)
