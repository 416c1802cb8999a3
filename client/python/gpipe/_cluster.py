"""A cluster of this process's own."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import Any, Literal

from gpipe import _methods, errors, v1
from gpipe._client import Client
from gpipe._endpoint import Endpoint
from gpipe._files import OnFile
from gpipe._machine import check_fits, count_cores, count_gpus, find_programs
from gpipe._operations import Operations
from gpipe._progress import file_progress
from gpipe._submission import Private
from gpipe._wire import BlockingWire, Wire

JOIN_PATIENCE = 120.0  # Seconds.
FAILURE_PATIENCE = 2.0
KEEPER = pathlib.Path(__file__).with_name("_keeper.py")


class Cluster(Client):
    """An orchestrator and its workers on this machine, and a client of them, as `gpipe run` has them.

        with gpipe.Cluster(workers=4) as cluster:
            job = cluster.submit("job.yaml").wait()

    They end with the `with` block, with close(), with the last use of the object, and with this process, however it
    ends, and leave no file. Specs are made to fit: no more workers than there are, their device, no restarts, as no
    other worker will come in the place of one that is lost. Files that a spec names are read where they are, and must
    stay as they are for as long as the job needs them.
    """

    def __init__(self, workers: int = 2, *, threads: int = 0,
                 device: Literal["cpu", "cuda"] | Sequence[str] = "cpu", gpus: int = 0,
                 bin_dir: str | os.PathLike[str] | None = None, on_file: OnFile | None = None):
        """`threads` of each worker: by default the cores are shared. With the device cuda worker i is on GPU i modulo
        `gpus`, which are counted by default; a list has each worker's device (`["cuda:1", "cuda:0"]`). `bin_dir` is
        where the programs are, GPIPE_BIN_DIR or the PATH by default. ClusterError says why it does not start."""
        if workers < 1:
            raise ValueError(f"workers must be at least 1, and is {workers}")
        check_fits(workers)
        devices = _devices(workers, device, gpus)
        config = {"parent": os.getpid(), "programs": find_programs(bin_dir), "devices": devices,
                  "threads": threads or max(1, count_cores() // workers)}
        self._keeper = _Keeper(config)
        # Also at the interpreter's end, and when nobody has the object any more.
        self._end = weakref.finalize(self, _stop_once, self._keeper, os.getpid())
        wire = _PrivateWire(Endpoint(self._keeper.address), self._keeper)
        artifacts = self._keeper.folder / "state" / "artifacts"
        shape = _Shape(workers, devices[0].partition(":")[0], self._keeper)
        private = Private(artifacts, shape.await_workers, shape.adapt)
        self._operations = Operations(wire, on_file or file_progress(), private)

    @property
    def processes(self) -> dict[str, int]:
        """Their numbers, by `orchestrator`, `w0`, ..."""
        return dict(self._keeper.processes)

    @property
    def folder(self) -> pathlib.Path:
        """Where all is stored while the cluster is there, and the logs of its processes (`w0.log`)."""
        return self._keeper.folder

    @property
    def shared_memory(self) -> pathlib.Path | None:
        """A folder in /dev/shm for tensors on their way between processes, which goes with the cluster, and so does all
        whose name begins with its name; None where there is no such place."""
        return self._keeper.shared_memory

    @property
    def failure(self) -> str:
        """Which process has ended that should not have, and how; empty: all run."""
        return self._keeper.failure

    def close(self) -> None:
        """Ends all processes in order. May be called again."""
        self._end()

    def __enter__(self) -> Cluster:
        return self


class _Shape:
    """What jobs find on the cluster. It holds nothing of the Cluster's, which goes with its last use."""

    def __init__(self, workers: int, device: str, keeper: _Keeper):
        self._workers, self._device, self._keeper = workers, device, keeper

    def adapt(self, spec: v1.JobSpec) -> None:
        """Makes it fit."""
        pipeline = spec.pipeline
        stages = len(pipeline.split) + 1 if pipeline.split else len(pipeline.balance)
        most = stages or len(spec.model.sequential) or self._workers  # Of an exported model a worker finds the layers.
        pipeline.workers = min(pipeline.workers or self._workers, self._workers, most)
        pipeline.device = v1.DEVICE_CUDA if self._device == "cuda" else v1.DEVICE_CPU
        spec.max_restarts = 0

    async def await_workers(self, wire: Wire) -> None:
        """They join within seconds, in which files could be read. ClusterError where one has ended since."""
        if self._keeper.failure:
            raise errors.ClusterError(self._keeper.failure)
        if self._keeper.joined:
            return
        idle: set[str] = set()
        with contextlib.suppress(errors.DeadlineError):
            async with contextlib.aclosing(wire.stream(_methods.WATCH_CLUSTER, v1.WatchClusterRequest(),
                                                       JOIN_PATIENCE)) as updates:
                async for update in updates:
                    if update.worker.state == v1.Worker.STATE_IDLE:
                        idle.add(update.worker.name)
                    if len(idle) >= self._workers:
                        self._keeper.joined = True
                        return
        raise errors.ClusterError(f"{len(idle)} of {self._workers} workers joined; the logs are in "
                                  f"{self._keeper.folder}")


def _devices(workers: int, device: str | Sequence[str], gpus: int) -> list[str]:
    if not isinstance(device, str):
        kinds = sorted({each.partition(":")[0] for each in device})
        if len(device) != workers or kinds not in (["cpu"], ["cuda"]):
            raise ValueError(f"device must list {workers} devices of one kind, cpu or cuda, and is {list(device)}")
        return list(device)
    if device == "cpu":
        return ["cpu"] * workers
    if device != "cuda":
        raise ValueError(f"device must be cpu or cuda, and is '{device}'")
    gpus = gpus or count_gpus()
    if gpus == 0:
        raise errors.ClusterError("no GPU was found; gpus=N says how many there are")
    return [f"cuda:{i % gpus}" for i in range(workers)]


class _Keeper:
    """The process that keeps the others (_keeper.py), and what it has said."""

    def __init__(self, config: dict[str, Any]):
        # In a session of its own: it outlives a Ctrl-C, to end the others in order. Without this package and its
        # surroundings it starts at once.
        self._process = subprocess.Popen([sys.executable, "-I", "-S", str(KEEPER)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, start_new_session=True)
        self.failure = ""  # Why a child ended that should not have.
        self.joined = False
        self._failed = threading.Event()  # Or will not fail any more.
        self.wire: _PrivateWire | None = None
        self._listener = threading.Thread(target=self._listen, name="gpipe-keeper", daemon=True)
        try:
            self._tell(json.dumps(config))
            first = self._hear()
        except BaseException:
            self.stop()
            raise
        if first is None or "address" not in first:
            self.stop()
            raise errors.ClusterError("the cluster does not start: " + str(
                (first or {}).get("how") or (first or {}).get("failed") or "its keeper ended without a word"))
        self.address, self.folder = str(first["address"]), pathlib.Path(first["folder"])
        self.shared_memory = pathlib.Path(first["shared_memory"]) if first["shared_memory"] else None
        self.processes: dict[str, int] = first["processes"]
        self._listener.start()

    def await_failure(self) -> str:
        """Of a child that does not answer any more, which the keeper is about to notice."""
        self._failed.wait(FAILURE_PATIENCE)
        return self.failure

    def stop(self) -> None:
        """Returns when nothing is left. When it is interrupted the keeper goes on all the same."""
        assert self._process.stdin is not None
        self._failed.set()
        if self.wire is not None:
            self.wire.abort()  # A server that shuts down waits for connections.
        with contextlib.suppress(OSError):  # A word, as a child that was forked off may hold the pipe open.
            self._tell("stop")
            self._process.stdin.close()
        self._process.wait()
        self._close_words()
        # Only a keeper that was killed leaves its folders.
        folder, memory = getattr(self, "folder", None), getattr(self, "shared_memory", None)
        for left in ([folder] if folder else []) + ([*memory.parent.glob(f"{memory.name}*")] if memory else []):
            shutil.rmtree(left, ignore_errors=True)

    def _close_words(self) -> None:
        """When all are heard. A finalizer may call this on the listener's own thread."""
        assert self._process.stdout is not None
        if not self._listener.is_alive():
            self._process.stdout.close()
        elif self._listener is not threading.current_thread():
            self._listener.join(FAILURE_PATIENCE)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.stdout.close()
        words: dict[str, Any] | None = json.loads(line) if line else None
        return words

    def _listen(self) -> None:
        """On a thread of its own: a child that ends before all have joined is waited for by nobody else."""
        while (words := self._hear()) is not None:
            self.failure = self.failure or words.get("how", "")
            self._failed.set()
            if not self.joined and self.wire is not None:
                self.wire.abort()
        self._failed.set()


class _PrivateWire(BlockingWire):
    """Says what has ended, rather than that nobody answers."""

    def __init__(self, endpoint: Endpoint, keeper: _Keeper):
        super().__init__(endpoint)
        self._keeper = keeper
        keeper.wire = self

    def abort(self) -> None:
        """Ends the calls that are under way. Any thread."""
        self._channel.close()

    def explain(self, error: errors.ApiError) -> errors.Error:
        transport = isinstance(error, (errors.UnavailableError, errors.CancelledError))
        return errors.ClusterError(failure) if transport and (failure := self._keeper.await_failure()) else error


def _stop_once(keeper: _Keeper, owner: int) -> None:
    """Not from a process that was forked off."""
    if os.getpid() == owner:
        keeper.stop()
