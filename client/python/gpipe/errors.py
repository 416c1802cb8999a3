"""What can go wrong, as exceptions. Those that the API answers with know its google.rpc.ErrorInfo and BadRequest."""

from __future__ import annotations

import typing
from collections.abc import Sequence

if typing.TYPE_CHECKING:
    from gpipe import v1


class FieldViolation(typing.NamedTuple):
    """One bad value of a spec or request."""

    field: str  # `model.sequential[3].linear.in_features`; empty: the whole.
    description: str

    def __str__(self) -> str:
        return f"{self.field}: {self.description}" if self.field else self.description


class Error(Exception):
    """Everything that this package raises on purpose is one of these, or of Python's own where that says it all."""


class ApiError(Error):
    """What the cluster answers instead of doing what it was asked for."""

    def __init__(self, message: str, code: str = "UNKNOWN", reason: str = "",
                 violations: Sequence[FieldViolation] = ()):
        super().__init__(message)
        self.message = message
        self.code = code  # Of gRPC: `INVALID_ARGUMENT`.
        self.reason = reason  # Of the domain `gpipe`: `INVALID_SPEC`; empty where nobody answered.
        self.violations = tuple(violations)

    @property
    def field(self) -> str:
        """The path of the first bad value; empty where it is about none."""
        return self.violations[0].field if self.violations else ""


class InvalidRequestError(ApiError, ValueError):
    """INVALID_REQUEST: the request says something that cannot be."""


class InvalidSpecError(InvalidRequestError):
    """INVALID_SPEC: the job cannot be as its spec has it. `violations` has everything that is wrong at once."""


class NotFoundError(ApiError, LookupError):
    """There is nothing of that name."""


class JobNotFoundError(NotFoundError):
    """JOB_NOT_FOUND."""


class ArtifactNotFoundError(NotFoundError):
    """ARTIFACT_NOT_FOUND: no file with that content."""


class PreconditionError(ApiError):
    """FAILED_PRECONDITION: not in this state of things."""


class WrongJobStateError(PreconditionError):
    """WRONG_JOB_STATE: the job is over, or does not run."""


class NoCheckpointError(PreconditionError):
    """NO_CHECKPOINT: the job to resume has none."""


class NoWorkerError(PreconditionError):
    """NO_WORKER: there is none to ask."""


class RequestIdReusedError(ApiError):
    """REQUEST_ID_REUSED: by another job."""


class ExhaustedError(ApiError):
    """RESOURCE_EXHAUSTED: the cluster has no room for more."""


class TooManyJobsError(ExhaustedError):
    """TOO_MANY_JOBS."""


class TooManyWatchersError(ExhaustedError):
    """TOO_MANY_WATCHERS."""


class OverloadedError(ExhaustedError):
    """OVERLOADED: try again later."""


class DiskFullError(ExhaustedError):
    """DISK_FULL: the orchestrator's."""


class UnavailableError(ApiError, ConnectionError):
    """Nobody answers at the address, or the connection broke."""


class DeniedError(ApiError, PermissionError):
    """UNAUTHENTICATED or PERMISSION_DENIED: no certificate or token, or one of the wrong role."""


class DeadlineError(ApiError, TimeoutError):
    """No answer within the time that the call was given."""


class CancelledError(ApiError):
    """The call was cancelled."""


class DataLossError(ApiError):
    """Bytes that arrived are not those that were sent."""


class JobFailedError(Error):
    """The job that was waited for is FAILED. `failure` is what failed it: code, worker, stage, what that was doing."""

    def __init__(self, job: v1.Job):
        super().__init__(f"{job.id}: {job.failure.message or job.reason}")
        self.job = job
        self.failure = job.failure


class JobCancelledError(Error):
    """The job that was waited for is CANCELLED."""

    def __init__(self, job: v1.Job):
        super().__init__(f"{job.id} was cancelled: {job.reason}" if job.reason else f"{job.id} was cancelled")
        self.job = job


class ClusterError(Error):
    """A private cluster does not start, or one of its processes ended that should not have."""


BY_REASON: dict[str, type[ApiError]] = {
    "INVALID_SPEC": InvalidSpecError, "INVALID_REQUEST": InvalidRequestError, "JOB_NOT_FOUND": JobNotFoundError,
    "ARTIFACT_NOT_FOUND": ArtifactNotFoundError, "WRONG_JOB_STATE": WrongJobStateError,
    "NO_CHECKPOINT": NoCheckpointError, "NO_WORKER": NoWorkerError, "REQUEST_ID_REUSED": RequestIdReusedError,
    "TOO_MANY_JOBS": TooManyJobsError, "TOO_MANY_WATCHERS": TooManyWatchersError, "OVERLOADED": OverloadedError,
    "DISK_FULL": DiskFullError,
}
# For reasons of tomorrow, and where there is none.
BY_CODE: dict[str, type[ApiError]] = {
    "INVALID_ARGUMENT": InvalidRequestError, "OUT_OF_RANGE": InvalidRequestError, "NOT_FOUND": NotFoundError,
    "FAILED_PRECONDITION": PreconditionError, "RESOURCE_EXHAUSTED": ExhaustedError, "UNAVAILABLE": UnavailableError,
    "UNAUTHENTICATED": DeniedError, "PERMISSION_DENIED": DeniedError, "DEADLINE_EXCEEDED": DeadlineError,
    "CANCELLED": CancelledError, "DATA_LOSS": DataLossError,
}


def make(message: str, code: str, reason: str = "", violations: Sequence[FieldViolation] = ()) -> ApiError:
    """The exception for what a call ended with."""
    kind = BY_REASON.get(reason) or BY_CODE.get(code) or ApiError
    return kind(message, code, reason, violations)


def invalid_spec(violations: Sequence[FieldViolation]) -> InvalidSpecError:
    """As the orchestrator would say it."""
    message = "\n".join(map(str, violations))
    return InvalidSpecError(message, "INVALID_ARGUMENT", "INVALID_SPEC", violations)
