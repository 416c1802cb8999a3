"""What the benchmarks share: specs of the benchmark models, running them, and words about the machine."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "python"))

from cluster import BIN, Cluster, gpipe, read_jsonl, wait_until, write_spec  # noqa: E402,F401

MODEL_DIM, HEADS, FEED_FORWARD, TOKENS, BATCH = 256, 4, 1024, 32, 64


def transformer_layers(count: int) -> list[dict]:
    layer = {"d_model": MODEL_DIM, "nhead": HEADS, "dim_feedforward": FEED_FORWARD, "dropout": 0.0}
    return [{"transformer_encoder_layer": dict(layer)} for _ in range(count)]


def even_balance(layers: int, stages: int) -> list[int]:
    return [layers // stages + (1 if i < layers % stages else 0) for i in range(stages)]


def write_transformer_data(folder: pathlib.Path) -> None:
    import torch
    from safetensors.torch import save_file
    torch.manual_seed(0)
    shape = (BATCH, TOKENS, MODEL_DIM)
    save_file({"x": torch.randn(shape), "y": torch.randn(shape)}, folder / "data.safetensors")


def transformer_spec(name: str, layers: int, stages: int, *, chunks=32, checkpoint="never", steps=8, device="cpu",
                     clock_window=0) -> dict:
    return {
        "name": name,
        "model": {"sequential": transformer_layers(layers), "init_seed": 1},
        "pipeline": {"balance": even_balance(layers, stages), "chunks": chunks, "checkpoint": checkpoint,
                     "device": device, "clock_window": clock_window},
        "train": {"dataset": {"path": "data.safetensors", "inputs": ["x"], "target": "y"}, "batch_size": BATCH,
                  "steps": steps, "loss": {"mse": {}}, "optimizer": {"sgd": {"lr": 0.01}}},
    }


def exported_spec(name: str, case: str, batch: int, *, class_dim=1, steps=8, **pipeline) -> dict:
    """Training of case.pt2 on case.safetensors (bench/exported_models.py)."""
    return {
        "name": name,
        "model": {"exported": {"path": f"{case}.pt2"}},
        "pipeline": {"checkpoint": "never", **pipeline},
        "train": {"dataset": {"path": f"{case}.safetensors", "inputs": ["x"], "target": "y"}, "batch_size": batch,
                  "steps": steps, "loss": {"cross_entropy": {"class_dim": class_dim}},
                  "optimizer": {"sgd": {"lr": 0.01}}},
    }


def start_run(folder: pathlib.Path, spec: dict, workers: int, threads: int = 1, device: str | None = None,
              gpus: int | None = None, trace: bool = False) -> subprocess.Popen:
    """`gpipe run` in the background; its results go to folder/<name>."""
    options = ["--workers", str(workers), "--threads", str(threads), "-q"]
    if device:
        options += ["--device", device]
    if gpus:
        options += ["--gpus", str(gpus)]
    if trace:
        options += ["--trace"]
    return subprocess.Popen([str(BIN / "gpipe"), "run", str(write_spec(folder, spec)), "--output",
                             str(folder / spec["name"]), "--overwrite", *options], stdin=subprocess.DEVNULL)


def step_seconds(folder: pathlib.Path, name: str, skip: int = 2) -> float:
    """Median seconds per step, the first `skip` steps left out."""
    return statistics.median(step["step_seconds"] for step in read_jsonl(folder / name / "metrics.jsonl")[skip:])


def run_and_time(folder: pathlib.Path, spec: dict, workers: int, **options) -> float:
    if start_run(folder, spec, workers, **options).wait() != 0:
        raise SystemExit(f"{spec['name']} failed")
    return step_seconds(folder, spec["name"])


def program(name: str) -> list[str]:
    """The command of a program of bench/, built here or packed with deploy/package.sh --with-tests."""
    if (BIN / name).exists():
        return [str(BIN / name)]
    return [str(BIN.parent / "libexec" / "with-torch"), str(BIN.parent / "tests" / name)]


def core_list() -> list[int]:
    """One logical CPU of each physical core, of those that this process may use."""
    cores = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(siblings.read_text().strip() if siblings.exists() else str(cpu), cpu)
    return list(cores.values())


@contextlib.contextmanager
def running_cluster(folder: pathlib.Path, workers: int, pin: bool = False):
    """A cluster of workers of one thread; with `pin` each one on a core of its own."""
    cluster = Cluster(folder / "cluster", lease_millis=10000)
    try:
        cluster.start_workers(workers)
        for process, core in zip(cluster.workers.values(), core_list() if pin else ()):
            pin_process(process.pid, core)
        yield cluster
    finally:
        cluster.stop()


def pin_process(pid: int, core: int) -> None:
    """All of its threads, and those that they will make."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), {core})


def run_peer(script: str, processes: int, *arguments, threads: int = 1, pin: bool = False) -> float:
    """A program of bench/peers under torchrun's environment, one process per rank; rank 0 prints seconds per step."""
    ranks = []
    with tempfile.TemporaryDirectory() as folder:
        for rank in range(processes):
            env = dict(os.environ, RANK=str(rank), WORLD_SIZE=str(processes), OMP_NUM_THREADS=str(threads),
                       RENDEZVOUS=f"file://{folder}/store", NCCL_HOSTID=f"rank{rank}", GLOO_SOCKET_IFNAME="lo")
            ranks.append(subprocess.Popen([sys.executable, str(ROOT / "bench" / "peers" / script),
                                           *map(str, arguments)], env=env, stdout=subprocess.PIPE, text=True))
            if pin:
                pin_process(ranks[-1].pid, core_list()[rank])
        outputs = [r.communicate()[0] for r in ranks]
    if any(r.returncode for r in ranks):
        raise SystemExit(f"{script} failed")
    return json.loads(outputs[0].splitlines()[-1])["step_seconds"]


def machine() -> str:
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
                 platform.machine())
    text = f"{os.cpu_count()} cores {model}"
    try:
        text += ", " + subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], text=True,
                                      capture_output=True, check=True).stdout.strip().replace("\n", ", ")
    except (OSError, subprocess.CalledProcessError):
        pass
    return text
