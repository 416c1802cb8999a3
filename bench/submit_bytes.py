"""What a job's way into the cluster costs, against reading its files once: `gpipe run` of a model whose weights are one
large safetensors file, from the command to the first step, with the file in no cache and again when it is in it.

    bench/submit_bytes.py [--gibibytes 2.5] [--workers 2] [--train] [--folder DIR]     (root: drops the page cache)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time

from common import BIN, machine, write_spec

WIDTH = 8192


def write_weights(path: pathlib.Path, layers: int) -> None:
    """Linear layers of fp32, as PyTorch's Sequential names them; their values are small and do not matter."""
    header, offset = {}, 0
    for i in range(layers):
        for name, shape in (("weight", [WIDTH, WIDTH]), ("bias", [WIDTH])):
            size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
            header[f"{i}.{name}"] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
            offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # Small positive numbers: exponents of about 2^-14.
    block = bytes(b if i % 4 < 2 else (0x80 if i % 4 == 2 else 0x38) for i, b in enumerate(os.urandom(1 << 20)))
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for begin in range(0, offset, len(block)):
            file.write(block[:min(len(block), offset - begin)])


def spec(layers: int, train: bool) -> dict:
    model = {"sequential": [{"linear": {"in_features": WIDTH, "out_features": WIDTH}} for _ in range(layers)],
             "weights": "weights.safetensors"}
    work = {"infer": {"random_inputs": {"shape": [32, WIDTH], "seed": 1}, "batch_size": 8}}
    if train:
        dataset = {"random": {"samples": 32, "input_shape": [WIDTH], "classes": WIDTH, "seed": 1}}
        work = {"train": {"dataset": dataset, "batch_size": 8, "steps": 4, "loss": {"cross_entropy": {}},
                          "optimizer": {"sgd": {"lr": 1e-6}}}}
    return {"name": "bytes", "model": model, "pipeline": {"chunks": 2}, **work}


def drop_cache() -> bool:
    os.sync()
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    return False


def read_seconds(path: pathlib.Path) -> float:
    begin = time.monotonic()
    subprocess.run(["cat", str(path)], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - begin


def first_step_seconds(folder: pathlib.Path, workers: int, env: dict) -> tuple[float, float]:
    """To the first line about a step or batch, and to the end."""
    begin = time.monotonic()
    first = None
    process = subprocess.Popen(
        [str(BIN / "gpipe"), "run", str(folder / "bytes.yaml"), "--output", str(folder / "out"), "--overwrite", "--workers",
         str(workers)], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=env)
    words = []
    for line in process.stderr:
        words.append(f"{time.monotonic() - begin:7.2f} s  {line.rstrip()}")
        if first is None and re.match(r"(step|batch) \d", line):
            first = time.monotonic() - begin
    if process.wait() != 0 or first is None:
        raise SystemExit("\n".join(words))
    print("\n".join(words))
    return first, time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gibibytes", type=float, default=2.5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--folder")
    options = parser.parse_args()
    layers = max(2, round(options.gibibytes * (1 << 30) / (4 * WIDTH * WIDTH)))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = pathlib.Path(name)
        weights = folder / "weights.safetensors"
        write_weights(weights, layers)
        write_spec(folder, spec(layers, options.train))
        env = dict(os.environ, XDG_CACHE_HOME=str(folder / "cache"))
        env.pop("GPIPE_ORCHESTRATOR", None)
        time.sleep(2.5)  # Hashes of files that were written this moment are not remembered.
        cold = drop_cache()
        cat = read_seconds(weights)
        rows = []
        drop_cache()
        rows.append(("cold" if cold else "not cold", *first_step_seconds(folder, options.workers, env)))
        rows.append(("warm, hash known", *first_step_seconds(folder, options.workers, env)))
        size = weights.stat().st_size
        print(f"\n{machine()}; {layers} linear layers, {size / (1 << 30):.2f} GiB; `cat` of them, cold: {cat:.1f} s\n")
        print("| run | to the first step | to the end |\n|---|---|---|")
        for what, first, end in rows:
            print(f"| {what} | {first:.1f} s | {end:.1f} s |")
        print(f"\ncold limit: 1.5 x {cat:.1f} + 3 = {1.5 * cat + 3:.1f} s")


if __name__ == "__main__":
    main()
