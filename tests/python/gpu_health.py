#!/usr/bin/env python3
"""What `gpipe worker list` says of a GPU, against nvidia-smi and the wheels that are installed, with another cuDNN on the
caller's LD_LIBRARY_PATH: gpu_health.py [--device cuda:0], for the programs of an archive, whose worker has a launcher
(GPIPE_BIN_DIR). Ends with 1 when something is wrong."""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from cluster import BIN, Cluster, gpipe, wait_until
from test_metrics import HTTP, documented, get, http_address, names

problems = []


def check(fine, words):
    print(("ok      " if fine else "WRONG   ") + words)
    if not fine:
        problems.append(words)


def smi(device, field):
    """A number, as text, or None where the driver does not support it, or there is no nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return None
    done = subprocess.run(["nvidia-smi", "-i", device.removeprefix("cuda:"), f"--query-gpu={field}",
                           "--format=csv,noheader,nounits"], text=True, capture_output=True, check=True)
    value = done.stdout.strip()
    return value if re.fullmatch(r"[\d.]+", value) else None


def check_software(software, device):
    for name, package in (("cudnn", "nvidia-cudnn-cu13"), ("nccl", "nvidia-nccl-cu13"), ("torch", "torch")):
        wanted = ".".join(importlib.metadata.version(package).split("+")[0].split(".")[:3])
        check(software.get(name) == wanted, f"{name} {software.get(name)}, installed {wanted}")
    driver, theirs = software.get("driver", ""), smi(device, "driver_version")
    check(re.fullmatch(r"[\d.]+", driver) and theirs in (driver, None), f"driver {driver}, of nvidia-smi {theirs}")
    check(re.fullmatch(r"\d+\.\d", software.get("cuda", "")), f"cuda {software.get('cuda')}")


def check_health(gpu, device):
    """Values are near what nvidia-smi says a moment later; without it, they are those of a GPU that lives."""
    for name, field, slack, least in (
            ("temperature_celsius", "temperature.gpu", 15, 10), ("power_watts", "power.draw", 150, 5),
            ("max_clock_mhz", "clocks.max.sm", 0, 500), ("clock_mhz", "clocks.sm", 3000, 50),
            ("uncorrected_errors", "ecc.errors.uncorrected.volatile.total", 0, 0)):
        said, theirs = float(gpu.get(name, 0)), smi(device, field)
        near = theirs is None or abs(said - float(theirs)) <= slack
        check(said >= least and near, f"{name} {said}, of nvidia-smi {theirs}")
    check(set(gpu.get("slowed_by", [])) <= {"power", "heat", "hardware"}, f"slowed by {gpu.get('slowed_by', [])}")


def check_metrics(cluster):
    worker, orchestrator = (http_address(cluster.folder / f"{log}.log") for log in ("w0", "orchestrator"))
    for address, heading in ((worker, "Worker"), (orchestrator, "Orchestrator")):
        wanted = {name for name in documented(heading) if "_gpu_" in name}
        missing = wanted - names(get(address, "/metrics")[1])
        check(wanted and not missing, f"{len(wanted)} metrics of GPUs of the {heading.lower()}, missing: {missing}")


def one_worker(folder, device, environment):
    """Starts it with those variables, and checks all that is said of it."""
    cluster = Cluster(folder, arguments=HTTP)
    try:
        cluster.start_worker("w0", device=device, arguments=HTTP, environment=environment)
        cluster.wait_idle(1)
        time.sleep(1.5)  # A heartbeat with a measurement of its own.
        (worker,) = wait_until(lambda: "gpu" in cluster.worker_list()[0]["use"] and cluster.worker_list(),
                               what="the GPU's health in a heartbeat")
        print(json.dumps({"software": worker["hello"]["software"], "use": worker["use"]}, indent=1))
        check_software(worker["hello"]["software"], device)
        check_health(worker["use"]["gpu"], device)
        check_metrics(cluster)
        table = gpipe("worker", "list", address=cluster.address).stdout
        print(table + gpipe("worker", "describe", "w0", address=cluster.address).stdout)
        check("HEALTH" in table and " MHz" in table, "the table has a column for it")
        log = (folder / "w0.log").read_text()
        check("cuDNN" not in log, "the worker has nothing to say of its cuDNN")
    finally:
        cluster.stop()


def without_launcher(folder, device, environment):
    """The program itself, which the archive's launcher starts, does not put the wheel first: it says so."""
    program = BIN.parent / "libexec" / "gpipe-worker"
    torch = pathlib.Path(importlib.util.find_spec("torch").submodule_search_locations[0])
    own = [torch / "lib", *torch.parent.glob("nvidia/*/lib")]
    path = ":".join(map(str, [environment["LD_LIBRARY_PATH"], *own]))
    log = folder / "bare.log"
    with open(log, "wb") as output:
        worker = subprocess.Popen([program if program.exists() else BIN / "gpipe-worker", "--orchestrator", "127.0.0.1:1",
                                   "--name", "bare", "--device", device], stdout=output, stderr=output,
                                  env={**os.environ, "LD_LIBRARY_PATH": path})
    try:
        said = wait_until(lambda: "127.0.0.1:1" in log.read_text() and log.read_text(), 60, "its first words")
    finally:
        worker.kill()
        worker.wait()
    warnings = re.findall(r".*cuDNN.*", said)
    check(len(warnings) == 1 and environment["LD_LIBRARY_PATH"] in warnings[0], f"it warns once: {warnings}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    device = parser.parse_args().device
    with tempfile.TemporaryDirectory(prefix="gpu_health") as folder:
        folder = pathlib.Path(folder)
        shadow = folder / "shadow"
        shadow.mkdir()
        (shadow / "libcudnn_graph.so.9").touch()  # Whoever loads this fails.
        environment = {"LD_LIBRARY_PATH": str(shadow)}
        one_worker(folder / "cluster", device, environment)
        without_launcher(folder, device, environment)
    print(f"{len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
