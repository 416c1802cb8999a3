"""The faces of a cluster: Client blocks, AsyncClient is for an event loop. What they do is in _operations.py."""

from __future__ import annotations

import os
from gpipe import _endpoint, v1
from gpipe._endpoint import Path
from gpipe._files import OnFile
from gpipe._job import AsyncJob, Job
from gpipe._operations import Folder, Operations
from gpipe._plan import Plan
from gpipe._progress import file_progress
from gpipe._spec import Spec
from gpipe._wire import AsyncWire, BlockingWire, run


class Client:
    """A standing cluster.

        client = gpipe.Client("orchestrator.example.org:7070", tls_ca="ca.crt", token_file="token")
        job = client.submit("job.yaml").wait()

    What is not given is taken from GPIPE_ORCHESTRATOR, GPIPE_TLS_CA, GPIPE_TLS_CERT, GPIPE_TLS_KEY and
    GPIPE_TOKEN_FILE, as the program `gpipe` does; then 127.0.0.1:7070, in plain text. `on_file` is called with what is
    done to a file, the bytes so far and all of them; by default large ones have a bar where somebody looks. Connects at
    the first call. Any thread may use it and its jobs. Everything can raise ApiError (gpipe.errors).
    """

    def __init__(self, address: str | None = None, *, tls_ca: Path | None = None, tls_cert: Path | None = None,
                 tls_key: Path | None = None, token: str | None = None, token_file: Path | None = None,
                 on_file: OnFile | None = None):
        endpoint = _endpoint.find(address, tls_ca, tls_cert, tls_key, token, token_file)
        self._operations = Operations(BlockingWire(endpoint), on_file or file_progress())

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self._operations.wire.endpoint.address

    def submit(self, spec: Spec, *, folder: Folder = None, resume: str | os.PathLike[str] | None = None,
               request_id: str | None = None) -> Job:
        """A job of a spec: a YAML file's path, a mapping with the same fields, or a v1.JobSpec.

        Files that it names are relative to the YAML file, or to `folder`, the working directory by default; what the
        cluster has not got is sent. `resume` goes on from the newest checkpoint of a job, by id, or of a folder of
        results. The same `request_id` again answers with the same job. InvalidSpecError has all that is wrong."""
        return Job(self._operations, run(self._operations.submit(spec, folder, resume, request_id)), self)

    def plan(self, spec: Spec, *, folder: Folder = None, workers: int = 0) -> Plan:
        """How the job would be cut and run; for so many workers, 0: for those that the spec asks for."""
        return run(self._operations.plan(spec, folder, workers))

    def validate(self, spec: Spec, *, folder: Folder = None) -> list[str]:
        """InvalidSpecError as `submit` would raise it; else what else there is to know."""
        return run(self._operations.validate(spec, folder))

    def job(self, id: str) -> Job:
        """JobNotFoundError if there is none."""
        return Job(self._operations, run(self._operations.get(id)), self)

    def jobs(self, *states: str, limit: int = 0) -> list[Job]:
        """Newest first, without their files; those in one of these states, and so many."""
        return [Job(self._operations, job, self) for job in run(self._operations.jobs(states, limit))]

    def workers(self) -> list[v1.Worker]:
        """Names, devices, states, what they do."""
        return run(self._operations.workers())

    def drain(self, worker: str, reason: str = "") -> v1.Worker:
        """It gets no new work until it is undrained; what it runs goes on."""
        return run(self._operations.drain(worker, reason))

    def undrain(self, worker: str) -> v1.Worker:
        """It gets work again."""
        return run(self._operations.undrain(worker))

    def version(self) -> v1.GetVersionResponse:
        """Of the orchestrator."""
        return run(self._operations.version())

    def close(self) -> None:
        """Ends the connection. Its jobs go on."""
        run(self._operations.wire.close())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient:
    """As Client, for an event loop: one of asyncio.

        async with gpipe.AsyncClient("127.0.0.1:7070") as client:
            job = await client.submit("job.yaml")
            async for update in job.watch():
                ...
    """

    def __init__(self, address: str | None = None, *, tls_ca: Path | None = None, tls_cert: Path | None = None,
                 tls_key: Path | None = None, token: str | None = None, token_file: Path | None = None,
                 on_file: OnFile | None = None):
        endpoint = _endpoint.find(address, tls_ca, tls_cert, tls_key, token, token_file)
        self._operations = Operations(AsyncWire(endpoint), on_file or file_progress())

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return self._operations.wire.endpoint.address

    async def submit(self, spec: Spec, *, folder: Folder = None, resume: str | os.PathLike[str] | None = None,
                     request_id: str | None = None) -> AsyncJob:
        """As Client.submit."""
        return AsyncJob(self._operations, await self._operations.submit(spec, folder, resume, request_id), self)

    async def plan(self, spec: Spec, *, folder: Folder = None, workers: int = 0) -> Plan:
        """As Client.plan."""
        return await self._operations.plan(spec, folder, workers)

    async def validate(self, spec: Spec, *, folder: Folder = None) -> list[str]:
        """As Client.validate."""
        return await self._operations.validate(spec, folder)

    async def job(self, id: str) -> AsyncJob:
        """As Client.job."""
        return AsyncJob(self._operations, await self._operations.get(id), self)

    async def jobs(self, *states: str, limit: int = 0) -> list[AsyncJob]:
        """As Client.jobs."""
        return [AsyncJob(self._operations, job, self) for job in await self._operations.jobs(states, limit)]

    async def workers(self) -> list[v1.Worker]:
        """As Client.workers."""
        return await self._operations.workers()

    async def drain(self, worker: str, reason: str = "") -> v1.Worker:
        """As Client.drain."""
        return await self._operations.drain(worker, reason)

    async def undrain(self, worker: str) -> v1.Worker:
        """As Client.undrain."""
        return await self._operations.undrain(worker)

    async def version(self) -> v1.GetVersionResponse:
        """As Client.version."""
        return await self._operations.version()

    async def close(self) -> None:
        """As Client.close."""
        await self._operations.wire.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
