"""From a spec to a job."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any

from gpipe import _methods, errors, v1
from gpipe._files import FileDelivery, OnFile
from gpipe._spec import Spec, SpecFile
from gpipe._spec_files import (
    MANIFEST,
    NamedFile,
    fields_of_files,
    files_of_checkpoint,
    list_of,
    newest_checkpoint,
    path_of,
    prepare,
)
from gpipe._wire import Wire

RETRY_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class Private:
    """What is known of a cluster of this process's own."""

    store: pathlib.Path  # The orchestrator's folder of artifacts: files are read where they are.
    ready: Callable[[Wire], Coroutine[Any, Any, None]]  # Waits for its workers. Whoever starts them waits no sooner.
    adapt: Callable[[v1.JobSpec], None]  # Makes a spec fit.


class Submission:
    """Gives what a spec names, and asks for a job or a plan."""

    def __init__(self, wire: Wire, private: Private | None, on_file: OnFile | None):
        self._wire, self._private, self._on_file = wire, private, on_file

    async def submit(self, spec: Spec, folder: str | os.PathLike[str] | None, resume: str | os.PathLike[str] | None,
                     request_id: str | None) -> v1.Job:
        """The job, which is one whatever was lost on the way."""
        file, named = await self._load(spec, folder)
        request = v1.SubmitJobRequest(spec=file.spec, request_id=request_id or secrets.token_hex(16))
        try:
            try:
                return await self._give_and_submit(file, named, resume, request)
            except errors.ArtifactNotFoundError:
                # A file that was there, or was given long ago, may have gone with the last job that had it.
                return await self._give_and_submit(file, named, resume, request)
        except errors.InvalidRequestError as error:
            raise file.explained(error) from None
        except errors.DeadlineError as error:
            raise errors.DeadlineError(
                "the orchestrator did not answer in time; it may accept the job all the same. To submit with "
                f"request_id='{request.request_id}' answers with that job, and submits no second one", error.code,
                error.reason) from None

    async def plan(self, spec: Spec, folder: str | os.PathLike[str] | None, workers: int,
                   validate_only: bool) -> v1.PlanJobResponse:
        """How the job would be cut and run."""
        file, named = await self._load(spec, folder)
        try:
            request = v1.PlanJobRequest(spec=file.spec, workers=workers, validate_only=validate_only)
            await self._give(file, named, request.files)
            return await self._wire.call(_methods.PLAN, request)
        except errors.InvalidRequestError as error:
            raise file.explained(error) from None

    async def _load(self, spec: Spec, folder: str | os.PathLike[str] | None) -> tuple[SpecFile, list[NamedFile]]:
        file = SpecFile(spec, folder)
        # An orchestrator that is not there is said at once; only one that was there is waited for.
        await self._wire.call(_methods.VERSION, v1.GetVersionRequest())
        if self._private is not None:
            self._private.adapt(file.spec)
        await self._check(file)
        return file, prepare(file)

    async def _check(self, file: SpecFile) -> None:
        """What is wrong with the spec itself is refused before its files are read and sent. The orchestrator looks at
        that first: what it says of the files, which it has not been given, does not count."""
        fields = fields_of_files(file.spec)
        if not fields:
            return
        try:
            await self._wire.call(_methods.PLAN, v1.PlanJobRequest(spec=file.spec, validate_only=True))
        except errors.InvalidSpecError as error:
            if not fields & {list_of(violation.field) for violation in error.violations}:
                raise file.explained(error) from None
        except errors.ApiError:
            pass  # The request itself will tell.

    async def _give(self, file: SpecFile, named: list[NamedFile], files: Any) -> FileDelivery:
        delivery = FileDelivery(self._wire, self._private.store if self._private else None, self._on_file)
        refs = await delivery.give([path_of(file, each.path) for each in named])
        for each, ref in zip(named, refs):
            files[each.path].CopyFrom(ref)
        if self._private is not None:
            await self._private.ready(self._wire)
        return delivery

    async def _give_and_submit(self, file: SpecFile, named: list[NamedFile], resume: str | os.PathLike[str] | None,
                               request: v1.SubmitJobRequest) -> v1.Job:
        delivery = await self._give(file, named, request.files)
        if resume is not None:
            await _add_resume(delivery, resume, request)
        give_up, backoff = time.monotonic() + RETRY_SECONDS, 0.1
        while True:
            try:
                return await self._wire.call(_methods.SUBMIT, request)
            except errors.UnavailableError:
                if time.monotonic() > give_up:
                    raise
            await self._wire.sleep(backoff)
            backoff = min(backoff * 2, 2.0)


async def _add_resume(delivery: FileDelivery, resume: str | os.PathLike[str], request: v1.SubmitJobRequest) -> None:
    """A job's id, or a folder with a checkpoint."""
    if not os.path.isdir(resume):
        request.resume_job = os.fspath(resume)
        return
    folder = newest_checkpoint(pathlib.Path(resume))
    names = files_of_checkpoint(folder)
    manifest, *refs = await delivery.give([folder / name for name in (MANIFEST, *names)])
    request.resume_files.manifest.CopyFrom(manifest)
    for name, ref in zip(names, refs):
        request.resume_files.files[name].CopyFrom(ref)
