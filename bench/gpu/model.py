"""The Llama-like decoder that ours and the peers train, whole or a stage of it, and what its arithmetic costs.

Weights are those of one folder for all (bench/decoder.py writes it), so that losses can be compared.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))

import decoder  # noqa: E402
from decoder import Shape, empty_weights, rotate  # noqa: E402

SIZES = {
    "tiny": Shape(64, 4, 128, 2, 1000, 32),  # For a try on a CPU.
    "text": Shape(512, 8, 1408, 8, 256, 256),  # A token is a byte.
    "small": decoder.PRESETS["small"],
    "mid": decoder.PRESETS["mid"],
    "big": Shape(4096, 32, 14336, 16, 32000, 2048),
}
MICRO_BATCH = {"tiny": 2, "text": 4, "small": 4, "mid": 1, "big": 1}  # Sequences.
ADAMW = {"lr": 1e-4, "weight_decay": 0.01}

# TFLOP/s of dense bf16 products, by what nvidia-smi calls the card; the first that is found in the name counts.
PEAKS = {"H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.4, "H200": 989.4, "GH200": 989.4, "H800": 989.4,
         "B200": 2250.0, "A100": 312.0, "A800": 312.0, "L40S": 362.0, "L4": 121.0, "RTX 4090": 165.2}


class Attention(nn.Module):
    """Three products for q, k and v, as Hugging Face's and torchtitan's Llama have them."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.heads = shape.heads
        for name in ("q", "k", "v", "out"):
            setattr(self, name, nn.Linear(shape.width, shape.width, bias=False, dtype=shape.dtype))

    def forward(self, x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        q, k, v = (w(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for w in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(rotate(q, turn), rotate(k, turn), v, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        at = {"bias": False, "dtype": shape.dtype}
        self.attention = Attention(shape)
        self.norms = nn.ModuleList(nn.RMSNorm(shape.width, eps=1e-5, dtype=shape.dtype) for _ in range(2))
        self.gate, self.up = (nn.Linear(shape.width, shape.inner, **at) for _ in range(2))
        self.down = nn.Linear(shape.inner, shape.width, **at)

    def forward(self, x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norms[0](x), turn)
        y = self.norms[1](x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Head(nn.Module):
    """Logits as floats: the loss is computed in them."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.norm = nn.RMSNorm(shape.width, eps=1e-5, dtype=shape.dtype)
        self.output = nn.Linear(shape.width, shape.vocabulary, bias=False, dtype=shape.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.norm(x)).float()


class Decoder(nn.Module):
    """Some of the layers; the first stage has the embedding, too, and the last one the head. Named as in the whole."""

    def __init__(self, shape: Shape, layers: range | None = None, first: bool = True, last: bool = True):
        super().__init__()
        self.embed = nn.Embedding(shape.vocabulary, shape.width, dtype=shape.dtype) if first else None
        self.layers = nn.ModuleDict({str(i): Layer(shape) for i in (range(shape.layers) if layers is None else layers)})
        self.head = Head(shape) if last else None
        self.recompute = False
        size = shape.width // shape.heads
        angles = torch.outer(torch.arange(float(shape.tokens)), 10000.0 ** (-torch.arange(0, size, 2) / size)).repeat(1, 2)
        self.register_buffer("turn", torch.stack((angles.cos(), angles.sin())).to(shape.dtype), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.embed is None else self.embed(x)
        for layer in self.layers.values():
            if self.recompute:
                x = torch.utils.checkpoint.checkpoint(layer, x, self.turn, use_reentrant=False)
            else:
                x = layer(x, self.turn)
        return x if self.head is None else self.head(x)


def empty_model(shape: Shape, *part) -> Decoder:
    with empty_weights():
        return Decoder(shape, *part)


def load_weights(model: nn.Module, folder: pathlib.Path, device: torch.device) -> None:
    """Those that the model has, straight onto the device."""
    files = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    state = {}
    for file in {files[name] for name in model.state_dict()}:
        with safe_open(folder / file, framework="pt", device=str(device)) as opened:
            state |= {name: opened.get_tensor(name) for name in model.state_dict() if files[name] == file}
    model.load_state_dict(state, assign=True)
    model.to(device)


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def data_of(shape: Shape, sequences: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = decoder.make_tokens(shape, sequences)
    return tokens, tokens.roll(-1, 1).contiguous()


def layer_parameters(shape: Shape) -> int:
    return 4 * shape.width ** 2 + 3 * shape.width * shape.inner


def flops_per_token(shape: Shape) -> float:
    """Of forward and backward: 6 a parameter of a product, and half of the attention's matrix, as it is causal."""
    products = shape.layers * layer_parameters(shape) + shape.width * shape.vocabulary
    return 6 * products + 6 * shape.layers * shape.width * shape.tokens


def peak_flops(card: str) -> float | None:
    return next((1e12 * peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", card)), None)


def even_cut(shape: Shape, stages: int) -> list[int]:
    """Layers of each stage, whose slowest is as fast as whole layers allow; the head counts as its product does. Only the
    last one may have none."""
    if stages == 1:
        return [shape.layers]
    layer, head = layer_parameters(shape) + shape.tokens * shape.width, shape.width * shape.vocabulary

    def slowest(last: int) -> float:
        return max(-(-(shape.layers - last) // (stages - 1)) * layer, last * layer + head)

    last = min(range(shape.layers - stages + 2), key=slowest)
    rest, others = shape.layers - last, stages - 1
    return [rest // others + (i < rest % others) for i in range(others)] + [last]


def cut_names(shape: Shape, stages: int) -> list[str]:
    """The modules at which the stages of even_cut() begin, but for the first."""
    cut = even_cut(shape, stages)
    begins = [sum(cut[:stage]) for stage in range(1, stages)]
    return [f"layers.{begin}" if begin < shape.layers else "head" for begin in begins]
