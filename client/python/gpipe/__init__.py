"""GPipe clusters from Python: train and run PyTorch models by pipeline parallelism (docs/python.md).

    with gpipe.Cluster(workers=4) as cluster:
        model = gpipe.train(model, dataset, loss="cross_entropy", optimizer="adamw", epochs=3, cluster=cluster)

What is here is imported when it is first used, so that `gpipe.export`, `gpipe.data`, `gpipe.skip` and `gpipe.balance`
need no gRPC, and the rest no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpipe import balance, data, errors, skip, v1
    from gpipe._client import AsyncClient, Client
    from gpipe._cluster import Cluster
    from gpipe._export.exporter import export
    from gpipe._export.weights import ExportError, empty_weights
    from gpipe._follow import Dropped, Update
    from gpipe._gpipe.module import GPipe
    from gpipe._job import AsyncJob, Job
    from gpipe._loss_curve import LossCurve
    from gpipe._metrics import Evaluations, Metrics
    from gpipe._plan import Plan
    from gpipe._spec import Spec
    from gpipe._timeline import Timeline
    from gpipe._train import infer, train
    from gpipe.errors import (
        ApiError,
        ClusterError,
        Error,
        InvalidSpecError,
        JobCancelledError,
        JobFailedError,
    )

_PLACES = {
    "AsyncClient": "_client", "Client": "_client", "Cluster": "_cluster", "export": "_export.exporter",
    "ExportError": "_export.weights", "empty_weights": "_export.weights", "Dropped": "_follow", "Update": "_follow",
    "GPipe": "_gpipe.module", "AsyncJob": "_job", "Job": "_job", "LossCurve": "_loss_curve", "Evaluations": "_metrics",
    "Metrics": "_metrics", "Plan": "_plan", "Spec": "_spec", "Timeline": "_timeline", "infer": "_train",
    "train": "_train",
    "ApiError": "errors", "ClusterError": "errors", "Error": "errors", "InvalidSpecError": "errors",
    "JobCancelledError": "errors", "JobFailedError": "errors",
}
_MODULES = ("balance", "data", "errors", "skip", "v1")

__all__ = [
    "ApiError", "AsyncClient", "AsyncJob", "Client", "Cluster", "ClusterError", "Dropped", "Error", "Evaluations",
    "ExportError", "GPipe", "InvalidSpecError", "Job", "JobCancelledError", "JobFailedError", "LossCurve", "Metrics",
    "Plan", "Spec", "Timeline", "Update", "balance", "data", "empty_weights", "errors", "export", "infer", "skip",
    "train", "v1",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"gpipe.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module 'gpipe' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"gpipe.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
