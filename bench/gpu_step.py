#!/usr/bin/env python3
"""On one GPU, fp32: a training step of 4 workers over NCCL, beside torch.distributed.pipelining with 4 processes over
NCCL and one plain LibTorch step of the same model. Several ranks on one GPU talk over sockets.

    bench/gpu_step.py [--workers 4] [--chunks 32] [--runs 3] [--trace DIR]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import common

LAYERS = 24


def run_ours(folder: pathlib.Path, workers: int, chunks: int, steps: int, **options) -> tuple[float, float]:
    """Seconds a step of the pipeline, and of one worker with one chunk."""
    common.write_transformer_data(folder)
    pipeline = common.transformer_spec("pipeline", LAYERS, workers, chunks=chunks, steps=steps, device="cuda")
    alone = common.transformer_spec("alone", LAYERS, 1, chunks=1, steps=steps, device="cuda")
    return (common.run_and_time(folder, pipeline, workers, device="cuda", gpus=1, **options),
            common.run_and_time(folder, alone, 1, device="cuda", gpus=1, **options))


def one_run(workers: int, chunks: int, steps: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        ours, one_worker = run_ours(pathlib.Path(name), workers, chunks, steps)
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
    parser.add_argument("--trace", type=pathlib.Path, help="trace a run of each of ours into this folder instead")
    options = parser.parse_args()
    if options.trace:
        run_ours(options.trace, options.workers, options.chunks, options.steps, trace=True)
        return
    print(f"machine: {common.machine()}")
    results = [one_run(options.workers, options.chunks, options.steps) for _ in range(options.runs)]
    for result in results:
        print(" ".join(f"{label}={value:.4f}" for label, value in result.items()), flush=True)
    print(f"median: {statistics.median(r['speedup'] for r in results):.2f} times as fast as torch.distributed.pipelining")


if __name__ == "__main__":
    main()
