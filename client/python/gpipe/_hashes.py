"""The SHA-256 of files that were read before, so that a file is hashed once. The program `gpipe` keeps the same memory
in the same place (common/artifacts/hash_memory.h)."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import time
from collections.abc import Callable

from gpipe import _atomic, v1

FIRST_LINE = "gpipe hashes 1"
MOST_ENTRIES = 10_000
# A use is noted once in so many seconds, so that a run that learns nothing writes nothing.
USE_SECONDS = 24 * 3600
# The coarsest clock of a file system in use.
COARSEST_TICK_NANOS = 2 * 10**9
PIECE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Stamp:
    """What the system keeps about a file beside its content. While all of it stays the same, so does the content."""

    size: int
    modified_nanos: int
    changed_nanos: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Of an open file, or one that is there."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def is_recent(self) -> bool:
        """Changed so shortly ago that a change right after would not show."""
        return max(self.modified_nanos, self.changed_nanos) + COARSEST_TICK_NANOS > time.time_ns()

    def __str__(self) -> str:
        return f"{self.size} {self.modified_nanos} {self.changed_nanos} {self.inode}"


@dataclasses.dataclass(frozen=True)
class HashedFile:
    """A file's content by hash and size, and the stamp that the file had while it was found."""

    ref: v1.ArtifactRef
    stamp: Stamp


@dataclasses.dataclass
class _Entry:
    stamp: Stamp
    sha256: str
    used: int  # Unix seconds.


def default_file() -> pathlib.Path | None:
    """`$XDG_CACHE_HOME/gpipe/hashes`, or under ~/.cache. None when the user has neither."""
    cache, home = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("HOME", "")
    if cache.startswith("/"):  # A relative path there is none.
        return pathlib.Path(cache) / "gpipe" / "hashes"
    return pathlib.Path(home) / ".cache" / "gpipe" / "hashes" if home.startswith("/") else None


class HashMemory:
    """Good only for the stamp that a file had when it was read. A damaged file of the memory has less to say, which
    costs reading again; of two programs that save at once one is heard."""

    def __init__(self, file: pathlib.Path | None):
        self._file = file
        self._entries: dict[str, _Entry] = {}  # By absolute path.
        self._changed = False
        if file is not None:
            with contextlib.suppress(OSError):
                self._load(os.fsdecode(file.read_bytes()))

    def hash(self, path: pathlib.Path, on_read: Callable[[int, int], None] = lambda done, total: None) -> HashedFile:
        """Reads the file from its beginning to its end, if it is not known. OSError names it; also where it changed
        meanwhile."""
        with open(path, "rb") as file:
            stamp = Stamp.of(os.fstat(file.fileno()))
            known = self._entries.get(os.path.abspath(path))
            if known is not None and known.stamp == stamp:
                self._use(known)
                return HashedFile(v1.ArtifactRef(sha256=known.sha256, size=stamp.size), stamp)
            digest = hashlib.sha256()
            while piece := file.read(PIECE):
                digest.update(piece)
                on_read(file.tell(), stamp.size)
            if Stamp.of(os.fstat(file.fileno())) != stamp:
                raise OSError(f"{path} was changed while it was read")
        self._remember(path, stamp, digest.hexdigest())
        return HashedFile(v1.ArtifactRef(sha256=digest.hexdigest(), size=stamp.size), stamp)

    def forget(self, path: pathlib.Path) -> None:
        """The file system does not keep its times."""
        self._changed |= self._entries.pop(os.path.abspath(path), None) is not None

    def save(self) -> None:
        """A failure only costs reading again."""
        if not self._changed or self._file is None:
            return
        self._changed = False
        newest = sorted(self._entries.items(), key=lambda item: item[1].used)[-MOST_ENTRIES:]
        lines = [f"{entry.sha256} {entry.stamp} {entry.used} {path}\n" for path, entry in sorted(newest)]
        with contextlib.suppress(OSError):
            _atomic.write(self._file, os.fsencode(f"{FIRST_LINE}\n{''.join(lines)}"))

    def _use(self, entry: _Entry) -> None:
        now = int(time.time())
        if now - entry.used > USE_SECONDS:
            entry.used = now
            self._changed = True

    def _remember(self, path: pathlib.Path, stamp: Stamp, sha256: str) -> None:
        key = os.path.abspath(path)
        if "\n" not in key and not stamp.is_recent():
            self._entries[key] = _Entry(stamp, sha256, int(time.time()))
            self._changed = True

    def _load(self, text: str) -> None:
        first, *lines = text.split("\n")
        if first != FIRST_LINE:
            return
        for line in lines:
            found = re.fullmatch(r"([0-9a-f]{64}) (-?\d+) (-?\d+) (-?\d+) (\d+) (-?\d+) (/.*)", line)
            if found:
                size, modified, changed, inode = map(int, found.group(2, 3, 4, 5))
                self._entries[found[7]] = _Entry(Stamp(size, modified, changed, inode), found[1], int(found[6]))

