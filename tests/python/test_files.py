"""Files on their way into the cluster: disks that are slow, files that change, hashes that are remembered."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from cluster import Cluster, gpipe, preloaded, wait_until, write_spec


@pytest.fixture(scope="session")
def slow_disk(tmp_path_factory) -> pathlib.Path:
    """A library that makes the disk of the program that preloads it slow."""
    return preloaded("slow_disk", tmp_path_factory.mktemp("slow_disk"))


def inference_spec(folder: pathlib.Path, name: str, mebibytes: int) -> pathlib.Path:
    """A small model of large inputs."""
    inputs = np.random.default_rng(hash(name) % 1000).standard_normal((mebibytes * 1024, 256), dtype=np.float32)
    save_file({"input": inputs}, folder / f"{name}.safetensors")
    return write_spec(folder, {
        "name": name,
        "model": {"sequential": [{"linear": {"in_features": 256, "out_features": 1}}], "init_seed": 1},
        "pipeline": {"balance": [1], "chunks": 1},
        "infer": {"inputs": f"{name}.safetensors", "batch_size": 4096},
    })


def test_uploads_to_a_slow_disk_lose_no_worker(slow_disk, tmp_path):
    """Each piece takes most of a lease to write, and there are more uploads at once than threads of gRPC."""
    cluster = Cluster(tmp_path / "cluster", lease_millis=1000,
                      environment={"LD_PRELOAD": str(slow_disk), "SLOW_DISK_MILLIS": "800"})
    try:
        cluster.start_workers(1)
        specs = [inference_spec(tmp_path, f"upload{i}", mebibytes=3) for i in range(6)]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            jobs = [pool.submit(cluster.submit, spec) for spec in specs]
            while not all(job.done() for job in jobs):
                assert [w["state"] for w in cluster.worker_list()] != ["STATE_LOST"]
        for job in jobs:
            assert cluster.wait(job.result())["state"] == "STATE_SUCCEEDED"
        assert "LOST" not in (cluster.folder / "orchestrator.log").read_text()
    finally:
        cluster.stop()


def test_a_job_that_is_cancelled_while_its_worker_fetches_lets_go_at_once(slow_disk, tmp_path):
    cluster = Cluster(tmp_path / "cluster", lease_millis=2000)
    try:
        cluster.start_worker("w0", environment={"LD_PRELOAD": str(slow_disk), "SLOW_DISK_MILLIS": "5000"})
        cluster.wait_idle(1)
        job = cluster.submit(inference_spec(tmp_path, "fetched", mebibytes=16))
        wait_until(lambda: cluster.job(job)["state"] == "STATE_STARTING", what="the fetch begun")
        gpipe("job", "cancel", job, address=cluster.address)
        # A piece is written to its end, the rest of the file is not waited for.
        wait_until(lambda: [w["state"] for w in cluster.worker_list()] == ["STATE_IDLE"], 20, "the worker idle")
        assert "LOST" not in (cluster.folder / "orchestrator.log").read_text()
    finally:
        cluster.stop()


def test_a_file_is_hashed_once_and_again_when_it_has_changed(tmp_path):
    spec = inference_spec(tmp_path, "remembered", mebibytes=1)
    data = tmp_path / "remembered.safetensors"
    long_ago = data.stat().st_mtime - 3600
    os.utime(data, (long_ago, long_ago))
    cache = tmp_path / "cache"
    environment = {"XDG_CACHE_HOME": str(cache)}

    def remembered() -> list[str]:
        gpipe("run", spec, "--output", tmp_path / "out", "--overwrite", "--workers", "1", environment=environment)
        lines = (cache / "gpipe" / "hashes").read_text().splitlines()[1:] if cache.exists() else []
        return [line.split()[0] for line in lines if line.endswith(str(data))]

    # The time at which a file's other time was set is of this moment, too.
    first = wait_until(remembered, what="the file old enough")
    assert remembered() == first
    changed = np.ones((1024, 256), dtype=np.float32)
    save_file({"input": changed}, data)
    assert wait_until(lambda: remembered() != first, what="the change remembered")
