"""The processes of the peers, from the side that asks them."""

from __future__ import annotations

import json
import os
import pathlib
import select
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent


class Failed(RuntimeError):
    pass


class Ranks:
    """`world` processes of rank.py on `gpus` GPUs (0: on the CPU). They start with the first case, and again after a
    failure."""

    def __init__(self, world: int, gpus: int, folder: pathlib.Path):
        self.world, self.gpus, self.folder = world, gpus, folder
        self.processes: list[subprocess.Popen] = []
        self.starts = 0

    def start(self) -> None:
        self.starts += 1
        for rank in range(self.world):
            device = f"cuda:{rank % self.gpus}" if self.gpus else "cpu"
            env = dict(os.environ, RANK=str(rank), WORLD_SIZE=str(self.world), DEVICE=device,
                       RENDEZVOUS=f"file://{self.folder}/store{self.starts}", GLOO_SOCKET_IFNAME="lo")
            if self.world > self.gpus > 0:
                env["NCCL_HOSTID"] = f"rank{rank}"  # Else NCCL refuses ranks that share a GPU.
            with open(self.log_of(rank), "w") as log:
                self.processes.append(subprocess.Popen([sys.executable, str(HERE / "rank.py")], env=env, text=True,
                                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log))

    def log_of(self, rank: int) -> pathlib.Path:
        return self.folder / f"rank{rank}.{self.starts}.log"

    def ask(self, case: dict, seconds: float) -> list[dict]:
        """The answers of all ranks. After a failure there are no processes."""
        if not self.processes:
            self.start()
        try:
            for process in self.processes:
                process.stdin.write(json.dumps(case) + "\n")
                process.stdin.flush()
            return self.answers(time.monotonic() + seconds)
        except (Failed, OSError) as error:
            self.stop()
            raise Failed(f"{error}{self.last_words() if isinstance(error, OSError) else ''}") from None

    def answers(self, deadline: float) -> list[dict]:
        found: dict[int, dict] = {}
        while len(found) < self.world:
            waiting = {self.processes[rank].stdout: rank for rank in range(self.world) if rank not in found}
            ready, _, _ = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise Failed(f"no answer in time from ranks {sorted(waiting.values())}")
            for stream in ready:
                line, rank = stream.readline(), waiting[stream]
                if not line:
                    raise Failed(f"rank {rank} ended:{self.last_words()}")
                found[rank] = json.loads(line)
                if "error" in found[rank]:
                    raise Failed(f"rank {rank}: {found[rank]['error']}")
        return [found[rank] for rank in range(self.world)]

    def last_words(self) -> str:
        lines = [self.log_of(rank).read_text(errors="replace").strip().splitlines()[-1:] for rank in range(self.world)]
        return " " + " | ".join(line for found in lines for line in found)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            process.stdin.close()
            process.stdout.close()
        self.processes = []
