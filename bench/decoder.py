#!/usr/bin/env python3
"""A Llama-like decoder of any size, for the benchmarks of large models: an archive without weights, exported without
ever having them, and a folder of random weights as Hugging Face writes it, a shard in memory at a time.

    bench/decoder.py --preset 8b --out FOLDER [--inside] [--sequences 8]

writes FOLDER/model.pt2, FOLDER/weights/ and FOLDER/data.safetensors. With --inside the archive holds the weights
instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Iterator

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "client" / "python"))

from gpipe import empty_weights, export  # noqa: E402

SHARD_BYTES = 2 << 30
POOL = 1 << 22  # Random numbers.


@dataclasses.dataclass(frozen=True)
class Shape:
    width: int
    heads: int
    inner: int
    layers: int
    vocabulary: int
    tokens: int
    dtype: torch.dtype = torch.bfloat16


PRESETS = {
    "tiny": Shape(64, 4, 128, 4, 256, 32),
    "small": Shape(768, 12, 2048, 12, 50257, 256),
    "mid": Shape(2048, 16, 5632, 24, 32000, 1024),
    "8b": Shape(4096, 32, 14336, 32, 128256, 2048),
    "70b": Shape(8192, 64, 28672, 80, 128256, 2048),
}


class Block(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        width, at = shape.width, {"bias": False, "dtype": shape.dtype}
        self.heads = shape.heads
        self.norms = nn.ModuleList(nn.RMSNorm(width, eps=1e-5, dtype=shape.dtype) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, **at), nn.Linear(width, width, **at)
        self.gate, self.up = nn.Linear(width, shape.inner, **at), nn.Linear(width, shape.inner, **at)
        self.down = nn.Linear(shape.inner, width, **at)

    def forward(self, x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(self.norms[0](x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(rotate(q, turn), rotate(k, turn), v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y = self.norms[1](x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


def rotate(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """By the position's angles; halves of the vector are the two axes."""
    first, second = x.chunk(2, -1)
    return x * turn[0] + torch.cat((-second, first), -1) * turn[1]


class Decoder(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.embed = nn.Embedding(shape.vocabulary, shape.width, dtype=shape.dtype)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=1e-5, dtype=shape.dtype)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False, dtype=shape.dtype)
        size = shape.width // shape.heads
        frequencies = 10000.0 ** (-torch.arange(0, size, 2) / size)
        angles = torch.outer(torch.arange(float(shape.tokens)), frequencies).repeat(1, 2)
        self.register_buffer("turn", torch.stack((angles.cos(), angles.sin())).to(shape.dtype), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.turn)
        return self.head(self.norm(x))


def empty_decoder(shape: Shape) -> Decoder:
    with empty_weights():
        return Decoder(shape)


def make_tokens(shape: Shape, sequences: int) -> torch.Tensor:
    return torch.randint(shape.vocabulary, (sequences, shape.tokens), generator=torch.Generator().manual_seed(0))


def write_program(shape: Shape, path: pathlib.Path, inside: bool = False) -> None:
    """Compared in a copy of two narrow layers; weights `inside` are random, and in memory meanwhile."""
    narrow = dataclasses.replace(shape, width=64, heads=4, inner=128, layers=2, vocabulary=256,
                                 tokens=min(shape.tokens, 64))
    model = empty_decoder(shape)
    if inside:
        model.load_state_dict(dict(drawn(model)), assign=True)
    export(model, (make_tokens(shape, 2),), path, check=(Decoder(narrow), (make_tokens(narrow, 2),)))


def drawn(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Of a large tensor the numbers repeat, each block of them from elsewhere in one pool: to draw billions takes minutes."""
    generator = torch.Generator().manual_seed(1)
    pool = torch.empty(POOL).normal_(0, 0.02, generator=generator)
    for name, parameter in model.named_parameters():
        values = torch.ones(parameter.shape, dtype=parameter.dtype)
        if values.dim() > 1:
            fill(values.view(-1), pool.to(values.dtype), generator)
        yield name, values


def fill(values: torch.Tensor, pool: torch.Tensor, generator: torch.Generator) -> None:
    for block in values.split(POOL // 2):
        begin = int(torch.randint(POOL - len(block) + 1, (), generator=generator))
        block.copy_(pool[begin:begin + len(block)])


def write_weights(model: nn.Module, folder: pathlib.Path) -> int:
    """Random ones for an empty model; the bytes of all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    index, shard, total = {}, {}, 0

    def flush() -> None:
        name = f"model-{len(set(index.values())) + 1:05}.safetensors"
        save_file(shard, folder / name)
        index.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, values in drawn(model):
        shard[name], total = values, total + values.nbytes
        if sum(tensor.nbytes for tensor in shard.values()) >= SHARD_BYTES:
            flush()
    if shard:
        flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total},
                                                                      "weight_map": index}))
    return total


def write_data(shape: Shape, path: pathlib.Path, sequences: int) -> None:
    tokens = make_tokens(shape, sequences)
    save_file({"tokens": tokens, "labels": tokens.roll(-1, 1).contiguous()}, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="mid")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--inside", action="store_true", help="weights in the archive")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--tokens", type=int, help="length of a sequence instead of the preset's")
    options = parser.parse_args()
    shape = PRESETS[options.preset]
    if options.tokens:
        shape = dataclasses.replace(shape, tokens=options.tokens)
    options.out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    write_program(shape, options.out / "model.pt2", options.inside)
    exported = time.perf_counter()
    if not options.inside:
        total = write_weights(empty_decoder(shape), options.out / "weights")
        print(f"weights: {total / 2**30:.2f} GiB in {time.perf_counter() - exported:.0f} s")
    write_data(shape, options.out / "data.safetensors", options.sequences)
    print(f"program: {(options.out / 'model.pt2').stat().st_size / 2**20:.0f} MiB in {exported - begin:.0f} s")


if __name__ == "__main__":
    main()
