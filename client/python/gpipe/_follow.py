"""A job's updates, over broken connections."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator

from gpipe import _methods, errors, v1
from gpipe._wire import Wire

TERMINAL = (v1.Job.STATE_SUCCEEDED, v1.Job.STATE_FAILED, v1.Job.STATE_CANCELLED)
# How long the orchestrator, once heard from, may be away.
PATIENCE = 30.0
FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 2.0


@dataclasses.dataclass(frozen=True)
class Dropped:
    """The watcher was too slow, or away for too long: this many updates were left out."""

    count: int


Update = (v1.Job | v1.StepMetrics | v1.EvaluationMetrics | v1.CycleDone | v1.JobEvent | v1.WorkerActivity
          | v1.StagesDone | Dropped)


def is_over(job: v1.Job) -> bool:
    """In a state that never changes."""
    return job.state in TERMINAL


async def follow(wire: Wire, id: str, cycles: bool = False, stages: bool = False,
                 timeout: float | None = None) -> AsyncGenerator[Update, None]:
    """The job now, then every change, until it is over; the last update is the job as it ended. A broken stream is
    opened again behind the last update. DeadlineError after `timeout` seconds; UnavailableError when the orchestrator
    is away for too long."""
    request = v1.WatchJobRequest(id=id, cycles=cycles, stages=stages)
    deadline = None if timeout is None else time.monotonic() + timeout
    backoff = FIRST_BACKOFF
    job: v1.Job | None = None
    while True:
        broken: errors.ApiError | None = None
        try:
            async with contextlib.aclosing(wire.stream(_methods.WATCH, request, _left(deadline))) as updates:
                async for response in updates:
                    backoff = FIRST_BACKOFF
                    request.resume_token = response.resume_token
                    update = update_of(response)
                    if isinstance(update, v1.Job):
                        job = update
                    if update is not None:
                        yield update
        except (errors.UnavailableError, errors.CancelledError) as error:
            broken = error
        except errors.DeadlineError:
            raise _timed_out(id, timeout, job) from None
        if job is not None and is_over(job):
            return
        # A stream that ends well before the job has was closed by an orchestrator that shuts down.
        if deadline is not None and time.monotonic() >= deadline:
            raise _timed_out(id, timeout, job)
        if wire.last_heard is None or time.monotonic() - wire.last_heard > PATIENCE:
            raise broken or errors.UnavailableError(f"orchestrator at {wire.endpoint.address} ended the stream",
                                                    "UNAVAILABLE")
        await wire.sleep(backoff if deadline is None else min(backoff, max(0.0, deadline - time.monotonic())))
        backoff = min(backoff * 2, LONGEST_BACKOFF)


def update_of(response: v1.WatchJobResponse) -> Update | None:
    """None: one that a newer orchestrator has invented."""
    kind = response.WhichOneof("update")
    if kind == "dropped":
        return Dropped(response.dropped)
    update: Update | None = getattr(response, kind) if kind else None
    return update


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.001, deadline - time.monotonic())


def _timed_out(id: str, timeout: float | None, job: v1.Job | None) -> errors.DeadlineError:
    state = f"; it is {state_name(job)}" if job is not None else ""
    return errors.DeadlineError(f"{id} did not end within {timeout:g} s{state}", "DEADLINE_EXCEEDED")


def state_name(job: v1.Job) -> str:
    """`RUNNING`; a state that a newer orchestrator invented is its number."""
    known = v1.Job.State.values()
    return v1.Job.State.Name(job.state).removeprefix("STATE_") if job.state in known else str(job.state)
