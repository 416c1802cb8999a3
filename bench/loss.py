#!/usr/bin/env python3
"""The job's cross entropy beside PyTorch's `F.cross_entropy(logits.flatten(0, 1), targets.flatten())` in one process:
seconds of forward and backward, and the most memory beside the logits, for every place of the classes and type.

    bench/loss.py [--device cpu] [--positions 512] [--classes 50257] [--runs 5] [--threads 1]

Fails when ours takes more than 1.1 times as long where the classes lie last, or differs.
"""

import argparse
import json
import subprocess
import sys

import common

CASES = [(layout, dtype) for dtype in ("float32", "bfloat16", "float16") for layout in ("last", "seen", "second")]
ALLOWED = 1e-5  # Beside PyTorch's loss of the logits as floats: halves are rounded nowhere on the way.
SLOWER = 1.1


def measure(layout: str, dtype: str, options) -> dict:
    arguments = [layout, dtype, options.positions, options.classes, options.device, options.threads, options.runs]
    done = subprocess.run([*common.program("loss_bench"), *map(str, arguments)], check=True, text=True,
                          capture_output=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--positions", type=int, default=512)
    parser.add_argument("--classes", type=int, default=50257)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(f"machine: {common.machine()}; {options.positions} positions of {options.classes} classes on {options.device}")
    print("| classes | type | ours ms (forward + backward) | PyTorch ms | times as long | ours MiB | PyTorch MiB |")
    print("|---|---|---|---|---|---|---|")
    bad = []
    for layout, dtype in CASES:
        result = measure(layout, dtype, options)
        ours, peer = result["ours"], result["pytorch"]
        ratio = (ours["forward"] + ours["backward"]) / (peer["forward"] + peer["backward"])
        times = [f"{1000 * (r['forward'] + r['backward']):.2f} ({1000 * r['forward']:.2f} + {1000 * r['backward']:.2f})"
                 for r in (ours, peer)]
        mebibytes = [f"{r['peak_bytes'] / 2**20:.0f}" for r in (ours, peer)]
        print(f"| {layout} | {dtype} | {times[0]} | {times[1]} | {ratio:.2f} | {mebibytes[0]} | {mebibytes[1]} |",
              flush=True)
        if abs(ours["loss"] / result["exact"] - 1) > ALLOWED:
            bad.append(f"{layout} {dtype}: {ours['loss']} instead of {result['exact']}")
        if layout != "second" and ratio > SLOWER:
            bad.append(f"{layout} {dtype}: {ratio:.2f} times as long")
    if bad:
        sys.exit("\n".join(bad))


if __name__ == "__main__":
    main()
