"""Temporary folders of one process."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
import weakref


class Folder:
    """For this user alone. Goes with the object and with the process, but not with one that was forked off."""

    def __init__(self, prefix: pathlib.Path | None = None):
        """Its name begins with the prefix; by default it is where temporary files are."""
        prefix = prefix or pathlib.Path(tempfile.gettempdir(), "gpipe-model-")
        self.path = pathlib.Path(tempfile.mkdtemp(prefix=prefix.name, dir=prefix.parent))
        self._end = weakref.finalize(self, _remove, self.path, os.getpid())

    def remove(self) -> None:
        """Now. May be called again."""
        self._end()


def _remove(path: pathlib.Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
