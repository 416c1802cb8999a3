"""What this machine has for a private cluster, and where its programs are (client/local/machine.h)."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

from gpipe.errors import ClusterError

# More workers than that on a core wait for each other rather than compute.
WORKERS_PER_CORE, LEAST_WORKERS = 8, 16
WORKER_BYTES = 256 << 20  # Of a worker without a model.


def count_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def count_gpus() -> int:
    """Those that this process may use: of CUDA_VISIBLE_DEVICES when it is set, else those that nvidia-smi lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        devices = [device for device in visible.split(",") if device.strip()]
        # CUDA stops looking at the first one that is none: -1 hides all.
        return next((i for i, device in enumerate(devices) if device.startswith("-")), len(devices))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    except OSError:
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def free_memory() -> int:
    """Bytes that programs may still use without others having to give way."""
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return sys.maxsize  # Not known: no reason to refuse anything.


def check_fits(workers: int) -> None:
    """ValueError when so many workers would bring this machine to its knees."""
    cores, memory = count_cores(), free_memory()
    by_cores, by_memory = max(LEAST_WORKERS, WORKERS_PER_CORE * cores), max(1, memory // WORKER_BYTES)
    if workers > min(by_cores, by_memory):
        raise ValueError(f"{workers} workers are too many for this machine: its {cores} cores are enough for "
                         f"{by_cores}, and its {memory >> 20} MiB of free memory for {by_memory}")


def find_programs(bin_dir: str | os.PathLike[str] | None) -> dict[str, str]:
    """gpipe-orchestrator and gpipe-worker: in `bin_dir`, in GPIPE_BIN_DIR, on the PATH, or in the archive or the source
    tree that this package lies in. ClusterError tells where they were looked for."""
    here = pathlib.Path(__file__).resolve()
    given = bin_dir or os.environ.get("GPIPE_BIN_DIR")
    places = [os.fspath(given)] if given else [os.environ.get("PATH", os.defpath), str(here.parents[4] / "bin"),
                                               str(here.parents[3] / "build" / "bin")]
    for place in places:
        found = [shutil.which(name, path=place) for name in ("gpipe-orchestrator", "gpipe-worker")]
        if found[0] and found[1]:
            return {"orchestrator": os.path.abspath(found[0]), "worker": os.path.abspath(found[1])}
    raise ClusterError(f"gpipe-orchestrator and gpipe-worker are not in {', '.join(places)}; GPIPE_BIN_DIR says where")
