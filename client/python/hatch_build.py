"""What hatchling asks while it builds the package: the version, and the Python of the protos."""

from __future__ import annotations

import pathlib
import re
import sys
import tempfile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import protos  # noqa: E402


class CustomMetadataHook(MetadataHookInterface):
    """The package has the version of the programs; a source distribution remembers it in its PKG-INFO."""

    def update(self, metadata: dict[str, Any]) -> None:
        metadata["version"] = self._version()

    @staticmethod
    def _version() -> str:
        for path, pattern in ((HERE.parents[1] / "CMakeLists.txt", r"^project\(gpipe VERSION ([0-9.]+)"),
                              (HERE / "PKG-INFO", r"^Version: (\S+)")):
            found = re.search(pattern, path.read_text(), re.MULTILINE) if path.exists() else None
            if found:
                return found[1]
        raise FileNotFoundError("the version is neither in the repository's CMakeLists.txt nor in PKG-INFO")


class CustomBuildHook(BuildHookInterface[Any]):
    """A wheel has what is generated from the protos, a source distribution the protos."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name == "sdist":
            build_data["force_include"][str(protos.sources())] = "proto"
        elif version == "editable":
            protos.generate_here()
        else:
            self._generated = tempfile.TemporaryDirectory(prefix="gpipe-protos")
            target = pathlib.Path(self._generated.name)
            for path in protos.generate(target):
                build_data["force_include"][str(path)] = str(path.relative_to(target))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_generated"):
            self._generated.cleanup()
