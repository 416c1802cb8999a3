#!/usr/bin/env python3
"""On one GPU, fp32: a training step of 4 workers over NCCL, beside torch.distributed.pipelining with 4 processes over
NCCL and one plain LibTorch step of the same model. Several ranks on one GPU talk over sockets.

    bench/gpu_step.py [--workers 4] [--chunks 32] [--runs 3]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import common

LAYERS = 24


def one_run(workers: int, chunks: int, steps: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        common.write_transformer_data(folder)
        spec = common.transformer_spec("gpu", LAYERS, workers, chunks=chunks, steps=steps, device="cuda")
        ours = common.run_and_time(folder, spec, workers, device="cuda", gpus=1)
        alone = common.transformer_spec("alone", LAYERS, 1, chunks=1, steps=steps, device="cuda")
        one_worker = common.run_and_time(folder, alone, 1, device="cuda", gpus=1)
    peer = common.run_peer("torch_pipelining.py", workers, "--layers", LAYERS, "--chunks", chunks, "--steps", steps,
                           "--device", "cuda:0")
    result = {"ours": ours, "peer": peer, "speedup": peer / ours, "one_worker": one_worker}
    done = subprocess.run([*common.program("plain_loop"), str(LAYERS), str(steps), "1", "cuda:0"], check=True, text=True,
                          capture_output=True)
    result["plain"] = json.loads(done.stdout)["step_seconds"]
    result["one_worker/plain"] = one_worker / result["plain"]
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--chunks", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    print(f"machine: {common.machine()}")
    results = [one_run(options.workers, options.chunks, options.steps) for _ in range(options.runs)]
    for result in results:
        print(" ".join(f"{label}={value:.4f}" for label, value in result.items()), flush=True)
    print(f"median: {statistics.median(r['speedup'] for r in results):.2f} times as fast as torch.distributed.pipelining")


if __name__ == "__main__":
    main()
