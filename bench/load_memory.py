#!/usr/bin/env python3
"""How much memory each process has over a whole job of a large model, beside the bytes of its own stage: client,
orchestrator and two workers on CPUs of this machine, with the weights in the archive, or in files of their own.

    bench/load_memory.py [--preset mid] [--tokens 16] [--folder DIR] [--sent]

The job is inference over two sequences, so that all there is besides the weights is small. `grew` is from the idle
worker to the most it ever had; a part of it is LibTorch's own code, read from its files when it first runs. The files
are dropped from the page cache before. With --sent nothing is read from the orchestrator's disk.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import tempfile
import time

import common
import decoder
from exported_load import drop_from_cache, read_seconds, resident

WORKERS = 2
MIB = 2**20


def spec_of(shape: decoder.Shape, inside: bool) -> dict:
    model = {"exported": {"path": "model.pt2"}} | ({} if inside else {"weights": "weights"})
    # Half of the blocks each.
    return {"name": "memory", "model": model,
            "pipeline": {"split": [f"blocks.{shape.layers // WORKERS}"], "chunks": 1},
            "infer": {"inputs": "data.safetensors", "batch_size": 2}}


def stage_bytes(shape: decoder.Shape) -> list[int]:
    """Of parameters."""
    sizes = [0] * WORKERS
    for name, parameter in decoder.empty_decoder(shape).named_parameters():
        block = int(name.split(".")[1]) if name.startswith("blocks.") else shape.layers
        stage = 0 if name.startswith("embed") else min(WORKERS - 1, block // (shape.layers // WORKERS))
        sizes[stage] += parameter.nbytes
    return sizes


def submit(cluster: common.Cluster, spec: pathlib.Path) -> tuple[str, int, float]:
    """The job, the client's most bytes, and its seconds."""
    begin = time.perf_counter()
    process = subprocess.Popen([str(common.BIN / "gpipe"), "job", "submit", str(spec), "-o", "json"],
                               stdout=subprocess.PIPE, text=True,
                               env=dict(os.environ, GPIPE_ORCHESTRATOR=cluster.address))
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said
    return json.loads(said)["id"], usage.ru_maxrss * 1024, time.perf_counter() - begin


def one_job(folder: pathlib.Path, shape: decoder.Shape, inside: bool, sent: bool) -> None:
    files = [folder / "model.pt2"] if inside else sorted((folder / "weights").glob("*.safetensors"))
    disk = sum(read_seconds(file) for file in files)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        cluster = common.Cluster(pathlib.Path(own))
        try:
            arguments = [] if sent else ["--artifacts-dir", pathlib.Path(own) / "state" / "artifacts"]
            cluster.start_workers(WORKERS, arguments=arguments)
            idle = {name: resident(worker.pid)["now"] for name, worker in cluster.workers.items()}
            for file in files:
                drop_from_cache(file)
            begin = time.perf_counter()
            job, client, submitted = submit(cluster, common.write_spec(folder, spec_of(shape, inside)))
            done = cluster.wait(job, 600)
            seconds = time.perf_counter() - begin
            assert done["state"] == "STATE_SUCCEEDED", done
            print(f"{'archive' if inside else 'files of their own'}: read by itself {disk:.1f} s, "
                  f"submit {submitted:.1f} s, whole job {seconds:.1f} s")
            print(f"  client: at most {client / MIB:.0f} MiB; orchestrator: at most "
                  f"{resident(cluster.orchestrator.pid)['peak'] / MIB:.0f}")
            for name, size in zip(done["workers"], stage_bytes(shape)):
                peak = resident(cluster.workers[name].pid)["peak"]
                grew = peak - idle[name]
                print(f"  {name}: stage of {size / MIB:.0f} MiB, idle {idle[name] / MIB:.0f}, at most "
                      f"{peak / MIB:.0f}; grew by the stage and {(grew - size) / MIB:.0f} MiB", flush=True)
        finally:
            cluster.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=decoder.PRESETS, default="mid")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--folder", type=pathlib.Path, help="keeps and uses again model and data")
    parser.add_argument("--sent", action="store_true", help="over gRPC, as to other machines")
    options = parser.parse_args()
    print(f"machine: {common.machine()}; {options.preset}, {WORKERS} workers")
    shape = dataclasses.replace(decoder.PRESETS[options.preset], tokens=options.tokens)
    with tempfile.TemporaryDirectory() as temporary:
        for inside in (False, True):
            folder = (options.folder or pathlib.Path(temporary)) / ("archive" if inside else "files")
            if not (folder / "data.safetensors").exists():
                folder.mkdir(parents=True, exist_ok=True)
                decoder.write_program(shape, folder / "model.pt2", inside)
                if not inside:
                    decoder.write_weights(decoder.empty_decoder(shape), folder / "weights")
                decoder.write_data(shape, folder / "data.safetensors", 2)
            one_job(folder, shape, inside, options.sent)


if __name__ == "__main__":
    main()
