"""Checkpoints are written while training goes on: what a kill -9 in the middle of one leaves."""

import hashlib
import json
import os
import pathlib
import time

import pytest
import torch
from safetensors.torch import load_file

from cluster import Cluster, gpipe, read_jsonl, wait_until, write_spec
from failure_table import failpoint, training_spec, where_it_stopped

WRITE = "worker.checkpoint_write@2"  # The second checkpoint, of step 16: model handed over, optimizer not.


def curve(folder: pathlib.Path) -> list:
    return [(step["step"], step["loss"]) for step in read_jsonl(folder / "metrics.jsonl")]


def check_same(folder: pathlib.Path, expected: pathlib.Path, first: int = 0):
    assert curve(folder) == curve(expected)[first:]
    mine, theirs = load_file(folder / "model.safetensors"), load_file(expected / "model.safetensors")
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(mine[name], tensor), name


def check_whole_checkpoints(folder: pathlib.Path, steps: list[int]):
    """Exactly these, each with all that its manifest names."""
    found = sorted(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert found == steps
    for step in steps:
        checkpoint = folder / "checkpoints" / str(step)
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        assert {path.name for path in checkpoint.iterdir()} == {"manifest.json", *manifest["files"]}
        for name, file in manifest["files"].items():
            content = (checkpoint / name).read_bytes()
            assert len(content) == file["size"] and hashlib.sha256(content).hexdigest() == file["sha256"], name


def staging(cluster: Cluster) -> pathlib.Path:
    return cluster.folder / "state" / "artifacts" / "tmp"


def start_workers(cluster: Cluster, environment=None):
    """w0, and w1 with this environment."""
    cluster.start_worker("w0")
    cluster.start_worker("w1", environment=environment)
    cluster.wait_idle(2)


def submit_and_stop_in_a_checkpoint(cluster: Cluster, folder: pathlib.Path) -> str:
    """A job whose w1 stands in the middle of its second checkpoint, while it has trained on."""
    job = cluster.submit(write_spec(folder, training_spec("victim", workers=2, steps=40)))
    wait_until(lambda: where_it_stopped(cluster, "w1"), 60, "w1 stopped")
    wait_until(lambda: int(cluster.job(job).get("steps_done", 0)) >= 24, what="steps beside the checkpoint")
    # Parts are joined beside the training, with what the machine has left.
    wait_until(lambda: int(cluster.job(job).get("checkpoint_step", 0)) > 0, what="a whole checkpoint")
    assert int(cluster.job(job)["checkpoint_step"]) == 8
    return job


@pytest.fixture
def straight(cluster, tmp_path) -> pathlib.Path:
    """The same training without a fault."""
    cluster.wait_idle(2)
    return cluster.run(write_spec(tmp_path, training_spec("straight", workers=2, steps=40)), tmp_path / "straight")


def test_kill_9_of_a_worker_while_a_checkpoint_is_written(fresh_cluster, straight, tmp_path):
    start_workers(fresh_cluster, failpoint(WRITE, "stop"))
    job = submit_and_stop_in_a_checkpoint(fresh_cluster, tmp_path)
    fresh_cluster.workers["w1"].kill()
    done = fresh_cluster.wait(job)
    assert done["state"] == "STATE_FAILED" and done["failure"]["code"] == "WORKER_LOST", done
    fresh_cluster.pull(job, tmp_path / "failed")
    check_whole_checkpoints(tmp_path / "failed", [8])
    fresh_cluster.start_worker("w2")
    fresh_cluster.wait_idle(2)
    spec = write_spec(tmp_path, training_spec("resumed", workers=2, steps=40))
    resumed = fresh_cluster.run(spec, tmp_path / "resumed", "--resume", job)
    check_same(resumed, straight, first=8)


def test_kill_9_of_the_orchestrator_while_a_checkpoint_is_written(fresh_cluster, straight, tmp_path):
    start_workers(fresh_cluster, failpoint(WRITE, "stop"))
    job = submit_and_stop_in_a_checkpoint(fresh_cluster, tmp_path)
    fresh_cluster.orchestrator.kill()
    fresh_cluster.orchestrator.wait()
    fresh_cluster.start_orchestrator(port=fresh_cluster.address.rpartition(":")[2])
    assert int(fresh_cluster.job(job)["checkpoint_step"]) == 8
    done = fresh_cluster.wait(job)
    assert done["state"] == "STATE_SUCCEEDED" and done["attempt"] == 2, done
    fresh_cluster.pull(job, tmp_path / "restarted")
    check_whole_checkpoints(tmp_path / "restarted", [8, 16, 24, 32, 40])
    check_same(tmp_path / "restarted", straight)


def wide_spec(name: str) -> dict:
    spec = training_spec(name, workers=2, steps=400)
    wide = {"linear": {"in_features": 16, "out_features": 30000}}
    back = {"linear": {"in_features": 30000, "out_features": 16}}
    spec["model"]["sequential"][:3] = [wide, {"relu": {}}, back]
    return spec


def test_kill_9_of_the_orchestrator_while_it_joins_a_checkpoint(fresh_cluster, cluster, tmp_path):
    """There are half-joined files then, which count for nothing."""
    cluster.wait_idle(2)
    expected = cluster.run(write_spec(tmp_path, wide_spec("wide")), tmp_path / "expected")
    start_workers(fresh_cluster)
    job = fresh_cluster.submit(write_spec(tmp_path, wide_spec("victim")))
    wait_until(lambda: int(fresh_cluster.job(job).get("checkpoint_step", 0)) >= 8, what="a checkpoint")

    def joins():
        return bool(os.listdir(staging(fresh_cluster)))

    deadline = time.monotonic() + 30
    while not joins():  # Without a pause: a join takes milliseconds.
        assert time.monotonic() < deadline
    fresh_cluster.orchestrator.kill()
    fresh_cluster.orchestrator.wait()
    fresh_cluster.start_orchestrator(port=fresh_cluster.address.rpartition(":")[2])
    assert not list(staging(fresh_cluster).iterdir())
    done = fresh_cluster.wait(job)
    assert done["state"] == "STATE_SUCCEEDED", done
    fresh_cluster.pull(job, tmp_path / "restarted")
    check_whole_checkpoints(tmp_path / "restarted", list(range(8, 401, 8)))
    check_same(tmp_path / "restarted", expected)
