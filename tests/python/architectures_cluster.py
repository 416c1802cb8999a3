#!/usr/bin/env python3
"""Trains known architectures on real workers, cut where the measured partition cuts, and compares with eager PyTorch.

architectures_cluster.py [NAME ...] [--workers 1,2,3,5]: prints a markdown table. Each model (architecture_models.py,
which says what it needs) is exported and trained 5 steps of SGD by each number of workers, with `checkpoint: always`
and `never`. `losses` and `parameters` are the largest differences of a step's loss and of a final parameter or buffer
as parts of what is allowed: 1e-5 of the loss; 1e-5 of the tensor's maximum and 1e-6 of the learning rate times the sum
over the steps of the largest gradient. Above 1 is a failure. A model with random numbers is compared with itself on one
worker, and must be equal to that in every bit. `PyTorch` counts how often, of 8 draws, PyTorch itself is above 1 when
its initial parameters change by a last bit: where that is often, only an equal order of additions can agree.
architectures_cluster.py --pytorch [NAME ...]: that count alone, without workers.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import pathlib
import re
import sys
import tempfile
import warnings
from typing import Any

import torch
from torch import nn

from architecture_models import CASES, RANDOM, make, named_inputs, named_outputs
from architectures import LR, STEPS, Named, export, table_row
from cluster import Cluster, read_jsonl, write_spec

WORKERS = (1, 2, 3, 5)
CHECKPOINTS = ("always", "never")
DRAWS = 8


@dataclasses.dataclass
class Objective:
    """A loss over one of the model's outputs, as a spec has it and as PyTorch computes it."""

    kind: str
    output: str

    @staticmethod
    def of(outputs: Named) -> Objective:
        """The model's own loss, else what suits the shape: logits of classes, or any numbers."""
        name = next((name for name in ("loss", "logits") if name in outputs), next(iter(outputs)))
        kinds = {0: "model_output", 2: "cross_entropy", 3: "cross_entropy"}
        return Objective(kinds.get(outputs[name].dim(), "mse"), name)

    def spec(self) -> dict[str, Any]:
        return {self.kind: {"output": self.output} | ({"class_dim": -1} if self.kind == "cross_entropy" else {})}

    def target(self, outputs: Named) -> torch.Tensor | None:
        output = outputs[self.output]
        if self.kind == "cross_entropy":
            return torch.randint(output.shape[-1], output.shape[:-1])
        return torch.randn(output.shape) if self.kind == "mse" else None

    def loss(self, outputs: Named, target: torch.Tensor | None) -> torch.Tensor:
        output = outputs[self.output]
        if self.kind == "cross_entropy":
            return nn.functional.cross_entropy(output.flatten(0, -2), target.flatten())
        return nn.functional.mse_loss(output, target) if self.kind == "mse" else output


@dataclasses.dataclass
class Training:
    """What 5 steps lead to."""

    losses: list[float]
    state: Named
    # Allowed when another one is compared with this one: of a loss or a tensor's maximum, and besides of any element.
    relative: float = 1e-5
    absolute: float = 0.0


@dataclasses.dataclass
class Job:
    """A folder with a model, its data, and what is needed to train it."""

    name: str
    folder: pathlib.Path
    objective: Objective
    inputs: list[str]  # In the model's order.
    batch: int

    def spec(self, name: str, workers: int, checkpoint: str) -> dict[str, Any]:
        dataset = {"path": "data.safetensors", "inputs": [f"input.{name}" for name in self.inputs]}
        return {
            "name": name,
            "model": {"exported": {"path": "model.pt2"}},
            "pipeline": {"workers": workers, "chunks": 1, "checkpoint": checkpoint},
            "train": {"dataset": dataset, "batch_size": self.batch, "steps": STEPS, "loss": self.objective.spec(),
                      "optimizer": {"sgd": {"lr": LR}}},
        }


@dataclasses.dataclass
class Lesson:
    """What is trained: inputs and targets of each step, and the loss between."""

    name: str
    objective: Objective
    batches: list[dict[str, Any]]
    targets: list[torch.Tensor | None]

    @staticmethod
    def of(name: str) -> Lesson:
        _, batches = make(name, STEPS)
        objective = Objective.of(named_outputs(make(name, 1)[0](**batches[0])))  # As it is trained.
        torch.manual_seed(2)
        return Lesson(name, objective, batches,
                      [objective.target(named_outputs(make(name, 1)[0](**inputs))) for inputs in batches])

    def save(self, path: pathlib.Path) -> None:
        from safetensors.torch import save_file
        names = named_inputs(self.batches[0])
        columns = {f"input.{n}": torch.cat([named_inputs(inputs)[n] for inputs in self.batches]) for n in names}
        if self.targets[0] is not None:
            columns["target"] = torch.cat(self.targets)
        save_file(columns, path)


def prepare(lesson: Lesson, folder: pathlib.Path) -> Job:
    """Exports the model and writes the data."""
    program = export(make(lesson.name, 1)[0], lesson.batches[0], folder / "model.pt2")
    lesson.save(folder / "data.safetensors")
    batch = len(next(iter(named_inputs(lesson.batches[0]).values())))
    return Job(lesson.name, folder, lesson.objective, list(program.graph_signature.user_inputs), batch)


def unstable_draws(lesson: Lesson, expected: Training) -> int:
    """How many trainings in PyTorch, from parameters with another last bit, differ by more than is allowed."""
    return sum(worst_tensor(train_here(perturbed(make(lesson.name, 1)[0], seed), lesson), expected)[0] > 1
               for seed in range(DRAWS))


def perturbed(model: nn.Module, seed: int) -> nn.Module:
    torch.manual_seed(100 + seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 1e-7 * torch.randn_like(parameter))
    return model


def train_here(model: nn.Module, lesson: Lesson) -> Training:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], LR)
    losses, largest = [], 0.0
    for inputs, target in zip(lesson.batches, lesson.targets):
        optimizer.zero_grad()
        loss = lesson.objective.loss(named_outputs(model.train()(**inputs)), target)
        loss.backward()
        losses.append(loss.item())
        largest += max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
        optimizer.step()
    return Training(losses, model.state_dict(), absolute=1e-6 * LR * largest)


def train_there(cluster: Cluster, job: Job, workers: int, checkpoint: str) -> tuple[Training, list[int]]:
    """And the parts of the model that each worker had."""
    from safetensors.torch import load_file
    name = re.sub(r"\W+", "-", f"{job.name}-{workers}-{checkpoint}").strip("-")
    done = cluster.wait(cluster.submit(write_spec(job.folder, job.spec(name, workers, checkpoint))), 300)
    if done["state"] != "STATE_SUCCEEDED":
        raise RuntimeError(done.get("reason", done["state"]))
    output = cluster.pull(done["id"], job.folder / name)
    losses = [step["loss"] for step in read_jsonl(output / "metrics.jsonl")]
    return Training(losses, load_file(output / "model.safetensors")), [int(parts) for parts in done["balance"]]


# --- Comparing: differences as parts of what is allowed ---

def worst_loss(found: Training, expected: Training) -> float:
    if len(found.losses) != len(expected.losses):
        return math.inf
    return max(part(abs(a - b), expected.relative * abs(b)) for a, b in zip(found.losses, expected.losses))


def worst_tensor(found: Training, expected: Training) -> tuple[float, str]:
    if found.state.keys() != expected.state.keys():
        return math.inf, f"names: {found.state.keys() ^ expected.state.keys()}"
    return max(((difference(found.state[name], value, expected), name) for name, value in expected.state.items()),
               default=(0.0, ""))


def difference(found: torch.Tensor, value: torch.Tensor, expected: Training) -> float:
    if found.shape != value.shape or found.dtype != value.dtype:
        return math.inf
    limit = expected.relative * float(value.double().abs().max()) + expected.absolute
    return part(float((found.double() - value.double()).abs().max()), limit)


def part(difference: float, allowed: float) -> float:
    if difference == 0:
        return 0.0
    return difference / allowed if math.isfinite(difference) and allowed > 0 else math.inf


# --- All of them ---

@dataclasses.dataclass
class Result:
    jobs: int = 0
    losses: float = 0.0
    parameters: float = 0.0
    pytorch: str = "-"
    balances: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    where: str = ""
    error: str = ""

    def passed(self) -> bool:
        return self.jobs > 0 and max(self.losses, self.parameters) <= 1 and not self.error

    def row(self, name: str) -> str:
        balances = " ".join("+".join(map(str, balance)) for workers, balance in self.balances.items() if workers > 1)
        return table_row([name, str(self.jobs), balances, f"{self.losses:.2g}", f"{self.parameters:.2g}",
                          self.pytorch, self.error or self.where])


def compare(cluster: Cluster, name: str, folder: pathlib.Path, workers: tuple[int, ...] = WORKERS) -> Result:
    """With workers up to as many as the model has parts."""
    lesson = Lesson.of(name)
    job, expected, result = prepare(lesson, folder), train_here(make(name, 1)[0], lesson), Result()
    if name in RANDOM:
        expected = dataclasses.replace(train_there(cluster, job, 1, "never")[0], relative=0.0)
    for count in workers:
        for checkpoint in CHECKPOINTS:
            try:
                found, balance = train_there(cluster, job, count, checkpoint)
            except (RuntimeError, AssertionError) as error:
                result.error = f"{count} workers, {checkpoint}: {error}".replace("\n", " ")
                continue
            result.jobs += 1
            result.balances[count] = balance
            result.losses = max(result.losses, worst_loss(found, expected))
            worst, where = worst_tensor(found, expected)
            if worst > result.parameters:
                result.parameters, result.where = worst, f"{count} workers, {checkpoint}: {where}"
    return result


def stability(name: str) -> str:
    if name in RANDOM:
        return "-"
    lesson = Lesson.of(name)
    return f"{unstable_draws(lesson, train_here(make(name, 1)[0], lesson))} of {DRAWS}"


def print_stability(names: list[str]) -> int:
    print("| architecture | PyTorch |\n|---|---|")
    for name in names:
        print(table_row([name, stability(name)]), flush=True)
    return 0


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("names", nargs="*", help="parts of names of architectures")
    arguments.add_argument("--workers", default=",".join(map(str, WORKERS)), help="numbers of workers")
    arguments.add_argument("--pytorch", action="store_true", help="how stable PyTorch itself is; no workers")
    options = arguments.parse_args()
    workers = tuple(map(int, options.workers.split(",")))
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="The tensor attributes")  # Of the LSTM, by torch.export.
    names = [name for name in CASES if not name.startswith("corner") or options.names]
    names = [name for name in names if not options.names or any(part in name for part in options.names)]
    if options.pytorch:
        return print_stability(names)
    print("| architecture | jobs | parts per worker | losses | parameters | PyTorch | where, or the error |"
          "\n|---|---|---|---|---|---|---|")
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        cluster = Cluster(pathlib.Path(place) / "cluster", lease_millis=20000)
        try:
            cluster.start_workers(max(workers))
            for number, name in enumerate(names):
                folder = pathlib.Path(place) / str(number)
                folder.mkdir()
                result = compare(cluster, name, folder, workers)
                result.pytorch = stability(name)
                failed += not result.passed()
                print(result.row(name), flush=True)
        finally:
            cluster.stop()
    print(f"\n{len(names) - failed} of {len(names)} agree with PyTorch")
    return failed


if __name__ == "__main__":
    sys.exit(main())
