#!/usr/bin/env python3
"""Exported models and data that must be refused, as a table: what is wrong, the field, the message.

    refusals.py
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cluster import ROOT, Cluster, gpipe, write_spec
from exported import save_model
from test_exported import BATCH, SAMPLES, TOKENS, language_spec, make_language_job

sys.path.insert(0, str(ROOT / "client" / "python"))  # For the script: a test has it from conftest.py.
from gpipe import ExportError, export  # noqa: E402

Break = Callable[[pathlib.Path, dict], None]


@dataclasses.dataclass
class Refusal:
    """`change` makes a good job in a folder, and its spec, into one that `gpipe` refuses for `field`, with `words`."""

    what: str
    field: str
    words: str
    change: Break

    def make(self, folder: pathlib.Path) -> pathlib.Path:
        make_language_job(folder)
        spec = language_spec("refused", workers=2)
        self.change(folder, spec)
        return write_spec(folder, spec)


# --- Archives ---

def rewrite(folder: pathlib.Path, edit: Callable[[str, bytes], bytes | None]) -> None:
    """Writes the archive anew, each record as `edit` returns it; without those for which it returns None."""
    path = folder / "model.pt2"
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, value in records.items():
            edited = edit(name, value)
            if edited is not None:
                archive.writestr(name, edited)


def bytes_of(change: Callable[[bytes], bytes]) -> Break:
    def apply(folder: pathlib.Path, _) -> None:
        path = folder / "model.pt2"
        path.write_bytes(change(path.read_bytes()))
    return apply


def record(ending: str, change: Callable[[bytes], bytes | None]) -> Break:
    return lambda folder, _: rewrite(folder, lambda name, value: change(value) if name.endswith(ending) else value)


def without_weight(table: bytes) -> bytes:
    weights = json.loads(table)
    weights["config"].pop("norm.weight")
    return json.dumps(weights).encode()


# --- Models ---

@torch.library.custom_op("gpipe_refusal::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


twice.register_fake(lambda x: torch.empty_like(x))
twice.register_autograd(lambda ctx, gradient: gradient * 2)


class Small(nn.Module):
    """Takes what the good job's model takes."""

    def __init__(self, function: Callable):
        super().__init__()
        self.layer, self.function = nn.Linear(TOKENS, 23), function

    def forward(self, ids, scale):
        return {"logits": self.function(self.layer(ids.float() * scale[:, None]))}


def model(function: Callable) -> Break:
    def save(folder: pathlib.Path, _) -> None:
        save_model(Small(function), folder / "model.pt2", torch.ones(3, TOKENS, dtype=torch.long), torch.ones(3))
    return save


def decomposed(folder: pathlib.Path, _) -> None:
    program = torch.export.load(folder / "model.pt2")
    torch.export.save(program.run_decompositions(), folder / "model.pt2")


def fixed_batch(folder: pathlib.Path, _) -> None:
    program = torch.export.export(Small(torch.tanh), (torch.ones(3, TOKENS, dtype=torch.long), torch.ones(3)))
    torch.export.save(program, folder / "model.pt2")


# --- Data ---

def data(**changed: torch.Tensor) -> Break:
    return lambda folder, _: save_file(load_file(folder / "data.safetensors") | changed, folder / "data.safetensors")


def inputs(*names: str) -> Break:
    return lambda _, spec: spec["train"]["dataset"].update(inputs=list(names))


def split(*modules: str) -> Break:
    return lambda _, spec: spec.update(pipeline={"split": list(modules)})


def weights_that_lack_one(folder: pathlib.Path, spec: dict) -> None:
    state = torch.export.load(folder / "model.pt2").state_dict
    save_file({name: value.clone() for name, value in state.items() if name != "head.bias"}, folder / "w.safetensors")
    spec["model"]["weights"] = "w.safetensors"


def inference(**tensors: torch.Tensor) -> Break:
    def change(folder: pathlib.Path, spec: dict) -> None:
        save_file(tensors, folder / "inputs.safetensors")
        del spec["train"]
        spec["infer"] = {"inputs": "inputs.safetensors", "batch_size": BATCH}
    return change


IDS, SCALE = torch.ones(SAMPLES, TOKENS, dtype=torch.long), torch.ones(SAMPLES)
PATH, DATA = "model.exported.path", "train.dataset.inputs"

REFUSALS = [
    Refusal("an archive cut short", PATH, "not a model that can be run", bytes_of(lambda b: b[:2000])),
    Refusal("an empty file", PATH, "not a model that can be run", bytes_of(lambda b: b"")),
    Refusal("not an archive", PATH, "not a model that can be run", bytes_of(lambda b: b"x" * 5000)),
    Refusal("an archive without its program", PATH, "models/model.json", record("models/model.json", lambda b: None)),
    Refusal("a program that is no JSON", PATH, "JSON", record("models/model.json", lambda b: b[:-9])),
    Refusal("a weight's record is missing", PATH, "weight_0", record("data/weights/weight_0", lambda b: None)),
    Refusal("a weight's record is too short", PATH, "'tokens.weight' has 1468 bytes",
            record("data/weights/weight_0", lambda b: b[:-4])),
    Refusal("a weight is not in the table", PATH, "norm.weight", record("model_weights_config.json", without_weight)),
    Refusal("a weight is not in model.weights", "model.weights", "head.bias", weights_that_lack_one),
    Refusal("an operator of a Python package", PATH, "gpipe_refusal", model(twice)),
    Refusal("an operator of another PyTorch", PATH, "aten.tanhh", record("models/model.json", lambda b: b.replace(
        b"torch.ops.aten.relu.default", b"torch.ops.aten.tanhh.default"))),
    Refusal("a decomposed program", PATH, "decomposed", decomposed),
    Refusal("a batch size that is fixed", PATH, "batch", fixed_batch),
    Refusal("data: a name that is not in the file", DATA + "[1]", "no tensor 'scales'", inputs("tokens", "scales")),
    Refusal("data: fewer tensors than inputs", DATA, "the model's inputs are ids, scale", inputs("tokens")),
    Refusal("data: another order", DATA + "[0]", "'ids' is Long [any, 8]", inputs("scale", "tokens")),
    Refusal("data: another type", DATA + "[0]", "'ids' is Long", data(tokens=IDS.int())),
    Refusal("data: another shape", DATA + "[0]", "'tokens' is Long [any, 7]", data(tokens=IDS[:, :7].contiguous())),
    Refusal("data: other numbers of samples", "train.dataset.target", "unequal", data(scale=SCALE[:9].clone())),
    Refusal("data: a target that does not fit", "train.loss", "cross_entropy", data(labels=IDS[:, 0].clone())),
    Refusal("split: a module that is not there", "pipeline.split[0]", "no module 'blocks.3'", split("blocks.3")),
    Refusal("inference: no tensor of the input's name", "infer.inputs", "'scale'", inference(ids=IDS, scales=SCALE)),
    Refusal("inference: another type", "infer.inputs", "'scale' is Float", inference(ids=IDS, scale=SCALE.double())),
]


def violation(stderr: str) -> tuple[str, str]:
    """Field and message of the line `FILE:LINE: field: message`."""
    found = re.search(r"^\S+:\d+: ([\w.\[\]]+): (.*)", stderr, re.MULTILINE)
    return (found[1], found[2]) if found else ("", stderr)


def control_flow(folder: pathlib.Path) -> str:
    """What gpipe.export says to a branch on data: torch.export makes no file of it."""
    try:
        export(Small(lambda x: x if x.sum() > 0 else -x), (IDS, SCALE), folder / "model.pt2")
    except ExportError as error:
        return re.sub(r"/\S*/", "", str(error))  # Of a path the file is enough.
    raise AssertionError("it was exported")


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    print("| what is wrong | field | message |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        cluster = Cluster(pathlib.Path(place) / "cluster")
        try:
            cluster.start_workers(1)
            for number, refusal in enumerate(REFUSALS):
                folder = pathlib.Path(place) / str(number)
                folder.mkdir()
                done = gpipe("validate", refusal.make(folder), address=cluster.address, check=False)
                field, message = violation(done.stderr)
                print(row(refusal.what, f"`{field}`", message), flush=True)
        finally:
            cluster.stop()
        print(row("a branch on data", "`gpipe.export`", control_flow(pathlib.Path(place))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
