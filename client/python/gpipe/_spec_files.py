"""The files that a spec names, as the client library of C++ finds them (client/api/submission.cc, data_paths.cc)."""

from __future__ import annotations

import glob
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from gpipe import errors, v1
from gpipe._spec import SpecFile

SHARED = "shared:"  # Marks a path that every worker sees: it is not sent.
WEIGHTS = "model.weights"
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
MANIFEST = "manifest.json"


class NamedFile(NamedTuple):
    """A file by the field that names it, and as the spec writes it."""

    field: str
    path: str


class Paths(Protocol):
    """A repeated field of texts."""

    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> str: ...


class FileList(NamedTuple):
    """A data set's list of files."""

    field: str
    paths: Paths
    tokens: bool


def fields_of_files(spec: v1.JobSpec) -> set[str]:
    """Of those that are to be sent; lists are named as such."""
    return {list_of(named.field) for named in _named(spec)}


def list_of(field: str) -> str:
    """`train.dataset.path` of `train.dataset.path[2]`."""
    return re.sub(r"\[\d+\]$", "", field)


def prepare(file: SpecFile) -> list[NamedFile]:
    """Puts files in the place of patterns, and of a folder of weights, and returns all that are to be sent, each once.
    InvalidSpecError, by field, for those that are not there."""
    _expand_patterns(file)
    _find_weights_in_folder(file)
    _check_readable(file, _named(file.spec))
    files = [*_named(file.spec), *_token_indices(file), *_shards(file)]
    _check_readable(file, files)
    return sorted({named.path: named for named in reversed(files)}.values(), key=lambda named: named.path)


def path_of(file: SpecFile, path: str) -> pathlib.Path:
    """Paths are relative to the spec file."""
    return file.folder / path


def _refuse(file: SpecFile, violations: Sequence[errors.FieldViolation]) -> None:
    if violations:
        raise file.explained(errors.invalid_spec(violations))


def _is_shared(path: str) -> bool:
    return path.startswith(SHARED)


def _data_files(spec: v1.JobSpec) -> list[FileList]:
    """Those that are not empty, to read or to change."""
    lists = []
    if spec.HasField("train"):
        datasets = [("train.dataset", spec.train.dataset)]
        if spec.train.HasField("evaluate"):
            datasets.append(("train.evaluate.dataset", spec.train.evaluate.dataset))
        for field, dataset in datasets:
            lists += [FileList(f"{field}.path", dataset.path, False),
                      FileList(f"{field}.tokens.path", dataset.tokens.path, True)]
    if spec.HasField("infer"):
        lists.append(FileList("infer.inputs", spec.infer.inputs, False))
    return [each for each in lists if each.paths]


def _named(spec: v1.JobSpec) -> list[NamedFile]:
    files = [NamedFile("model.exported.path", spec.model.exported.path), NamedFile(WEIGHTS, spec.model.weights)]
    for each in _data_files(spec):
        # A single one may have been written as no list.
        files += [NamedFile(each.field if len(each.paths) == 1 else f"{each.field}[{i}]", path)
                  for i, path in enumerate(each.paths)]
    return [named for named in files if named.path and not _is_shared(named.path)]


def _expand_patterns(file: SpecFile) -> None:
    violations = []
    for each in _data_files(file.spec):
        expanded: list[str] = []
        for path in each.paths:
            matches = [path] if _is_shared(path) else _expand(file.folder, path)
            if not matches:
                violations.append(errors.FieldViolation(each.field, f"no file matches {file.folder / path}"))
            expanded += matches
        each.paths[:] = expanded  # type: ignore[index]
    _refuse(file, violations)


def _expand(folder: pathlib.Path, path: str) -> list[str]:
    """Itself, or those that match, sorted byte by byte, as the path would name them."""
    if not any(letter in path for letter in "*?[") or (folder / path).exists():
        return [path]
    prefix = "" if os.path.isabs(path) or str(folder) == "." else f"{folder}/"
    return sorted((match[len(prefix):] for match in glob.glob(glob.escape(prefix) + path)), key=os.fsencode)


def _find_weights_in_folder(file: SpecFile) -> None:
    """Weights may be given as the folder that Hugging Face's save_pretrained() writes."""
    folder = path_of(file, file.spec.model.weights)
    if not file.spec.model.weights or not folder.is_dir():
        return
    name = next((name for name in (INDEX, SINGLE) if (folder / name).exists()), None)
    if name is None:
        _refuse(file, [errors.FieldViolation(WEIGHTS, f"the folder {folder} has neither {INDEX} nor {SINGLE}")])
    file.spec.model.weights = os.path.normpath(f"{file.spec.model.weights}/{name}")


def _check_readable(file: SpecFile, files: Sequence[NamedFile]) -> None:
    problems = [(named.field, _why_unreadable(path_of(file, named.path))) for named in files]
    _refuse(file, [errors.FieldViolation(field, problem) for field, problem in problems if problem])


def _why_unreadable(path: pathlib.Path) -> str:
    if not path.exists():
        return f"there is no file {path}"
    return "" if path.is_file() else f"{path} is not a file"


def _token_indices(file: SpecFile) -> list[NamedFile]:
    """Megatron's, which lie beside files of tokens."""
    indices = [NamedFile(each.field, f"{path.removesuffix('.bin')}.idx") for each in _data_files(file.spec)
               if each.tokens for path in each.paths if not _is_shared(path)]
    return [named for named in indices if path_of(file, named.path).exists()]


def _shards(file: SpecFile) -> list[NamedFile]:
    """Those that an index of weights names."""
    weights = file.spec.model.weights
    if not weights.endswith(".json") or _is_shared(weights):
        return []
    path = path_of(file, weights)
    try:
        table = json.loads(path.read_bytes())["weight_map"]
        shards = sorted({str(shard) for shard in table.values()})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise file.explained(errors.invalid_spec([errors.FieldViolation(
            WEIGHTS, f"{path}: not a good index of safetensors files: {error}")])) from None
    for shard in shards:
        if not _stays_inside(shard):
            _refuse(file, [errors.FieldViolation(WEIGHTS, f"{path}: '{shard}' is no file beside the index")])
    return [NamedFile(WEIGHTS, os.path.normpath(os.path.join(os.path.dirname(weights), shard))) for shard in shards]


def _stays_inside(path: str) -> bool:
    return bool(path) and not os.path.isabs(path) and ".." not in pathlib.PurePath(path).parts


# --- Checkpoints ---

def newest_checkpoint(folder: pathlib.Path) -> pathlib.Path:
    """The folder itself if it is a checkpoint, else the one with the highest step in its `checkpoints`, of the job that
    its job.json tells of. One without a manifest is torn, and does not count. ValueError when there is none."""
    if (folder / MANIFEST).exists():
        return folder
    whole = {int(path.name): path for path in (folder / "checkpoints").glob("*")
             if path.name.isdecimal() and (path / MANIFEST).exists()}
    if not whole:
        raise ValueError(f"no whole checkpoint in {folder}")
    own = whole.keys() & _steps_of_job(folder)
    return whole[max(own or whole)]


def _steps_of_job(folder: pathlib.Path) -> set[int]:
    """An earlier job may have left other checkpoints in the folder."""
    try:
        results = json.loads((folder / "job.json").read_bytes()).get("results", [])
        parts = [pathlib.PurePath(result["path"]).parts for result in results]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()
    return {int(path[1]) for path in parts if len(path) == 3 and path[0] == "checkpoints" and path[1].isdecimal()}


def files_of_checkpoint(folder: pathlib.Path) -> list[str]:
    """What its manifest says it has, beside itself. ValueError: it is none."""
    path = folder / MANIFEST
    try:
        names = list(json.loads(path.read_bytes())["files"])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path}: is no checkpoint's manifest: it names no files") from error
    for name in names:
        if os.path.basename(name) != name:
            raise ValueError(f"{path}: names '{name}', which is no file beside it")
    return names
