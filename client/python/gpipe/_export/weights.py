"""Models without their weights, for gpipe.export: those whose parameters are on PyTorch's meta device, where a tensor
has a shape and a type, and takes no memory.

An archive says of a tensor whose values are elsewhere that it is on the meta device. Its record is empty, and there is
one for each storage, so that tied parameters are known; torch.export.load gives it as a tensor on the meta device.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import struct
import unittest.mock
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.weak import WeakTensorKeyDictionary

CONFIG = "data/weights/model_weights_config.json"
RECORD = "external_"  # common/exported/tensor_table.h
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
FLOATING = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
TYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
         torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
         torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64", torch.float8_e4m3fn: "F8_E4M3",
         torch.float8_e5m2: "F8_E5M2", torch.complex64: "C64"}


class ExportError(RuntimeError):
    """The model cannot be exported, or what was exported does not compute the same. Says where."""


@contextlib.contextmanager
def empty_weights() -> Iterator[None]:
    """Parameters of modules made inside are on the meta device, whatever their size:

        with gpipe.empty_weights():
            model = AutoModel.from_config(config)

    Buffers keep their values: a program needs those that no file of weights has.
    """
    register, replaced = nn.Module.register_parameter, WeakTensorKeyDictionary()

    def register_without_memory(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            if parameter not in replaced:  # One that is registered twice is tied.
                empty = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
                replaced[parameter] = empty
            parameter = replaced[parameter]
        register(module, name, parameter)

    with unittest.mock.patch.object(nn.Module, "register_parameter", register_without_memory):
        yield


def left_out(model: nn.Module, weights: bool | str | os.PathLike) -> set[str]:
    """Names in the state_dict() whose values do not go into the archive."""
    state = model.state_dict(keep_vars=True)
    return {name for name, tensor in state.items() if tensor.is_meta or weights is not True}


# --- The export ---

@contextlib.contextmanager
def as_fakes(model: nn.Module) -> Iterator[FakeTensorMode | None]:
    """What is on the meta device is meanwhile a fake on the CPU: a program has all its tensors on one device."""
    tables = [(module, table) for module in model.modules() for table in (module._parameters, module._buffers)]
    empty = [(table, name, tensor) for _, table in tables for name, tensor in table.items()
             if tensor is not None and tensor.is_meta]
    if not empty:
        yield None
        return
    _refuse_lost_buffers(model)
    mode, fakes = FakeTensorMode(allow_non_fake_inputs=True), {}
    for table, name, tensor in empty:
        if id(tensor) not in fakes:
            fakes[id(tensor)] = _fake(mode, tensor)
        table[name] = fakes[id(tensor)]
    try:
        yield mode
    finally:
        for table, name, tensor in empty:
            table[name] = tensor


def _fake(mode: FakeTensorMode, tensor: torch.Tensor) -> torch.Tensor:
    meta = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="meta")
    fake = FakeTensor(mode, meta, torch.device("cpu"))
    return nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake


def _refuse_lost_buffers(model: nn.Module) -> None:
    """A buffer that is not in the state_dict() must have its value in the archive."""
    state = model.state_dict(keep_vars=True)
    buffers = model.named_buffers(remove_duplicate=False)
    lost = [name for name, buffer in buffers if buffer.is_meta and name not in state]
    if lost:
        raise ExportError(f"buffer '{lost[0]}' is on the meta device, and is not in the state_dict(), so that no file "
                          "of weights has it; make the model in `with gpipe.empty_weights():`, which leaves "
                          "buffers their values")


def check_shapes(mode: FakeTensorMode, model: nn.Module, program: torch.export.ExportedProgram, args: tuple,
                 kwargs: dict[str, Any]) -> None:
    """The outputs of both, without their values."""
    described = []
    for call in (model, program.module()):
        fakes = pytree.tree_map_only(torch.Tensor, mode.from_tensor, (args, kwargs))
        with mode:
            outputs = call(*fakes[0], **fakes[1])
        described.append([(leaf.shape, leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf
                          for leaf in pytree.tree_leaves(outputs)])
    if described[0] != described[1]:
        raise ExportError(f"the exported program's outputs are {described[1]}, the model's are {described[0]}")


# --- The archive ---

def save(model: nn.Module, program: torch.export.ExportedProgram, path: pathlib.Path, names: set[str]) -> None:
    """torch.export.save, without the values of these parameters and buffers."""
    state = program.state_dict
    kept = {name: state[name] for name in names if name in state}
    for name, tensor in program.constants.items():
        if isinstance(tensor, FakeTensor) or (isinstance(tensor, torch.Tensor) and tensor.is_meta):
            raise ExportError(f"'{name}' is on the meta device, and no part of the state_dict(); register it as a "
                              "buffer")
    try:
        for name, tensor in kept.items():
            empty = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="meta")
            state[name] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
        torch.export.save(program, path)
    finally:
        state.update(kept)
    if kept:
        _name_records(path, _storages(model, kept))


def _storages(model: nn.Module, names: Iterable[str]) -> dict[str, int]:
    """A number for each storage: tensors that share one are tied, or parts of it."""
    state, numbers = model.state_dict(keep_vars=True), {}
    found = {name: state[name].untyped_storage()._cdata if name in state else name for name in names}
    return {name: numbers.setdefault(storage, len(numbers)) for name, storage in found.items()}


def _name_records(path: pathlib.Path, storages: dict[str, int]) -> None:
    """torch.export.save has one record for all tensors on the meta device."""
    partial = path.with_name(path.name + ".rewritten")
    try:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(partial, "w") as new:
            root = old.namelist()[0].partition("/")[0]
            config = json.loads(old.read(f"{root}/{CONFIG}"))
            for name, number in storages.items():
                config["config"][name]["path_name"] = f"{RECORD}{number}"
            named = {f"{root}/data/weights/{entry['path_name']}" for entry in config["config"].values()}
            for entry in old.namelist():
                if entry.startswith(f"{root}/data/weights/") and entry not in named:
                    continue
                with old.open(entry) as source, new.open(entry, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            for record in sorted(set(storages.values())):
                new.writestr(f"{root}/data/weights/{RECORD}{record}", b"")
            new.writestr(f"{root}/{CONFIG}", json.dumps(config))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


# --- Files of weights ---

def check_files(model: nn.Module, weights: str | os.PathLike, prefix: str) -> None:
    """Whether the safetensors files, or those of a folder as Hugging Face writes it, have the model's tensors, whose
    names have `prefix` before the files'."""
    files = {_bare(name): (file, entry) for file in _files(pathlib.Path(weights))
             for name, entry in _header(file).items() if name != "__metadata__"}
    names: dict[int, list[str]] = {}
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        names.setdefault(id(tensor), []).append(name)
    for tied in names.values():
        found = [files[bare] for bare in (_bare(name.removeprefix(prefix)) for name in tied) if bare in files]
        if not found:
            raise ExportError(f"{weights} has no tensor '{tied[0]}'")
        for file, entry in found:
            _check_entry(tied[0], state[tied[0]], file, entry)


def _check_entry(name: str, tensor: torch.Tensor, file: pathlib.Path, entry: dict[str, Any]) -> None:
    wanted = TYPES.get(tensor.dtype)
    converted = wanted in FLOATING and entry["dtype"] in FLOATING
    if entry["shape"] != list(tensor.shape) or not (converted or entry["dtype"] == wanted):
        raise ExportError(f"{file}: '{name}' is {entry['dtype']} {entry['shape']}, the model's is {wanted} "
                          f"{list(tensor.shape)}")


def _bare(name: str) -> str:
    """Without what wrappers add, as workers understand names (common/safetensors/weight_names.h)."""
    while name.startswith(("module.", "_orig_mod.")):
        name = name.partition(".")[2]
    return name.replace("._orig_mod.", ".")


def _files(weights: pathlib.Path) -> list[pathlib.Path]:
    if weights.is_dir():
        weights = next((weights / name for name in (INDEX, SINGLE) if (weights / name).exists()), weights / SINGLE)
    if weights.suffix != ".json":
        return [weights]
    index = json.loads(weights.read_text())["weight_map"]
    return [weights.parent / name for name in sorted(set(index.values()))]


def _header(file: pathlib.Path) -> dict[str, Any]:
    try:
        with open(file, "rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            return json.loads(opened.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise ExportError(f"{file} is no safetensors file: {error}") from None
