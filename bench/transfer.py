"""How fast files move between two machines, against what the network can do: two network namespaces with a virtual cable
between them, iperf3 for the one and gpipe's own transfer for the other. Needs root, iproute2 and iperf3.

    bench/transfer.py [--mebibytes 2048] [--gbit RATE]   (RATE: the cable is made as slow as such a network, with tc)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

from common import BIN, machine

SERVER, CLIENT = "gpipe-bench-a", "gpipe-bench-b"
SERVER_ADDRESS, CLIENT_ADDRESS = "10.213.7.1", "10.213.7.2"
REPEATS = 3


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def two_machines(gbit: float | None):
    """Two namespaces with a cable between them; gone afterwards."""
    try:
        for name in (SERVER, CLIENT):
            ip("netns", "add", name)
        ip("link", "add", "gpipe-a", "netns", SERVER, "type", "veth", "peer", "name", "gpipe-b", "netns", CLIENT)
        for name, link, address in ((SERVER, "gpipe-a", SERVER_ADDRESS), (CLIENT, "gpipe-b", CLIENT_ADDRESS)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
            if gbit:
                subprocess.run(["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", link, "root", "tbf", "rate",
                                f"{gbit}gbit", "burst", "2mb", "latency", "20ms"], check=True)
        yield
    finally:
        for name in (SERVER, CLIENT):
            subprocess.run(["ip", "netns", "delete", name], check=False)


def inside(name: str, *command) -> list[str]:
    return ["ip", "netns", "exec", name, *map(str, command)]


def iperf(streams: int) -> float:
    """Bytes per second that the receiver got."""
    server = subprocess.Popen(inside(SERVER, "iperf3", "-s", "-1", "--forceflush"), stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        if "listening" in line:
            break
    # -R: from the server to the client, as files travel to workers.
    result = subprocess.run(inside(CLIENT, "iperf3", "-c", SERVER_ADDRESS, "-R", "-t", 4, "-P", streams, "-J"),
                            capture_output=True, text=True, check=True)
    server.communicate()
    return json.loads(result.stdout)["end"]["sum_received"]["bits_per_second"] / 8


@contextlib.contextmanager
def orchestrator(folder: pathlib.Path):
    read, write = os.pipe()
    with open(folder / "orchestrator.log", "w") as log:
        process = subprocess.Popen(
            inside(SERVER, BIN / "gpipe-orchestrator", "--listen", f"{SERVER_ADDRESS}:0", "--insecure", "--state-dir",
                   folder / "state", "--ready-fd", write), pass_fds=[write], stdout=log, stderr=log)
    os.close(write)
    try:
        with os.fdopen(read) as ready:
            yield ready.readline().strip()
    finally:
        process.terminate()
        process.wait()


def transfer(*arguments) -> subprocess.Popen:
    return subprocess.Popen(inside(CLIENT, BIN / "transfer_bench", *arguments), stdout=subprocess.PIPE, text=True)


def last_line(process: subprocess.Popen) -> dict:
    output = process.communicate()[0]
    if process.returncode != 0:
        raise SystemExit("transfer_bench failed")
    return json.loads(output.splitlines()[-1])


def rate(begin: float, size: int) -> float:
    return size / (time.monotonic() - begin)


def fetch(address: str, sha: str, size: int, connections: int, workers: int) -> float:
    """Each of the workers reads its share of the file, as stages do; the time is that of all of them, from the start of
    their processes."""
    share = size // workers
    begin = time.monotonic()
    processes = [transfer("fetch", address, sha, size, connections, i * share, share) for i in range(workers)]
    for process in processes:
        last_line(process)
    return rate(begin, share * workers)


def measure(what: str, samples: list[float], limit: float) -> None:
    median = statistics.median(samples)
    print(f"| {what} | {median / 1e9:.2f} GB/s | {min(samples) / 1e9:.2f}-{max(samples) / 1e9:.2f} | "
          f"{median / limit:.0%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=2048)
    parser.add_argument("--gbit", type=float)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, two_machines(options.gbit):
        folder = pathlib.Path(name)
        size = options.mebibytes << 20
        with open(folder / "file", "wb") as file:
            block = os.urandom(1 << 20)
            for i in range(options.mebibytes):
                file.write(i.to_bytes(8, "little") + block[8:])
        print(f"{machine()}; {options.mebibytes} MiB"
              f"{f', the cable at {options.gbit} Gbit/s' if options.gbit else ''}; of {REPEATS} runs the median\n")
        print("| what | rate | from-to | of iperf3 |\n|---|---|---|---|")
        with orchestrator(folder) as address:
            sent = transfer("send", address, folder / "file")
            lines = [json.loads(line) for line in sent.communicate()[0].splitlines()]
            sha = lines[0]["sha256"]
            one = [iperf(1) for _ in range(REPEATS)]
            four = [iperf(4) for _ in range(REPEATS)]
            limit = max(statistics.median(one), statistics.median(four))
            measure("iperf3, 1 stream", one, limit)
            measure("iperf3, 4 streams", four, limit)
            measure("a file sent (hashed there, synced)", [size / lines[1]["seconds"]], limit)
            for connections in (1, 2, 4):
                rates = [fetch(address, sha, size, connections, 1) for _ in range(REPEATS)]
                measure(f"a file fetched by one worker, {connections} connections", rates, limit)
            rates = [fetch(address, sha, size, 4, 4) for _ in range(REPEATS)]
            measure("its quarters fetched by four workers", rates, limit)


if __name__ == "__main__":
    main()
