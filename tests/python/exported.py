"""What tests of exported models share."""

from __future__ import annotations

import json
import pathlib

import torch
from safetensors.torch import load_file
from torch import nn

from cluster import DEVICE, gpipe, write_spec

RTOL = 1e-5 if DEVICE == "cpu" else 1e-4


def save_model(model: nn.Module, path: pathlib.Path, *inputs: torch.Tensor) -> None:
    """By torch.export alone, as one without gpipe.export would: one program, for everything."""
    batch = torch.export.Dim("batch", min=1, max=1 << 20)
    program = torch.export.export(model.train(), inputs, dynamic_shapes=[{0: batch} for _ in inputs])
    torch.export.save(program, path)


def parts_of(folder: pathlib.Path, spec: dict, address: str) -> int:
    """Into how many parts the model can be cut."""
    plan = gpipe("plan", write_spec(folder, spec), "-o", "json", address=address)
    return len(json.loads(plan.stdout)["plan"]["layers"])


def expect_model(folder: pathlib.Path, model: nn.Module) -> None:
    """That a job's trained model is this one."""
    state, expected = load_file(folder / "model.safetensors"), model.state_dict()
    assert set(state) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=RTOL, atol=RTOL * float(tensor.abs().max()) + 1e-6,
                                   msg=lambda text, name=name: f"{name}: {text}")
