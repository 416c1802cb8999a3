"""Safetensors files between this process and workers: written in one pass, read where they lie."""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Mapping
from typing import Any

import torch

from gpipe._export.weights import TYPES

ALIGNMENT = 8
DTYPES: dict[str, torch.dtype] = {name: dtype for dtype, name in TYPES.items()}


def write(path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor]) -> None:
    """A new file. The values go from memory into it without a copy between."""
    # The largest elements come first, so that all are aligned.
    plain = {name: _plain(tensor) for name, tensor in
             sorted(tensors.items(), key=lambda item: -item[1].element_size())}
    with open(path, "xb") as file:
        file.write(_header(plain))
        for tensor in plain.values():
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)


def read(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Maps the file, which may be removed then. What is written to the tensors stays with this process."""
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    (length,) = struct.unpack_from("<Q", mapped)
    entries = json.loads(mapped[8:8 + length])
    return {name: _tensor(mapped, 8 + length, entry) for name, entry in entries.items() if name != "__metadata__"}


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """As it is in a file: in main memory, dense, its dimensions in their order."""
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()


def _header(tensors: Mapping[str, torch.Tensor]) -> bytes:
    entries, begin = {}, 0
    for name, tensor in tensors.items():
        end = begin + tensor.nbytes
        entries[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _tensor(mapped: mmap.mmap, data: int, entry: dict[str, Any]) -> torch.Tensor:
    dtype, shape, offset = DTYPES[entry["dtype"]], entry["shape"], data + entry["data_offsets"][0]
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    if offset % dtype.itemsize:  # Written by somebody who does not align.
        piece = torch.frombuffer(mapped, dtype=torch.uint8, count=count * dtype.itemsize, offset=offset)
        return piece.clone().view(dtype).view(shape)
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=offset).view(shape)
