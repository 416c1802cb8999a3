#!/usr/bin/env python3
"""From a large model's last step to the end of `gpipe run`, beside `dd` of as many bytes onto the same disk: results are
to take at most 1.5 times that and 2 s.

A decoder in bf16 (bench/decoder.py) is trained for two steps by SGD on short sequences, on two workers.

    bench/results.py [--preset mid] [--device cpu] [--workers 2] [--runs 3] [--folder DIR] [--max-shard-bytes N]

`dd` runs before and after, as a shared disk varies; both are shown, and their mean counts. A worker whose stage is done
with the last step sooner has begun to write before that step is reported: by so much the time is short.

With --folder, model and data that are there are used again; it should lie on the disk to be measured.
--max-shard-bytes has the weights in several files instead of one, as more than 5 GB are without it: then a standing
cluster is used, which has that flag, and the time is that until the job has succeeded; what fetching takes is shown.
"""

import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import common
import decoder

STEPS, TOKENS = 2, 32


def write_model(options: argparse.Namespace, folder: pathlib.Path) -> None:
    subprocess.run([sys.executable, str(pathlib.Path(decoder.__file__)), "--preset", options.preset, "--out",
                    str(folder), "--sequences", "2", "--tokens", str(TOKENS)], check=True, stdout=subprocess.DEVNULL)


def spec_of(options: argparse.Namespace) -> dict:
    return {"name": options.preset, "model": {"exported": {"path": "model.pt2"}, "weights": "weights"},
            "pipeline": {"workers": options.workers, "chunks": 2, "checkpoint": "never", "device": options.device},
            "train": {"dataset": {"path": "data.safetensors", "inputs": ["tokens"], "target": "labels"},
                      "batch_size": 2, "steps": STEPS, "loss": {"cross_entropy": {"class_dim": -1}},
                      "optimizer": {"sgd": {"lr": 1e-4}}}}


def follow(command: list[str]) -> tuple[int, float, float]:
    """Of a command that follows a job: the first step that it tells of, when, and when it ended."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace")
    first, lines = None, []
    for line in process.stdout:
        lines.append(line)
        step = re.search(rf"step (\d+)/{STEPS}\b", line)
        if step and "SUCCEEDED" not in line:
            first = first or (int(step[1]), time.perf_counter())
    assert process.wait() == 0 and first, "".join(lines)
    return *first, time.perf_counter()


def seconds_after_last_step(told: tuple[int, float, float], output: pathlib.Path) -> float:
    """Progress is told of once a second at most: from the first step that was, the job's own times lead to the last."""
    first, when, end = told
    return end - when - sum(step["step_seconds"] for step in common.read_jsonl(output / "metrics.jsonl")[first:])


def by_run(options: argparse.Namespace, spec: pathlib.Path, output: pathlib.Path) -> float:
    told = follow([str(common.BIN / "gpipe"), "run", str(spec), "--output", str(output), "--workers",
                   str(options.workers), "--device", options.device])
    return seconds_after_last_step(told, output)


def by_cluster(options: argparse.Namespace, spec: pathlib.Path, output: pathlib.Path) -> float:
    limit = ["--max-shard-bytes", str(options.max_shard_bytes)]
    folder = output.parent / "cluster"
    cluster = common.Cluster(folder, lease_millis=10000, arguments=limit)
    try:
        cluster.start_workers(options.workers, device=options.device,
                              arguments=[*limit, "--artifacts-dir", folder / "state" / "artifacts"])
        job = cluster.submit(spec)
        told = follow([str(common.BIN / "gpipe"), "--orchestrator", cluster.address, "job", "watch", job])
        begin = time.perf_counter()
        cluster.pull(job, output)
        print(f"  pulled in {time.perf_counter() - begin:.1f} s", flush=True)
    finally:
        cluster.stop()
    return seconds_after_last_step(told, output)


def dd_seconds(size: int, path: pathlib.Path) -> float:
    """As many bytes, which do not come from a disk."""
    begin = time.perf_counter()
    subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={size >> 20}", "conv=fdatasync"], check=True,
                   stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    path.unlink()
    return seconds


def weights_in(output: pathlib.Path) -> list[pathlib.Path]:
    return sorted(output.glob("model*.safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=decoder.PRESETS, default="mid")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--max-shard-bytes", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or pathlib.Path(temporary)
        if not (folder / "data.safetensors").exists():
            write_model(options, folder)
        spec = common.write_spec(folder, spec_of(options))
        ratios = []
        for _ in range(options.runs):
            size = sum(file.stat().st_size for file in (folder / "weights").glob("*.safetensors"))
            before = dd_seconds(size, folder / "dd")
            with tempfile.TemporaryDirectory(dir=folder) as name:
                output = pathlib.Path(name) / "out"
                ours = (by_cluster if options.max_shard_bytes else by_run)(options, spec, output)
                files = weights_in(output)
                size = sum(file.stat().st_size for file in files)
            os.sync()
            after = dd_seconds(size, folder / "dd")
            ratios.append(ours / (1.5 * (before + after) / 2 + 2))
            end = "the job's end, not fetched" if options.max_shard_bytes else "the end"
            print(f"{size / 2**30:.2f} GiB in {len(files)} file(s): {ours:.1f} s from the last step to {end}; dd "
                  f"{before:.1f} and {after:.1f} s; of 1.5 dd + 2 s: {ratios[-1]:.0%}", flush=True)
        print(f"{common.machine()}; {options.preset}, {options.workers} workers: median {statistics.median(ratios):.0%} of "
              "1.5 dd + 2 s")


if __name__ == "__main__":
    main()
