"""A private cluster to attack: what it uses, whether it is well, the jobs that train beside, and who tidies up."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pathlib
import re
import threading
import time
from collections.abc import Iterator

import grpc

import rpcs
from api import Api
from cluster import Cluster, gpipe, losses_of, wait_until, write_spec
from failure_table import training_spec
from mutator import Mutator

MIB = 1 << 20
# Over what was there halfway.
MORE_BYTES, MORE_DESCRIPTORS, MORE_THREADS, MORE_DISK = 64 * MIB, 24, 8, 64 * MIB
MORE_BYTES_OF_WORKER = 512 * MIB  # Models of any size are looked at by it, and the library of tensors keeps memory.
THREADS = 4  # That call.
REAL_WORKERS = 3
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]


@dataclasses.dataclass
class Usage:
    """Of one process, and of a folder."""

    resident: int
    descriptors: int
    threads: int
    disk: int = 0

    @classmethod
    def of(cls, pid: int, folder: pathlib.Path | None = None) -> Usage:
        proc = pathlib.Path(f"/proc/{pid}")
        pages = int((proc / "statm").read_text().split()[1])
        return cls(pages * os.sysconf("SC_PAGESIZE"), len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir())),
                   sum(size_of(path) for path in all_below(folder)) if folder else 0)

    def grown_to(self, other: Usage, more_bytes: int = MORE_BYTES) -> list[str]:
        limits = {"resident": more_bytes, "descriptors": MORE_DESCRIPTORS, "threads": MORE_THREADS, "disk": MORE_DISK}
        return [f"{name} from {getattr(self, name)} to {getattr(other, name)}" for name, more in limits.items()
                if getattr(other, name) > getattr(self, name) + more]

    def __str__(self):
        return f"{self.resident / MIB:5.0f} MiB {self.descriptors:4} fds {self.threads:3} thr {self.disk / MIB:5.1f} MiB"


def all_below(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Folders may go meanwhile, of which rglob() makes an error."""
    for parent, folders, files in os.walk(folder):
        yield from (pathlib.Path(parent, name) for name in (*folders, *files))


def size_of(path: pathlib.Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size if path.is_file() else 0
    return 0


class Target:
    """A cluster to attack, what watches over it, and the job beside."""

    def __init__(self, folder: pathlib.Path, seed: int, steps: int):
        self.folder, self.seed = folder, seed
        self.mark = f"gpipe-escaped-{os.getpid()}-{seed}"
        (folder / "tmp").mkdir(parents=True)
        environment = {"TMPDIR": str(folder / "tmp"), "HOME": str(folder / "tmp")}
        self.cluster = Cluster(folder / "cluster", lease_millis=10_000, environment=environment,
                               arguments=["--http-listen", "127.0.0.1:0"])
        self.cluster.start_workers(REAL_WORKERS, environment=environment)
        log = (self.cluster.folder / "orchestrator.log").read_text()
        self.address, self.http = self.cluster.address, re.findall(r"serving HTTP on (\S+)", log)[-1]
        self.api = Api(self.address)
        self.channels = [grpc.insecure_channel(self.address, [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)])
                         for _ in range(THREADS)]
        self.rpcs = rpcs.all_rpcs(self.channels[0])
        self.spec = training_spec("beside", 2, steps=steps)
        self.spec["pipeline"]["device"] = "cpu"
        self.spec["train"]["checkpoint_every"] = steps // 4
        self.spec["train"]["evaluate"]["every_steps"] = steps // 4
        begin = time.monotonic()
        self.undisturbed, self.victim = self._run_beside()
        self.seconds = time.monotonic() - begin
        self.counter = itertools.count()
        plan = self.api.PlanJob(spec=rpcs.spec("attack", "DEVICE_CPU"), validate_only=True).plan
        self.layers = [layer.SerializeToString() for layer in plan.layers]
        self.state_names = self._state_names()

    def _run_beside(self):
        """The losses of the job, and its id."""
        job = self.cluster.submit(write_spec(self.folder, self.spec))
        done = self.cluster.wait(job, 600)
        assert done["state"] == "STATE_SUCCEEDED", done
        return losses_of(self.cluster.pull(job, self.folder / f"results-{job}")), job

    @property
    def orchestrator(self) -> int:
        return self.cluster.orchestrator.pid

    @property
    def artifacts(self) -> pathlib.Path:
        return self.cluster.state / "artifacts"

    def usage(self) -> Usage:
        return Usage.of(self.orchestrator, self.artifacts)

    def workers(self) -> dict[str, Usage]:
        return {name: Usage.of(process.pid) for name, process in self.cluster.workers.items()}

    def mutator(self) -> Mutator:
        """Another one each time."""
        return Mutator(f"{self.seed}/{next(self.counter)}", self.mark)

    def seeds(self) -> dict[str, list[list]]:
        """Of each RPC its messages."""
        found = rpcs.seeds(self.victim)
        assert set(found) == set(self.rpcs), f"RPCs without a seed, or the other way round: {set(found) ^ set(self.rpcs)}"
        return {path: [[self.rpcs[path].message(fields) for fields in group] for group in groups]
                for path, groups in found.items()}

    def peak(self) -> int:
        """The most bytes of memory that it has had since that was set back."""
        status = pathlib.Path(f"/proc/{self.orchestrator}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024

    # --- What must be so at any time ---

    def check(self):
        for name, process in {"orchestrator": self.cluster.orchestrator, **self.cluster.workers}.items():
            assert process.poll() is None, f"{name} has ended with {process.returncode}: {self._tail(name)}"
        begin = time.monotonic()
        assert self.api.GetVersion(timeout=30).version
        return time.monotonic() - begin

    def _tail(self, name: str) -> str:
        return (self.cluster.folder / f"{name}.log").read_text(errors="replace")[-2000:]

    def grown_since(self, before: Usage, workers: dict[str, Usage], seconds: float = 45) -> list[str]:
        """What is still more than there was, when what ends by itself has had the time to."""
        def grown():
            found = [f"the orchestrator: {what}" for what in before.grown_to(self.usage())]
            return found + [f"{name}: {what}" for name, now in self.workers().items()
                            for what in workers[name].grown_to(now, MORE_BYTES_OF_WORKER)]
        deadline = time.monotonic() + seconds
        while (found := grown()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def _state_names(self) -> set[str]:
        names = {str(path.relative_to(self.cluster.state)) for path in self.cluster.state.iterdir()}
        return {name for name in names if not name.endswith(("-wal", "-shm", "-journal"))}

    def files_outside(self) -> list[str]:
        """Files that are where none of ours belongs."""
        around = [pathlib.Path(name) for name in ("/", "/tmp", "/etc", "/var/tmp", "/root", os.getcwd())]
        around += [self.folder, *self.folder.parents]
        found = {str(path) for place in around if place.is_dir() for path in place.iterdir() if self.mark in path.name}
        found |= {str(path) for path in all_below(self.folder) if self.mark in path.name}
        found |= {f"{self.cluster.state}/{name}" for name in self._state_names() - self.state_names}
        for path in all_below(self.artifacts):
            name = str(path.relative_to(self.artifacts))
            if path.is_file() and not re.fullmatch(r"([0-9a-f]{2}/[0-9a-f]{64}(\.[\w.-]+)?)|(tmp/.*)", name):
                found.add(str(path))
        return sorted(found)

    def stop(self):
        for channel in self.channels:
            channel.close()
        self.cluster.stop()


class Beside:
    """Trains one job after the other until it is told to stop, and compares their losses."""

    def __init__(self, target: Target):
        self.target, self.jobs, self.problems = target, 0, []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set() and not self.problems:
            try:
                losses, job = self.target._run_beside()
                self.jobs += 1
                if losses != self.target.undisturbed:
                    self.problems.append(f"the losses of {job} are not those of {self.target.victim}")
                gpipe("job", "delete", job, address=self.target.address)
            except Exception as error:
                self.problems.append(f"the job beside: {error}")

    def stop(self) -> list[str]:
        self._stop.set()
        self._thread.join()
        return self.problems


class Janitor:
    """Cancels and deletes what attacks have submitted, while they go on."""

    def __init__(self, target: Target):
        self.target, self.deleted, self._stop = target, 0, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stop.wait(0.2):
            with contextlib.suppress(grpc.RpcError):
                self.tidy()

    def tidy(self) -> int:
        """How many jobs of attacks there were."""
        jobs = [job for job in self.target.api.ListJobs(page_size=1000).jobs if job.spec.name != "beside"]
        for job in jobs:
            with contextlib.suppress(grpc.RpcError):
                if job.state < 5:
                    self.target.api.CancelJob(id=job.id)
                self.target.api.DeleteJob(id=job.id)
                self.deleted += 1
        return len(jobs)

    def stop(self):
        self._stop.set()
        self._thread.join()
        wait_until(lambda: self.tidy() == 0, 60, "the attacks' jobs are gone")
