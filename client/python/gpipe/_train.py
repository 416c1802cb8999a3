"""A PyTorch model trained on a cluster, or run on one, in one call."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from gpipe._client import Client
from gpipe._cluster import Cluster
from gpipe._export.exporter import export
from gpipe._follow import Update
from gpipe._job import Job
from gpipe._progress import Progress
from gpipe._samples import Data, SampleNames, write
from gpipe._task import Loss, Optimizer, loss_spec, optimizer_spec

Model = TypeVar("Model", bound=nn.Module)

BATCH_SIZE = 32  # Of training, where nobody says another.
CHUNKS = 4
MODEL_FILE = "model.pt2"


def train(model: Model, data: Data, *, loss: Loss = "cross_entropy", optimizer: Optimizer = "adamw",
          lr: float | None = None, batch_size: int | None = None, epochs: int | None = None, steps: int | None = None,
          shuffle: bool | None = None, evaluate: Data = None, target: str | None = None,
          cluster: Client | str | None = None, workers: int | None = None, chunks: int = CHUNKS,
          pipeline: Mapping[str, Any] | None = None, dynamic_shapes: Any = None, unbatched: Sequence[str] = (),
          name: str | None = None, progress: bool | None = None, on_update: Callable[[Update], None] | None = None,
          on_end: Callable[[Job], None] | None = None, **options: Any) -> Model:
    """Trains the model on a cluster, and returns it with the weights that it has then.

    `data` is a Dataset, a DataLoader (its batch size, shuffling and drop_last count where nothing else is said),
    tensors or arrays, or anything that gives samples: tuples in the order of forward()'s parameters with the target
    behind them, or mappings by their names, where `target` says which is the target, if more than one is none of
    forward()'s. `evaluate` is measured on during training (`evaluate_every` steps). `loss` and `optimizer` are names of
    a spec, what a spec says of them, or torch's own: nn.CrossEntropyLoss(label_smoothing=0.1), torch.optim.AdamW,
    torch.optim.AdamW(model.parameters()). A model that computes its loss itself has the loss "model_output", and no
    target.

    `cluster` is a Client, an address, or by default that of GPIPE_ORCHESTRATOR; without one a Cluster of `workers`
    processes (2 by default) is there for this call. A mini-batch is cut into `chunks` micro-batches. `pipeline` has
    more fields of a spec's pipeline, `options` of its train: grad_clip_norm, lr_schedule, freeze, seed, ... One pass
    over the data is made, unless `epochs` or `steps` says otherwise.

    `on_update` gets every update of the job, `on_end` the job when it has succeeded, with its metrics and timelines.
    Whatever interrupts this call (Ctrl-C, an error of `on_update`) cancels the job. Raises ExportError, DataError,
    InvalidSpecError, JobFailedError.
    """
    task_loss, task_optimizer = loss_spec(loss), optimizer_spec(optimizer, lr, model)
    has_target = "model_output" not in task_loss
    with tempfile.TemporaryDirectory(prefix="gpipe-") as place:
        folder = pathlib.Path(place)
        file = write(data, SampleNames(model, target, has_target), folder / "data.safetensors")
        task: dict[str, Any] = {
            "dataset": file.dataset(unbatched), "batch_size": batch_size or file.batch_size or BATCH_SIZE,
            "shuffle": file.shuffle if shuffle is None else shuffle, "drop_last": file.drop_last, "loss": task_loss,
            "optimizer": task_optimizer}
        task |= {"steps": steps} if steps is not None else {"epochs": 1 if epochs is None else epochs}
        if evaluate is not None:
            measured = write(evaluate, SampleNames(model, target, has_target), folder / "evaluation.safetensors")
            task["evaluate"] = {"dataset": measured.dataset(unbatched), "every_steps": options.pop("evaluate_every", 0)}
        export(model, file.examples(model, unbatched), folder / MODEL_FILE, dynamic_shapes=dynamic_shapes,
               unbatched=unbatched)
        spec = _spec(model, name, workers, chunks, pipeline) | {"train": task | options}
        with _running(cluster, workers, spec, folder) as job:
            _attend(job, progress, on_update)
            model.load_state_dict(job.tensors(framework="torch"))
            if on_end is not None:
                on_end(job)
    return model


def infer(model: nn.Module, data: Data, *, batch_size: int | None = None, outputs: Sequence[str] = (),
          cluster: Client | str | None = None, workers: int | None = None, chunks: int = CHUNKS,
          pipeline: Mapping[str, Any] | None = None, dynamic_shapes: Any = None, unbatched: Sequence[str] = (),
          name: str | None = None, progress: bool | None = None,
          on_update: Callable[[Update], None] | None = None) -> torch.Tensor | dict[str, torch.Tensor]:
    """What model.eval() computes for all samples, in their order, on a cluster: the output, or where there are several
    a dict of them by their names; `outputs` names those that are wanted.

    `data` and the rest are as for `train`; what samples have behind forward()'s parameters is left out.
    """
    with tempfile.TemporaryDirectory(prefix="gpipe-") as place:
        folder = pathlib.Path(place)
        file = write(data, SampleNames(model, None, has_target=False), folder / "data.safetensors")
        task: dict[str, Any] = {"inputs": file.path.name, "outputs": list(outputs), "unbatched": list(unbatched)}
        if batch_size or file.batch_size:
            task["batch_size"] = batch_size or file.batch_size
        export(model, file.examples(model, unbatched), folder / MODEL_FILE, dynamic_shapes=dynamic_shapes,
               unbatched=unbatched)
        spec = _spec(model, name, workers, chunks, pipeline) | {"infer": task}
        with _running(cluster, workers, spec, folder) as job:
            _attend(job, progress, on_update)
            tensors: dict[str, torch.Tensor] = job.tensors(framework="torch")
    return next(iter(tensors.values())) if len(tensors) == 1 else tensors


def _spec(model: nn.Module, name: str | None, workers: int | None, chunks: int,
          pipeline: Mapping[str, Any] | None) -> dict[str, Any]:
    words = re.sub(r"[^A-Za-z0-9]+", "-", type(model).__name__).strip("-").lower()
    return {"name": name or words[:63] or "model", "model": {"exported": {"path": MODEL_FILE}},
            "pipeline": ({"workers": workers} if workers else {}) | {"chunks": chunks} | dict(pipeline or {})}


@contextlib.contextmanager
def _running(cluster: Client | str | None, workers: int | None, spec: Mapping[str, Any],
             folder: pathlib.Path) -> Iterator[Job]:
    """The job, which is cancelled when it is left before its end."""
    with contextlib.ExitStack() as stack:
        if isinstance(cluster, Client):
            client = cluster
        elif cluster is not None or os.environ.get("GPIPE_ORCHESTRATOR"):
            client = stack.enter_context(Client(cluster))
        else:
            client = stack.enter_context(Cluster(workers or 2))
        job = client.submit(spec, folder=folder)
        try:
            yield job
        except BaseException:
            if not job.is_over:
                with contextlib.suppress(Exception):
                    job.cancel()
            raise


def _attend(job: Job, progress: bool | None, on_update: Callable[[Update], None] | None) -> None:
    with Progress(progress) as bar:
        for update in job.watch():
            bar.show(update)
            if on_update is not None:
                on_update(update)
    job.wait(progress=False)
