"""What a job has made: files, and the tensors in them."""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any, Literal

from google.protobuf import json_format

from gpipe import _atomic, _methods, errors, v1
from gpipe._files import OnFile, download_to
from gpipe._metrics import evaluation_line, step_line
from gpipe._wire import Wire

Framework = Literal["numpy", "torch"]
MODEL, OUTPUTS, INDEX = "model.safetensors", "outputs.safetensors", "model.safetensors.index.json"
STEPS_PER_PAGE = 10_000


class Results:
    """Of one orchestrator's jobs; `store` is its folder of artifacts where that is on this machine."""

    def __init__(self, wire: Wire, store: pathlib.Path | None, on_file: OnFile | None):
        self._wire, self._store, self._on_file = wire, store, on_file

    async def tensors(self, job: v1.Job, path: str | None, framework: Framework) -> dict[str, Any]:
        """Of one file of the job, of all shards of an index, or of its model or outputs."""
        files = {result.path: result.artifact for result in job.results}
        if path is None:
            path = next((name for name in (MODEL, INDEX, OUTPUTS) if name in files), None)
        if path is None or path not in files:
            raise errors.NotFoundError(f"{job.id} has no {path or 'model or outputs'}, but "
                                       f"{', '.join(files) or 'nothing'}", "NOT_FOUND")
        with tempfile.TemporaryDirectory(prefix="gpipe-") as folder:
            place = pathlib.Path(folder)
            local = await self._fetch(files[path], place / path)
            shards = [path]
            if path.endswith(".json"):
                names = sorted(set(json.loads(local.read_bytes())["weight_map"].values()))
                shards = [os.path.normpath(os.path.join(os.path.dirname(path), name)) for name in names]
            tensors: dict[str, Any] = {}
            for shard in shards:
                local = await self._fetch(files[shard], place / shard)
                tensors |= await self._wire.work(lambda file=local: load(file, framework))  # type: ignore[misc]
            return tensors

    async def pull(self, job: v1.Job, folder: pathlib.Path) -> None:
        """All of it, as `gpipe job pull` does: each file appears whole or not at all, manifests of checkpoints behind
        what they describe."""
        folder.mkdir(parents=True, exist_ok=True)
        metrics = await list_metrics(self._wire, job.id)
        _write_lines(folder / "metrics.jsonl", [step_line(step) for step in metrics.steps])
        if metrics.evaluations:
            _write_lines(folder / "evaluation.jsonl", [evaluation_line(each) for each in metrics.evaluations])
        for result in sorted(job.results, key=_rank):
            await self._pull(result, folder)
        text = json_format.MessageToJson(job, preserving_proto_field_name=True, indent=1)
        _atomic.write(folder / "job.json", text.encode() + b"\n")

    async def _fetch(self, ref: v1.ArtifactRef, path: pathlib.Path) -> pathlib.Path:
        """Where the content is; at `path` if it is not on this machine."""
        own = self._own(ref)
        if own is None and not path.exists():
            await download_to(self._wire, ref, path, self._on_file)
        return own or path

    async def _pull(self, result: v1.ResultFile, folder: pathlib.Path) -> None:
        relative = pathlib.PurePath(result.path)
        if relative.is_absolute() or ".." in relative.parts or not relative.parts:
            raise errors.DataLossError(f"the orchestrator names a result '{result.path}' outside its folder",
                                       "DATA_LOSS")
        path, own = folder / relative, self._own(result.artifact)
        if own is None:
            await download_to(self._wire, result.artifact, path, self._on_file)
            return
        with _atomic.replacing(path) as target, open(own, "rb") as source:
            await self._wire.work(lambda: shutil.copyfileobj(source, target, 1 << 20))

    def _own(self, ref: v1.ArtifactRef) -> pathlib.Path | None:
        if self._store is None:
            return None
        path = self._store / ref.sha256[:2] / ref.sha256
        return path if path.exists() and path.stat().st_size == ref.size else None


def load(file: pathlib.Path, framework: Framework) -> dict[str, Any]:
    """Of a safetensors file."""
    try:
        module = importlib.import_module(f"safetensors.{framework}")
    except ModuleNotFoundError as error:
        if error.name == "torch":
            raise ModuleNotFoundError("tensors of torch need it: pip install 'gpipe[torch]'", name="torch") from None
        raise ValueError(f"framework must be numpy or torch, and is '{framework}'") from None
    try:
        tensors: dict[str, Any] = module.load_file(file)
    except TypeError as error:
        raise TypeError(f"NumPy cannot hold what is in {file.name} ({error}): take it with framework='torch'") from None
    return tensors


async def list_metrics(wire: Wire, id: str) -> v1.ListJobMetricsResponse:
    """All pages."""
    request, everything = v1.ListJobMetricsRequest(id=id, page_size=STEPS_PER_PAGE), v1.ListJobMetricsResponse()
    while True:
        page = await wire.call(_methods.METRICS, request)
        everything.MergeFrom(page)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return everything


def _rank(result: v1.ResultFile) -> int:
    """What the job is for comes before its checkpoints, should the disk be full."""
    path = pathlib.PurePath(result.path)
    if len(path.parts) == 1:
        return 0
    return 2 if path.name == "manifest.json" else 1


def _write_lines(path: pathlib.Path, lines: list[str]) -> None:
    _atomic.write(path, "".join(f"{line}\n" for line in lines).encode())
