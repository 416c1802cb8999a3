#!/usr/bin/env python3
"""Peak activation memory of a stage with and without recomputation, beside what the GPipe paper says.

Without recomputation a stage keeps all activations of N samples, O(N * L/K); with it, the inputs of every micro-batch
and the activations of one, O(N + L/K * N/M). Both are counted by the device's allocator while a step runs.

    bench/recompute_memory.py [--device cuda]
"""

import argparse
import pathlib
import tempfile

import common


def peak_bytes(folder: pathlib.Path, layers: int, chunks: int, checkpoint: str, device: str) -> int:
    spec = common.transformer_spec(f"{checkpoint}-{chunks}", layers, 2, chunks=chunks, checkpoint=checkpoint, steps=3,
                                   device=device)
    common.run_and_time(folder, spec, 2, device=device, gpus=1 if device == "cuda" else None)
    steps = common.read_jsonl(folder / spec["name"] / "metrics.jsonl")
    return int(steps[-1]["stage_peak_saved_bytes"][0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--layers", type=int, default=8)
    options = parser.parse_args()
    boundary = common.BATCH * common.TOKENS * common.MODEL_DIM * 4
    print(f"machine: {common.machine()}")
    print(f"{options.layers} layers on 2 stages, stage 0; one boundary value of the mini-batch is {boundary / 2**20:.1f} MiB")
    print(f"{'chunks':>6} {'never MiB':>10} {'always MiB':>10} {'measured':>9} {'O(N + L/K*N/M)':>15}")
    for chunks in (1, 2, 4, 8, 16, 32):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            common.write_transformer_data(folder)
            never = peak_bytes(folder, options.layers, chunks, "never", options.device)
            always = peak_bytes(folder, options.layers, chunks, "always", options.device)
        predicted = boundary + never / chunks
        print(f"{chunks:6} {never / 2**20:10.1f} {always / 2**20:10.1f} {always / never:9.3f} {predicted / never:15.3f}",
              flush=True)


if __name__ == "__main__":
    main()
