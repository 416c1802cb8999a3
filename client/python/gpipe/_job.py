"""Jobs, as their users hold them."""

from __future__ import annotations

import contextlib
import html
import os
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any

from google.protobuf import json_format

from gpipe import v1
from gpipe._follow import Update, is_over, state_name
from gpipe._format import clock_text, loss_text
from gpipe._loss_curve import LossCurve
from gpipe._metrics import Metrics
from gpipe._operations import Operations
from gpipe._progress import Progress, progress_of
from gpipe._results import Framework
from gpipe._timeline import Timeline
from gpipe._wire import iterate, run

EVENTS = 20  # Of a description, the newest.
COLORS = {"SUCCEEDED": "#15803d", "FAILED": "#b91c1c", "CANCELLED": "#a16207", "PAUSED": "#a16207"}


class JobView:
    """What was known of a job when it was last asked for. A notebook shows it as a table."""

    def __init__(self, operations: Operations, message: v1.Job, client: object):
        self._operations = operations
        self._client = client  # A private cluster is there for as long as somebody has one of its jobs.
        self.message = message

    @property
    def id(self) -> str:
        """`<spec name>-<six letters or digits>`."""
        return self.message.id

    @property
    def state(self) -> str:
        """`QUEUED`, `STARTING`, `RUNNING`, `PAUSED`, `SUCCEEDED`, `FAILED` or `CANCELLED`."""
        return state_name(self.message)

    @property
    def is_over(self) -> bool:
        """In one of the last three, which never change."""
        return is_over(self.message)

    @property
    def steps_done(self) -> int:
        """Optimizer steps; in inference mini-batches."""
        return progress_of(self.message)[0]

    @property
    def steps_total(self) -> int:
        """Of the whole job."""
        return progress_of(self.message)[1]

    @property
    def files(self) -> list[str]:
        """What it has made so far: `model.safetensors`, `checkpoints/20/manifest.json`, ..."""
        return [result.path for result in self.message.results]

    def _take(self, update: Update) -> None:
        if isinstance(update, v1.Job):
            self.message = update

    def _noted(self, bar: Progress, update: Update) -> None:
        self._take(update)
        bar.show(update)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.state} {self.steps_done}/{self.steps_total}>"

    def _description(self, events: Sequence[v1.JobEvent]) -> str:
        facts = [f"{name:12} {value}" for name, value in self._facts() if value]
        lines = [f"{event.time.ToJsonString()} {event.actor}: {event.message}" for event in events[-EVENTS:]]
        return "\n".join([*facts, "", "EVENTS", *lines, "", "SPEC", json_format.MessageToJson(
            self.message.spec, preserving_proto_field_name=True, indent=1)])

    def _facts(self) -> list[tuple[str, str]]:
        job = self.message
        last = job.last_step if job.HasField("last_step") else None
        ran = job.HasField("end_time") and job.HasField("start_time")
        seconds = job.end_time.seconds - job.start_time.seconds if ran else 0
        places = [f"{i} on {job.workers[worker]} ({job.balance[i]} layers)" for i, worker in enumerate(job.stage_worker)
                  if worker < len(job.workers) and i < len(job.balance)]
        return [("job", self.id), ("state", self.state), ("reason", job.reason),
                ("failure", f"{job.failure.code} on {job.failure.worker}, stage {job.failure.stage}: "
                            f"{job.failure.message}" if job.HasField("failure") else ""),
                ("progress", f"{self.steps_done} of {self.steps_total}"),
                ("loss", loss_text(last.loss) if last is not None and last.HasField("loss") else ""),
                ("speed", f"{last.samples_per_second:.0f} samples/s" if last is not None else ""),
                ("took", clock_text(seconds) if seconds else ""), ("stages", ", ".join(places)),
                ("files", ", ".join(self.files))]

    def _repr_html_(self) -> str:
        rows = "".join(f'<tr><th style="text-align: left">{name}</th><td style="text-align: left{self._style(name)}">'
                       f"{html.escape(value)}</td></tr>" for name, value in self._facts() if value)
        bar = f'<progress value="{self.steps_done}" max="{self.steps_total or 1}" style="width: 100%"></progress>'
        return f"<table>{rows}<tr><td colspan=\"2\">{bar}</td></tr></table>"

    def _style(self, name: str) -> str:
        return f"; font-weight: bold; color: {COLORS.get(self.state, '#1d4ed8')}" if name == "state" else ""


class Job(JobView):
    """A job of a Client. Every method asks the cluster; all can raise ApiError."""

    def refresh(self) -> Job:
        """Asks how the job is now."""
        self.message = run(self._operations.get(self.id))
        return self

    def watch(self, *, cycles: bool = False, stages: bool = False,
              timeout: float | None = None) -> Generator[Update, None, None]:
        """The job now, then every update as it comes, until the job is over: v1.Job, v1.StepMetrics,
        v1.EvaluationMetrics, v1.JobEvent, v1.WorkerActivity, with `cycles` v1.CycleDone, with `stages` v1.StagesDone,
        and Dropped for what was left out. Goes on by itself where the connection breaks. DeadlineError after `timeout`
        seconds."""
        with contextlib.closing(iterate(self._operations.watch(self.id, cycles, stages, timeout))) as updates:
            for update in updates:
                self._take(update)
                yield update

    def wait(self, *, timeout: float | None = None, check: bool = True, progress: bool | None = None) -> Job:
        """Until the job is over. JobFailedError and JobCancelledError where it did not succeed, unless `check` is off.
        A bar shows the steps where somebody looks and tqdm is installed; `progress` says otherwise."""
        with Progress(progress) as bar:
            self.message = run(self._operations.wait(self.id, timeout, check, lambda update: self._noted(bar, update)))
        return self

    def logs(self, *, follow: bool = False) -> Generator[v1.JobEvent, None, None]:
        """What happened to the job and what its workers say of it, in order; with `follow` until it is over."""
        return iterate(self._operations.logs(self.id, follow))

    def describe(self) -> str:
        """All about the job on one page: state, stages, the newest events, and the spec."""
        self.refresh()
        return self._description(list(self.logs()))

    def metrics(self) -> Metrics:
        """Of all steps so far, as NumPy arrays."""
        return run(self._operations.metrics(self.id))

    def plot(self, *, logarithmic: bool = False) -> LossCurve:
        """The losses of all steps so far, and of the evaluations."""
        return LossCurve(self.id, self.metrics(), logarithmic)

    def tensors(self, path: str | None = None, *, framework: Framework = "numpy") -> dict[str, Any]:
        """Those of the trained model under its state_dict()'s names, or the outputs; or of another of `files`, also one
        with an index, whose shards are put together. As NumPy arrays or torch tensors."""
        return run(self._operations.tensors(self.id, path, framework))

    def pull(self, folder: str | os.PathLike[str]) -> None:
        """All files, metrics.jsonl, evaluation.jsonl and job.json into a folder, as `gpipe job pull` does."""
        self.message = run(self._operations.pull(self.id, folder))

    def timeline(self, step: int = 0) -> Timeline:
        """What each stage did in one of the last steps; 0: the last one that is complete."""
        return run(self._operations.timeline(self.id, step))

    def cancel(self) -> Job:
        """WrongJobStateError if it is over."""
        self.message = run(self._operations.cancel(self.id))
        return self

    def pause(self) -> Job:
        """No more clock cycles are granted. WrongJobStateError if it does not run."""
        self.message = run(self._operations.pause(self.id))
        return self

    def checkpoint(self, *, timeout: float | None = None) -> int:
        """Has a running training job write a checkpoint now, beside its steps; returns when it is written: of so many
        steps."""
        self.message = run(self._operations.checkpoint(self.id, timeout))
        return int(self.message.checkpoint_step)

    def resume(self) -> Job:
        """Goes on where it was paused."""
        self.message = run(self._operations.resume(self.id))
        return self

    def delete(self) -> None:
        """Forgets the job, which must be over, with all its files."""
        run(self._operations.delete(self.id))


class AsyncJob(JobView):
    """A job of an AsyncClient: as Job, but for `await`."""

    async def refresh(self) -> AsyncJob:
        """Asks how the job is now."""
        self.message = await self._operations.get(self.id)
        return self

    async def watch(self, *, cycles: bool = False, stages: bool = False,
                    timeout: float | None = None) -> AsyncGenerator[Update, None]:
        """As Job.watch."""
        async with contextlib.aclosing(self._operations.watch(self.id, cycles, stages, timeout)) as updates:
            async for update in updates:
                self._take(update)
                yield update

    async def wait(self, *, timeout: float | None = None, check: bool = True, progress: bool | None = None) -> AsyncJob:
        """As Job.wait."""
        with Progress(progress) as bar:
            self.message = await self._operations.wait(self.id, timeout, check,
                                                       lambda update: self._noted(bar, update))
        return self

    def logs(self, *, follow: bool = False) -> AsyncGenerator[v1.JobEvent, None]:
        """As Job.logs."""
        return self._operations.logs(self.id, follow)

    async def describe(self) -> str:
        """As Job.describe."""
        await self.refresh()
        return self._description([event async for event in self.logs()])

    async def metrics(self) -> Metrics:
        """As Job.metrics."""
        return await self._operations.metrics(self.id)

    async def plot(self, *, logarithmic: bool = False) -> LossCurve:
        """As Job.plot."""
        return LossCurve(self.id, await self.metrics(), logarithmic)

    async def tensors(self, path: str | None = None, *, framework: Framework = "numpy") -> dict[str, Any]:
        """As Job.tensors."""
        return await self._operations.tensors(self.id, path, framework)

    async def pull(self, folder: str | os.PathLike[str]) -> None:
        """As Job.pull."""
        self.message = await self._operations.pull(self.id, folder)

    async def timeline(self, step: int = 0) -> Timeline:
        """As Job.timeline."""
        return await self._operations.timeline(self.id, step)

    async def cancel(self) -> AsyncJob:
        """As Job.cancel."""
        self.message = await self._operations.cancel(self.id)
        return self

    async def pause(self) -> AsyncJob:
        """As Job.pause."""
        self.message = await self._operations.pause(self.id)
        return self

    async def checkpoint(self, *, timeout: float | None = None) -> int:
        """As Job.checkpoint."""
        self.message = await self._operations.checkpoint(self.id, timeout)
        return int(self.message.checkpoint_step)

    async def resume(self) -> AsyncJob:
        """As Job.resume."""
        self.message = await self._operations.resume(self.id)
        return self

    async def delete(self) -> None:
        """As Job.delete."""
        await self._operations.delete(self.id)
