#!/usr/bin/env python3
"""A large file of tokens on a shared path: how long submitting takes, and how long the engine waits for its data.

    bench/data.py [--gigabytes 20] [--real 0] [--folder DIR] [--runs 3]

The file is sparse unless --real says how many gigabytes of random tokens to write; those are dropped from the page cache
before each job, so that every mini-batch comes from the disk, in random order.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time

import numpy as np

import common

LENGTH, VOCABULARY, BATCH = 1024, 512, 8


def write_tokens(path: pathlib.Path, sparse: float, real: float) -> None:
    with open(path, "wb") as file:
        random = np.random.default_rng(0)
        for _ in range(int(real * 1e9 / (1 << 24))):
            file.write(random.integers(0, VOCABULARY, 1 << 23, dtype=np.uint16).tobytes())
        file.truncate(max(file.tell(), int(sparse * 1e9) if not real else 0))
        os.fsync(file.fileno())


def drop_from_cache(path: pathlib.Path) -> None:
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def spec_of(path: pathlib.Path, steps: int, device: str) -> dict:
    layer = {"d_model": 64, "nhead": 4, "dim_feedforward": 256, "dropout": 0.0}
    return {
        "name": "tokens",
        "model": {"sequential": [{"embedding": {"num_embeddings": VOCABULARY, "embedding_dim": 64}},
                                 {"transformer_encoder_layer": layer},
                                 {"linear": {"in_features": 64, "out_features": VOCABULARY}}]},
        "pipeline": {"balance": [2, 1], "chunks": 4, "device": device},
        "train": {"dataset": {"tokens": {"path": f"shared:{path}", "dtype": "uint16", "sequence_length": LENGTH}},
                  "shuffle": True, "batch_size": BATCH, "steps": steps, "loss": {"cross_entropy": {"class_dim": -1}},
                  "optimizer": {"sgd": {"lr": 0.01}}},
    }


def one_run(cluster, folder: pathlib.Path, tokens: pathlib.Path, steps: int, device: str) -> tuple[float, list, list]:
    drop_from_cache(tokens)
    spec = common.write_spec(folder, spec_of(tokens, steps, device))
    begin = time.monotonic()
    job = cluster.submit(spec)
    submitted = time.monotonic() - begin
    if cluster.wait(job, 600)["state"] != "STATE_SUCCEEDED":
        raise SystemExit(f"the job failed: {cluster.job(job)}")
    metrics = common.read_jsonl(cluster.pull(job, folder / job) / "metrics.jsonl")
    return submitted, [m["data_wait_share"] for m in metrics], [m["step_seconds"] for m in metrics]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--real", type=float, default=0)
    parser.add_argument("--folder", type=pathlib.Path, help="where the file is made; default: a temporary one")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="cuda: both workers on the first GPU")
    options = parser.parse_args()
    print(f"machine: {common.machine()}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = pathlib.Path(name)
        tokens = folder / "tokens.bin"
        write_tokens(tokens, options.gigabytes, options.real)
        print(f"{tokens.stat().st_size / 1e9:.1f} GB of tokens, {tokens.stat().st_blocks * 512 / 1e9:.1f} GB on disk")
        with common.running_cluster(folder, 0) as cluster:
            for worker in range(2):
                cluster.start_worker(f"w{worker}", device="cpu" if options.device == "cpu" else "cuda:0")
            cluster.wait_idle(2)
            for _ in range(options.runs):
                submitted, shares, seconds = one_run(cluster, folder, tokens, options.steps, options.device)
                waited = sum(share * step for share, step in zip(shares, seconds))
                print(f"submit {submitted:.2f} s; step {statistics.median(seconds) * 1e3:.0f} ms; waiting for data: "
                      f"{waited / sum(seconds):.3%} of the time, {max(shares):.3%} of the worst step", flush=True)


if __name__ == "__main__":
    main()
