"""All that can be asked of a cluster, once, for Client and AsyncClient alike."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from gpipe import _methods, errors, v1
from gpipe._files import OnFile
from gpipe._follow import Update, follow, is_over, state_name
from gpipe._metrics import Metrics, metrics_of
from gpipe._plan import Plan
from gpipe._results import Framework, Results, list_metrics
from gpipe._spec import Spec
from gpipe._submission import Private, Submission
from gpipe._timeline import Timeline
from gpipe._wire import Wire

JOBS_PER_PAGE = 1000
STATES = tuple(name.removeprefix("STATE_") for name in v1.Job.State.keys() if name != "STATE_UNSPECIFIED")

Folder = str | os.PathLike[str] | None


class Operations:
    """Over one wire; Client and Job say what each of them does. `private` is for a cluster of this process's own."""

    def __init__(self, wire: Wire, on_file: OnFile | None = None, private: Private | None = None):
        self.wire = wire
        self._submission = Submission(wire, private, on_file)
        self._results = Results(wire, private.store if private else None, on_file)

    async def submit(self, spec: Spec, folder: Folder, resume: str | os.PathLike[str] | None,
                     request_id: str | None) -> v1.Job:
        return await self._submission.submit(spec, folder, resume, request_id)

    async def plan(self, spec: Spec, folder: Folder, workers: int) -> Plan:
        return Plan(await self._submission.plan(spec, folder, workers, validate_only=False))

    async def validate(self, spec: Spec, folder: Folder) -> list[str]:
        return list((await self._submission.plan(spec, folder, 0, validate_only=True)).notes)

    async def get(self, id: str) -> v1.Job:
        return await self.wire.call(_methods.GET, v1.GetJobRequest(id=id))

    async def cancel(self, id: str) -> v1.Job:
        return await self.wire.call(_methods.CANCEL, v1.CancelJobRequest(id=id))

    async def pause(self, id: str) -> v1.Job:
        return await self.wire.call(_methods.PAUSE, v1.PauseJobRequest(id=id))

    async def checkpoint(self, id: str, timeout: float | None) -> v1.Job:
        """The job when it has that checkpoint."""
        asked = await self.wire.call(_methods.CHECKPOINT, v1.CheckpointJobRequest(id=id))
        with contextlib.suppress(errors.DeadlineError):
            async with contextlib.aclosing(self.watch(id, False, False, timeout)) as updates:
                async for update in updates:
                    if isinstance(update, v1.Job) and (update.checkpoint_step >= asked.step or
                                                       update.attempt != asked.attempt):
                        break
        job = await self.get(id)
        if job.checkpoint_step < asked.step:
            why = f"job {id} is {state_name(job)}, and has not written the checkpoint of step {asked.step}"
            is_late = job.attempt == asked.attempt and not is_over(job)
            raise errors.DeadlineError(why, "DEADLINE_EXCEEDED") if is_late else errors.Error(why)
        return job

    async def resume(self, id: str) -> v1.Job:
        return await self.wire.call(_methods.RESUME, v1.ResumeJobRequest(id=id))

    async def delete(self, id: str) -> None:
        await self.wire.call(_methods.DELETE, v1.DeleteJobRequest(id=id))

    async def jobs(self, states: Sequence[str], limit: int) -> list[v1.Job]:
        """Newest first; all of them when `limit` is 0."""
        numbers = [_state(name) for name in states]
        jobs: list[v1.Job] = []
        token = ""
        while True:
            size = min(JOBS_PER_PAGE, limit - len(jobs)) if limit else JOBS_PER_PAGE
            page = await self.wire.call(_methods.LIST, v1.ListJobsRequest(page_size=size, page_token=token,
                                                                          states=numbers))
            jobs += page.jobs
            token = page.next_page_token
            if not token or (limit and len(jobs) >= limit):
                return jobs

    def watch(self, id: str, cycles: bool, stages: bool, timeout: float | None) -> AsyncGenerator[Update, None]:
        return follow(self.wire, id, cycles, stages, timeout)

    async def wait(self, id: str, timeout: float | None, check: bool, on_update: Callable[[Update], None]) -> v1.Job:
        """The job as it ended; JobFailedError and JobCancelledError where it did not succeed, unless `check` is off."""
        async with contextlib.aclosing(self.watch(id, False, False, timeout)) as updates:
            async for update in updates:
                on_update(update)
        job = await self.get(id)
        if check and job.state == v1.Job.STATE_FAILED:
            raise errors.JobFailedError(job)
        if check and job.state == v1.Job.STATE_CANCELLED:
            raise errors.JobCancelledError(job)
        return job

    async def events(self, id: str) -> list[v1.JobEvent]:
        """All pages."""
        request = v1.ListJobEventsRequest(id=id)
        events: list[v1.JobEvent] = []
        while True:
            page = await self.wire.call(_methods.EVENTS, request)
            events += page.events
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return events

    async def logs(self, id: str, follows: bool) -> AsyncGenerator[v1.JobEvent, None]:
        """In their order, each once. There may be thousands: they are listed only where the stream has not brought
        all."""
        last = 0
        for event in await self.events(id):
            last = event.sequence
            yield event
        if not follows:
            return
        heard = False  # An event since the stream's last word of the job.
        async with contextlib.aclosing(self.watch(id, False, False, None)) as updates:
            async for update in updates:
                new: Sequence[v1.JobEvent] = ()
                if isinstance(update, v1.JobEvent):
                    heard = True
                    new = [update] if update.sequence <= last + 1 else await self.events(id)
                elif isinstance(update, v1.Job):
                    # Without an event since the last one, this is the first word of a stream.
                    new = await self.events(id) if not heard or is_over(update) else ()
                    heard = False
                for event in new:
                    if event.sequence > last:
                        last = event.sequence
                        yield event

    async def metrics(self, id: str) -> Metrics:
        return metrics_of(await list_metrics(self.wire, id))

    async def tensors(self, id: str, path: str | None, framework: Framework) -> dict[str, Any]:
        return await self._results.tensors(await self.get(id), path, framework)

    async def pull(self, id: str, folder: str | os.PathLike[str]) -> v1.Job:
        job = await self.get(id)
        await self._results.pull(job, pathlib.Path(folder))
        return job

    async def timeline(self, id: str, step: int) -> Timeline:
        return Timeline(await self.wire.call(_methods.TIMELINE, v1.GetTimelineRequest(job=id, step=step)))

    async def workers(self) -> list[v1.Worker]:
        return list((await self.wire.call(_methods.WORKERS, v1.ListWorkersRequest())).workers)

    async def drain(self, worker: str, reason: str) -> v1.Worker:
        return await self.wire.call(_methods.DRAIN, v1.DrainWorkerRequest(name=worker, reason=reason))

    async def undrain(self, worker: str) -> v1.Worker:
        return await self.wire.call(_methods.UNDRAIN, v1.UndrainWorkerRequest(name=worker))

    async def version(self) -> v1.GetVersionResponse:
        return await self.wire.call(_methods.VERSION, v1.GetVersionRequest())


def _state(name: str) -> v1.Job.State.ValueType:
    if name.upper() not in STATES:
        raise ValueError(f"there is no state '{name}': it must be one of {', '.join(STATES)}")
    return v1.Job.State.Value(f"STATE_{name.upper()}")
