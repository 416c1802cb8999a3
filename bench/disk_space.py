#!/usr/bin/env python3
"""What a thousand checkpoints leave on the orchestrator's disk: files, bytes and the database, as the job goes on, after
its end, and after it is deleted.

    bench/disk_space.py [--checkpoints 1000] [--keep 2] [--width 256]
"""

import argparse
import contextlib
import os
import pathlib
import tempfile
import time

import common


def used(state: pathlib.Path) -> tuple[int, int, int]:
    """Files and bytes of the artifacts, what is on its way too, and bytes of the database with its log."""
    sizes = []
    for folder, _, names in os.walk(state / "artifacts"):  # Which leaves out folders that go meanwhile.
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                sizes.append(os.stat(os.path.join(folder, name)).st_size)
    return len(sizes), sum(sizes), sum(path.stat().st_size for path in state.glob("gpipe.db*"))


def say(what: str, state: pathlib.Path):
    files, content, database = used(state)
    print(f"{what:28} {files:5d} files {content / 1e6:9.2f} MB, database {database / 1e6:7.2f} MB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=1000)
    parser.add_argument("--keep", type=int, default=2)
    parser.add_argument("--width", type=int, default=256)
    options = parser.parse_args()
    layer = {"linear": {"in_features": options.width, "out_features": options.width}}
    random = {"samples": 16, "input_shape": [options.width], "classes": options.width, "seed": 1}
    spec = {"name": "often", "model": {"sequential": [layer] * 4}, "pipeline": {"balance": [2, 2], "chunks": 2},
            "train": {"dataset": {"random": random}, "batch_size": 16, "steps": options.checkpoints,
                      "loss": {"cross_entropy": {}}, "optimizer": {"adam": {}}, "checkpoint_every": 1,
                      "keep_checkpoints": options.keep}}
    with tempfile.TemporaryDirectory() as folder:
        cluster = common.Cluster(pathlib.Path(folder))
        try:
            cluster.start_workers(2)
            say("before", cluster.state)
            begin, job = time.monotonic(), cluster.submit(common.write_spec(pathlib.Path(folder), spec))
            for part in range(1, 5):
                step = options.checkpoints * part // 4
                common.wait_until(lambda: int(cluster.job(job).get("checkpoint_step", 0)) >= step or
                                  cluster.job(job)["state"] not in ("STATE_QUEUED", "STATE_STARTING", "STATE_RUNNING"),
                                  3600, f"checkpoint {step}")
                say(f"checkpoint {cluster.job(job).get('checkpoint_step')}", cluster.state)
            done = cluster.wait(job, 3600)
            assert done["state"] == "STATE_SUCCEEDED", done
            kept = sorted({path["path"].split("/")[1] for path in done["results"] if "/" in path["path"]}, key=int)
            say(f"succeeded in {time.monotonic() - begin:.0f} s", cluster.state)
            print(f"checkpoints that are left: {', '.join(kept)}")
            common.gpipe("job", "delete", job, address=cluster.address)
            common.wait_until(lambda: used(cluster.state)[0] == 0, what="the files gone")
            say("deleted", cluster.state)
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
