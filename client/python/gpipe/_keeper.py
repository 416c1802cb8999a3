"""Keeps the processes of a private cluster, in a process of its own: run by _cluster.py, it imports nothing of this
package.

It ends them in order when it is told to, and when the process that started it is gone, however that ended: a SIGKILL
gives nobody else a chance. Should this process be killed, the kernel kills its children. On its standard input it gets
a line of JSON, what to start, and later a word: stop. On its standard output it says, a JSON object a line, where the
orchestrator listens, and which child has ended that should not have.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import json
import os
import pathlib
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

START_PATIENCE = 60.0  # Seconds.
# To end in order, before a SIGKILL: nothing of what they have is wanted any more.
PATIENCE = 2.0
LOG_LINES, LOG_BYTES = 12, 1 << 14
PR_SET_PDEATHSIG = 1
ORCHESTRATOR = "orchestrator"
# Where files are memory, for tensors on their way between processes.
MEMORY = "/dev/shm"
# Of a standing cluster.
UNSET = ("GPIPE_TLS_CA", "GPIPE_TLS_CERT", "GPIPE_TLS_KEY", "GPIPE_TOKEN_FILE")


class Stopped(Exception):
    """Nobody wants the cluster any more."""


class Failed(Exception):
    """It cannot be had."""


class Keeper:
    """One orchestrator and its workers, with all that they store in one temporary folder, and one in memory."""

    def __init__(self, config: dict[str, Any]):
        self._config = config
        self._libc, self._own_number = ctypes.CDLL(None), os.getpid()
        self._folder, self._shared_memory = pathlib.Path(), ""
        self._children: dict[str, subprocess.Popen[bytes]] = {}  # The orchestrator first.
        self._ended: set[str] = set()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Until it is to stop. Leaves no process and no file."""
        self._watch_signals()
        self._watch_parent()
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="gpipe-"))
        with contextlib.suppress(OSError):  # Without such a place all is done without it.
            self._shared_memory = tempfile.mkdtemp(prefix="gpipe-", dir=MEMORY)
        try:
            address = self._start_orchestrator()
            for i, device in enumerate(self._config["devices"]):
                self._start_worker(f"w{i}", device, address)
            tell(address=address, folder=str(self._folder), shared_memory=self._shared_memory,
                 processes={name: child.pid for name, child in self._children.items()})
            while True:
                self._wait(None)
        except Stopped:
            pass
        except Failed as error:
            tell(failed=str(error))
        finally:
            self._stop()
            shutil.rmtree(self._folder, ignore_errors=True)
            # Also those that others have made with its name before theirs.
            for folder in glob.glob(f"{self._shared_memory}*") if self._shared_memory else []:
                shutil.rmtree(folder, ignore_errors=True)

    # --- What there is to wait for ---

    def _watch_parent(self) -> None:
        """By its pidfd, as children that it forks keep the other end of a pipe open; by that alone on an old kernel."""
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "parent")
        with contextlib.suppress(AttributeError, OSError):
            self._selector.register(os.pidfd_open(self._config["parent"]), selectors.EVENT_READ, "parent")
        if os.getppid() != self._config["parent"]:
            raise Stopped  # It was gone before we looked.

    def _watch_signals(self) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        self._selector.register(reader, selectors.EVENT_READ, "signal")
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)

    def _wait(self, deadline: float | None, more: int | None = None) -> bool:
        """Waits for what comes next, and sees to it. True: `more`, a file, can be read; False at the deadline too."""
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable = False
        for key, _ in self._selector.select(timeout):
            if key.data == "parent":
                raise Stopped
            if key.data == "signal":
                if signal.SIGTERM in os.read(key.fd, 4096):
                    raise Stopped
                self._note_ended()
            readable |= key.fd == more
        return readable

    def _note_ended(self) -> None:
        for name, child in self._children.items():
            if name not in self._ended and child.poll() is not None:
                self._ended.add(name)
                tell(ended=name, how=self._how_ended(name))

    # --- Starting ---

    def _start_orchestrator(self) -> str:
        reader, writer = os.pipe()
        self._start(ORCHESTRATOR, ["--listen", "127.0.0.1:0", "--state-dir", str(self._folder / "state"), "--ready-fd",
                                   str(writer)], pass_fds=(writer,))
        os.close(writer)
        self._selector.register(reader, selectors.EVENT_READ, "ready")
        line, deadline = b"", time.monotonic() + START_PATIENCE
        while not line.endswith(b"\n"):
            if self._wait(deadline, reader):
                part = os.read(reader, 256)
                line += part
                if not part:  # About to end, and how says more.
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self._children[ORCHESTRATOR].wait(PATIENCE)
                    raise Failed(self._how_ended(ORCHESTRATOR))
            elif time.monotonic() >= deadline:
                raise Failed(f"the orchestrator has not begun to listen within {START_PATIENCE:g} s")
        self._selector.unregister(reader)
        os.close(reader)
        return line.decode().strip()

    def _start_worker(self, name: str, device: str, address: str) -> None:
        self._start(name, ["--orchestrator", address, "--name", name, "--device", device, "--threads",
                           str(self._config["threads"]), "--data-address", "127.0.0.1", "--work-dir",
                           str(self._folder / name), "--artifacts-dir", str(self._folder / "state" / "artifacts")])

    def _start(self, name: str, arguments: list[str], pass_fds: tuple[int, ...] = ()) -> None:
        """In a session of its own, so that a Ctrl-C on the terminal is not its business."""
        program = self._config["programs"][ORCHESTRATOR if name == ORCHESTRATOR else "worker"]
        environment = {key: value for key, value in os.environ.items() if key not in UNSET}
        with open(self._folder / f"{name}.log", "ab") as log:
            try:
                # There is no other thread here, so that Python may run between fork and exec.
                self._children[name] = subprocess.Popen(
                    [program, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                    pass_fds=pass_fds, start_new_session=True, preexec_fn=self._die_with_us)
            except (OSError, subprocess.SubprocessError) as error:
                raise Failed(f"cannot start {program}: {error}") from None

    def _die_with_us(self) -> None:
        self._libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != self._own_number:
            os._exit(127)  # We died before the line above.

    # --- Ending ---

    def _stop(self) -> None:
        """All workers at once: each ends its session while the orchestrator is there to take its leave."""
        workers = [child for name, child in self._children.items() if name != ORCHESTRATOR]
        for group in (workers, [self._children[ORCHESTRATOR]] if ORCHESTRATOR in self._children else []):
            deadline = time.monotonic() + PATIENCE
            for child in group:
                child.terminate()
            for child in group:
                try:
                    child.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def _how_ended(self, name: str) -> str:
        code = self._children[name].poll()
        how = "runs" if code is None else f"ended with {code}" if code >= 0 else (
            f"was killed by signal {-code} ({signal.strsignal(-code)})")
        with open(self._folder / f"{name}.log", "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_BYTES))
            tail = "\n".join(log.read().decode(errors="replace").splitlines()[-LOG_LINES:])
        return f"{name} {how}; the end of its log:\n{tail}" if tail else f"{name} {how} without a word"


def tell(**words: Any) -> None:
    """One line to whoever started us; nobody may be there to hear it."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), json.dumps(words).encode() + b"\n")


def main() -> None:
    """Reads what to start, and keeps it."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    line = b""
    while not line.endswith(b"\n"):  # Not a byte more: what follows is waited for.
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            return
        line += byte
    with contextlib.suppress(Stopped):
        Keeper(json.loads(line)).run()


if __name__ == "__main__":
    main()
