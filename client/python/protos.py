"""Generates the Python of proto/gpipe/v1: messages, with their types.

    python protos.py            # into gpipe/v1, for those who run from a checkout; nothing is done if all is newer

Needs grpcio-tools, mypy-protobuf and googleapis-common-protos.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import pathlib
import shutil
import sysconfig

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = "gpipe/v1"


def sources() -> pathlib.Path:
    """The folder with the protos: in a source distribution beside this file, else the repository's."""
    found = [folder for folder in (HERE / "proto", HERE.parents[1] / "proto") if (folder / PACKAGE).is_dir()]
    if not found:
        raise FileNotFoundError("the folder proto/gpipe/v1 is neither beside this file nor in the repository's root")
    return found[0]


def generate(target: pathlib.Path) -> list[pathlib.Path]:
    """Writes the modules gpipe.v1.*_pb2 below `target`, and returns their files."""
    from grpc_tools import protoc

    protos = sorted((sources() / PACKAGE).glob("*.proto"))
    google = importlib.util.find_spec("google.rpc")
    if google is None or not google.submodule_search_locations:
        raise ModuleNotFoundError("google/rpc/status.proto is in googleapis-common-protos, which is not installed")
    roots = [sources(), importlib.resources.files("grpc_tools") / "_proto",
             *(pathlib.Path(folder).parents[1] for folder in google.submodule_search_locations)]
    target.mkdir(parents=True, exist_ok=True)
    plugin = shutil.which("protoc-gen-mypy") or f"{sysconfig.get_path('scripts')}/protoc-gen-mypy"
    result = protoc.main(["protoc", *(f"-I{root}" for root in roots), f"--plugin=protoc-gen-mypy={plugin}",
                          f"--python_out={target}", f"--mypy_out=quiet:{target}", *map(str, protos)])
    if result != 0:
        raise RuntimeError(f"protoc ended with {result}")
    return sorted((target / PACKAGE).glob("*_pb2.py*"))


def generate_here() -> None:
    """Into the source tree, if a proto has changed since, or this file."""
    inputs = [*(sources() / PACKAGE).glob("*.proto"), pathlib.Path(__file__)]
    outputs = list((HERE / PACKAGE).glob("*_pb2.py*"))
    newest = max(path.stat().st_mtime for path in inputs)
    if not outputs or min(path.stat().st_mtime for path in outputs) < newest:
        generate(HERE)


if __name__ == "__main__":
    generate_here()
