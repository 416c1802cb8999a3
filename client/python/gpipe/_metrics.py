"""A job's numbers as NumPy arrays."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpipe import v1

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluations:
    """One element for each evaluation."""

    step: Integers  # Steps done.
    loss: Floats
    accuracy: Floats  # NaN where there is none.
    samples: Integers

    def __len__(self) -> int:
        return len(self.step)


@dataclasses.dataclass(frozen=True, eq=False)
class Metrics:
    """One element, or row, for each step; of inference for each mini-batch, without loss and learning rate. What a step
    has no number of is NaN."""

    step: Integers  # Counted from 1.
    epoch: Integers
    loss: Floats
    lr: Floats
    grad_norm: Floats  # Before clipping.
    step_seconds: Floats
    samples_per_second: Floats
    bubble_share: Floats
    data_wait_share: Floats
    stage_busy: Floats  # [steps, stages]
    stage_peak_saved_bytes: Floats  # [steps, stages]
    stage_peak_allocated_bytes: Floats  # [steps, stages], and the next; on CPUs no stages.
    stage_peak_reserved_bytes: Floats
    evaluations: Evaluations

    def __len__(self) -> int:
        return len(self.step)

    def __repr__(self) -> str:
        last = f", last loss {self.loss[-1]:.6g}" if len(self) and not np.isnan(self.loss[-1]) else ""
        return f"<Metrics of {len(self)} steps{last}>"


def metrics_of(response: v1.ListJobMetricsResponse) -> Metrics:
    """All pages in one."""
    steps, evaluations = response.steps, response.evaluations
    return Metrics(
        step=_integers([step.step for step in steps]), epoch=_integers([step.epoch for step in steps]),
        loss=_optional(steps, "loss"), lr=_optional(steps, "lr"), grad_norm=_optional(steps, "grad_norm"),
        step_seconds=_floats([step.step_seconds for step in steps]),
        samples_per_second=_floats([step.samples_per_second for step in steps]),
        bubble_share=_floats([step.bubble_share for step in steps]),
        data_wait_share=_floats([step.data_wait_share for step in steps]),
        stage_busy=_rows([step.stage_busy for step in steps]),
        stage_peak_saved_bytes=_rows([step.stage_peak_saved_bytes for step in steps]),
        stage_peak_allocated_bytes=_rows([step.stage_peak_allocated_bytes for step in steps]),
        stage_peak_reserved_bytes=_rows([step.stage_peak_reserved_bytes for step in steps]),
        evaluations=Evaluations(
            step=_integers([each.step for each in evaluations]), loss=_floats([each.loss for each in evaluations]),
            accuracy=_optional(evaluations, "accuracy"), samples=_integers([each.samples for each in evaluations])))


def _floats(values: Sequence[float]) -> Floats:
    return np.array(values, np.float64)


def _integers(values: Sequence[int]) -> Integers:
    return np.array(values, np.int64)


def _optional(messages: Sequence[Any], field: str) -> Floats:
    return _floats([getattr(each, field) if each.HasField(field) else np.nan for each in messages])


def _rows(rows: Sequence[Sequence[float]]) -> Floats:
    """An attempt on other workers may have had other stages."""
    table = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for i, row in enumerate(rows):
        table[i, :len(row)] = row
    return table


# --- As lines of metrics.jsonl and evaluation.jsonl (client/api/results.h) ---

def step_line(step: v1.StepMetrics) -> str:
    """Plain JSON, numbers as numbers."""
    line: dict[str, Any] = {"step": step.step, "epoch": step.epoch}
    if step.HasField("loss"):
        line["loss"] = step.loss
    if step.HasField("lr"):
        line["lr"] = step.lr
    if step.HasField("grad_norm"):
        line["grad_norm"] = step.grad_norm
    line |= {name: getattr(step, name) for name in ("step_seconds", "samples_per_second", "bubble_share",
                                                    "data_wait_share")}
    for name in ("stage_busy", "stage_peak_saved_bytes", "stage_peak_allocated_bytes", "stage_peak_reserved_bytes"):
        if values := list(getattr(step, name)):
            line[name] = values
    return json.dumps(line)


def evaluation_line(evaluation: v1.EvaluationMetrics) -> str:
    """Plain JSON, numbers as numbers."""
    line: dict[str, Any] = {"step": evaluation.step, "loss": evaluation.loss}
    if evaluation.HasField("accuracy"):
        line["accuracy"] = evaluation.accuracy
    return json.dumps(line | {"samples": evaluation.samples})
