#!/usr/bin/env python3
"""The link between two workers is cut while both still reach the orchestrator: two network namespaces with a
cable to it each, and one between them.
Prints how long the cut lasted, after how many seconds the job, which may not restart, had ended, how, and why. Needs root
and iproute2. (test_cut_network.py has jobs that go on.)

    cut_link.py [--cuts 3 0]     (seconds; 0 is for good)
"""

import argparse
import contextlib
import pathlib
import subprocess
import tempfile
import time

from cluster import BIN, Cluster, gpipe, wait_until, write_spec
from failure_table import once, training_spec

NAMESPACE = "gpipe-cut-"


def ip(*arguments) -> None:
    subprocess.run(["ip", *map(str, arguments)], check=True)


def in_namespace(worker: int, *arguments) -> None:
    ip("-n", f"{NAMESPACE}{worker}", *arguments)


def host_address(worker: int) -> str:
    return f"10.213.9.{1 + 4 * worker}"


def data_address(worker: int) -> str:
    return f"10.213.10.{1 + worker}"


def remove_network() -> None:
    """A namespace's cables would go with it, but some time after the command, and the next network needs their names."""
    for worker in range(2):
        for what in (["link", "delete", f"gpcut{worker}"], ["netns", "delete", f"{NAMESPACE}{worker}"]):
            subprocess.run(["ip", *what], check=False, capture_output=True)


@contextlib.contextmanager
def network():
    """Two namespaces, each with a cable to the host, for the orchestrator, and one between the two, for tensors."""
    remove_network()   # of a run that was killed
    try:
        for worker in range(2):
            ip("netns", "add", f"{NAMESPACE}{worker}")
            ip("link", "add", f"gpcut{worker}", "type", "veth", "peer", "name", "eth0", "netns", f"{NAMESPACE}{worker}")
            ip("address", "add", f"{host_address(worker)}/30", "dev", f"gpcut{worker}")
            ip("link", "set", f"gpcut{worker}", "up")
            in_namespace(worker, "address", "add", f"10.213.9.{2 + 4 * worker}/30", "dev", "eth0")
        in_namespace(0, "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", f"{NAMESPACE}1")
        for worker in range(2):
            in_namespace(worker, "address", "add", f"{data_address(worker)}/24", "dev", "eth1")
            for device in ("lo", "eth0", "eth1"):
                in_namespace(worker, "link", "set", device, "up")
        yield
    finally:
        remove_network()


def start_worker(cluster: Cluster, worker: int) -> None:
    name, port = f"w{worker}", cluster.address.rpartition(":")[2]
    log = open(cluster.folder / f"{name}.log", "ab")
    cluster.workers[name] = subprocess.Popen(
        ["ip", "netns", "exec", f"{NAMESPACE}{worker}", str(BIN / "gpipe-worker"), "--orchestrator",
         f"{host_address(worker)}:{port}", "--name", name, "--device", "cpu", "--threads", "1", "--data-address",
         data_address(worker)], stdout=log, stderr=log)


def cut(joined: bool) -> None:
    for worker in range(2):
        in_namespace(worker, "route", "delete" if joined else "add", "blackhole", f"{data_address(1 - worker)}/32")


def cut_from_orchestrator(joined: bool) -> None:
    """Both directions of w1's cable to it."""
    verb = "delete" if joined else "add"
    in_namespace(1, "route", verb, "blackhole", f"{host_address(1)}/32")
    ip("route", verb, "blackhole", "10.213.9.6/32")


def try_cut(seconds: float) -> str:
    with tempfile.TemporaryDirectory() as folder, network():
        cluster = Cluster(pathlib.Path(folder) / "cluster", lease_millis=5000, host="0.0.0.0",
                          arguments=["--insecure"])
        try:
            for worker in range(2):
                start_worker(cluster, worker)
            cluster.wait_idle(2)
            job = cluster.submit(write_spec(pathlib.Path(folder), once(training_spec("cut", workers=2, steps=4000))))
            wait_until(lambda: int(cluster.job(job).get("steps_done", 0)) > 20, 60, "steps done")
            begin = time.monotonic()
            cut(joined=False)
            if seconds:
                time.sleep(seconds)
                cut(joined=True)
            gpipe("job", "wait", job, "--timeout", 90, address=cluster.address, check=False)
            ended, done = time.monotonic() - begin, cluster.job(job)
        finally:
            cluster.stop()
    return f"{ended:7.1f}  {done['state'][6:]}: {done.get('reason')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=float, nargs="+", default=[3, 0])
    options = parser.parse_args()
    print(f"{'cut for':>8} {'seconds':>8}  outcome")
    for seconds in options.cuts:
        print(f"{seconds or 'ever':>8} {try_cut(seconds)}", flush=True)


if __name__ == "__main__":
    main()
