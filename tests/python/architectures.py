#!/usr/bin/env python3
"""Trains known architectures, whole and cut, and compares every gradient and parameter with eager PyTorch.

architectures.py [NAME ...]: prints a markdown table. Each model (architecture_models.py, which says what it needs) is
exported and trained 5 steps of SGD by build/tests/exported_check: in 1, 2, 3 and 5 parts, cut evenly and at random
places, with and without recomputing. The columns are the largest difference of a kind as a part of what is allowed
(exported_check.cc); above 1 is a failure. architectures_cluster.py does the same on real workers.

architectures.py --refused: models that cannot be exported, with torch's own error and what gpipe.export says.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Any

import torch
from torch import nn

from architecture_models import CASES, RANDOM, make, mixtral, named_inputs, named_outputs
from corners import applied, nested_regions, sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECK = pathlib.Path(os.environ.get("GPIPE_BIN_DIR", ROOT / "build" / "bin")).parent / "tests" / "exported_check"
sys.path.insert(0, str(ROOT / "client" / "python"))
from gpipe import ExportError, export  # noqa: E402

TIMEOUT = 900
STEPS, LR = 5, 0.02
KINDS = ("gradients", "parameters", "outputs")

Named = dict[str, torch.Tensor]


# --- One architecture, in a process of its own ---

def numbers(name: str) -> Named:
    """What eager PyTorch computes. Tied parameters have their gradient under each of their names."""
    model, batches = make(name, STEPS)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], LR)
    values = {"lr": torch.tensor(LR, dtype=torch.float64)}
    for step, inputs in enumerate(batches):
        optimizer.zero_grad()
        values |= {f"{step}.{name}": value for name, value in one_step(model.train(), inputs).items()}
        optimizer.step()
    values |= {f"after.{name}": value for name, value in model.state_dict().items()}
    with torch.no_grad():
        values |= {f"evaluation.{name}": output for name, output in named_outputs(model.eval()(**inputs)).items()}
    if name in RANDOM:
        values = {name: value for name, value in values.items() if re.match(r"lr|\d+\.(input|output_gradient)\.", name)}
    return {name: value.detach().clone().contiguous() for name, value in values.items()}


def one_step(model: nn.Module, inputs: dict[str, Any]) -> Named:
    """The loss is the mean of each output's elements times random numbers, so that every output has a gradient."""
    values = {f"input.{name}": value for name, value in named_inputs(inputs).items()}
    outputs = named_outputs(model(**inputs))
    gradients = {n: torch.randn_like(output) / output.numel() for n, output in outputs.items() if output.requires_grad}
    torch.autograd.backward([outputs[name] for name in gradients], list(gradients.values()))
    values |= {f"output.{name}": output for name, output in outputs.items()}
    values |= {f"output_gradient.{name}": gradient for name, gradient in gradients.items()}
    parameters = model.named_parameters(remove_duplicate=False)
    values |= {f"gradient.{name}": p.grad for name, p in parameters if p.grad is not None}
    return {name: value.detach().clone() for name, value in values.items()}


def check(name: str, folder: pathlib.Path) -> dict[str, Any]:
    from safetensors.torch import save_file
    model, (inputs, *_) = make(name, 1)
    try:
        export(model, inputs, folder / "model.pt2")
    except ExportError as error:
        return {"error": f"not exported: {error}"}
    save_file(numbers(name), folder / "numbers.safetensors")
    command = [CHECK, folder / "model.pt2", folder / "numbers.safetensors", *(["whole"] if name in RANDOM else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout) if done.stdout else {"error": f"exported_check ended with {done.returncode}"}


# --- All of them ---

def in_a_process(name: str) -> dict[str, Any]:
    environment = dict(os.environ, OMP_NUM_THREADS="1", TORCH_LOGS="-all")
    try:
        done = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True,
                              timeout=TIMEOUT, env=environment)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {TIMEOUT} s"}
    lines = (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()
    return json.loads(lines[-1]) if done.returncode == 0 else {"error": lines[-1]}


def passed(result: dict[str, Any]) -> bool:
    return "error" not in result and all(result[kind]["worst"] <= 1 for kind in KINDS)


def row(name: str, result: dict[str, Any]) -> str:
    ratios = [f"{result[kind]['worst']:.2g}" if kind in result else "-" for kind in KINDS]
    largest = max((result[kind] for kind in KINDS if kind in result), key=lambda kind: kind["worst"], default={})
    cells = [name, str(result.get("nodes", "-")), str(result.get("cuts", "-")), *ratios,
             result.get("error") or largest.get("where", "")]
    return table_row(cells)


def table_row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


# --- What cannot be exported ---

def flex(x: torch.Tensor, _) -> torch.Tensor:
    from torch.nn.attention.flex_attention import flex_attention
    q = x.view(x.shape[0], 1, 2, 3)
    return flex_attention(q, q, q).view(x.shape)


REFUSED = {
    "mixtral with its default experts, grouped_mm": lambda: mixtral("grouped_mm"),
    "torch.vmap": applied(lambda x, _: torch.vmap(torch.sin)(x)),
    "flex_attention, on a CPU": applied(flex),
    "BatchNorm(momentum=None)": sequence(lambda: nn.Linear(6, 6), lambda: nn.BatchNorm1d(6, momentum=None)),
    "a branch on data: x if x.sum() > 0 else -x": applied(lambda x, _: x if x.sum() > 0 else -x),
    "a loop as long as data says: range(int(x.sum()))": applied(lambda x, _: sum(x for _ in range(int(x.sum())))),
    "the batch size as a constant: x.reshape(4, -1)": applied(lambda x, _: x.reshape(4, -1)),
    "no_grad() within autocast()": applied(nested_regions),
}


def torch_refusal(model: nn.Module, inputs: dict[str, Any]) -> str:
    """The error of torch.export and torch.export.save, without gpipe.export."""
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    try:
        program = torch.export.export(model.train(), (), inputs, dynamic_shapes={n: {0: batch} for n in inputs})
        torch.export.save(program, io.BytesIO())
    except Exception as error:  # It raises nearly every kind.
        return f"{type(error).__name__}: {first_line(error)}"
    return "none"


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def refusal(model: nn.Module, inputs: dict[str, Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        try:
            export(model, inputs, pathlib.Path(folder) / "model.pt2")
        except ExportError as error:
            return re.sub(r"/\S*/", "", first_line(error))  # Of a path the file is enough.
    return "none"


def print_refused() -> None:
    print("| model | torch's own error | gpipe.export |\n|---|---|---|")
    for name, case in REFUSED.items():
        torch.manual_seed(1)
        print(table_row([name, torch_refusal(*case()), refusal(*case())]), flush=True)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", help="parts of names of architectures")
    arguments.add_argument("--one", help="one architecture, in this process; prints JSON")
    arguments.add_argument("--refused", action="store_true", help="what cannot be exported, and why")
    options = arguments.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(check(options.one, pathlib.Path(folder))))
        return 0
    if options.refused:
        return print_refused() or 0
    print(f"| architecture | nodes | cuts | {' | '.join(KINDS)} | where, or the error |\n|---|---|---|---|---|---|---|")
    names = [name for name in CASES if not options.names or any(part in name for part in options.names)]
    failed = 0
    for name in names:
        result = in_a_process(name)
        failed += not passed(result)
        print(row(name, result), flush=True)
    print(f"\n{len(names) - failed} of {len(names)} agree with PyTorch")
    return failed


if __name__ == "__main__":
    sys.exit(main())
