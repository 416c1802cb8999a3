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
from failure_table import failpoint, once, training_spec, where_it_stopped

WRITE = "worker.checkpoint_write@2"  # The second checkpoint, of step 16: model handed over, optimizer not.


def curve(folder: pathlib.Path) -> list:
    return [(step["step"], step["loss"]) for step in read_jsonl(folder / "metrics.jsonl")]


def check_same(folder: pathlib.Path, expected: pathlib.Path, first: int = 0):
    assert curve(folder) == curve(expected)[first:]
    check_same_weights(load_file(folder / "model.safetensors"), expected)


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


def victim_spec() -> dict:
    return training_spec("victim", workers=2, steps=40)


def submit_and_stop_in_a_checkpoint(cluster: Cluster, folder: pathlib.Path, spec: dict) -> str:
    """A job whose w1 stands in the middle of its second checkpoint, while it has trained on."""
    job = cluster.submit(write_spec(folder, spec))
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
    job = submit_and_stop_in_a_checkpoint(fresh_cluster, tmp_path, once(victim_spec()))
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
    job = submit_and_stop_in_a_checkpoint(fresh_cluster, tmp_path, victim_spec())
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


@pytest.fixture
def small_files(tmp_path):
    """A cluster whose files have few tensors. w0 leaves its parts where the orchestrator has its files, w1 sends them."""
    limit = ["--max-shard-bytes", "1200"]
    running = Cluster(tmp_path / "small", arguments=limit)
    try:
        running.start_worker("w0", arguments=[*limit, "--artifacts-dir", running.folder / "state" / "artifacts"])
        running.start_worker("w1", arguments=limit)
        running.wait_idle(2)
        yield running
    finally:
        running.stop()


def load_indexed(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    """As Hugging Face's loaders do it: by the index, which leaves no tensor of a file out."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = {name: load_file(folder / name) for name in set(index["weight_map"].values())}
    assert sorted(name for tensors in files.values() for name in tensors) == sorted(index["weight_map"])
    tensors = {name: files[file][name] for name, file in index["weight_map"].items()}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    count = len(files)
    assert sorted(files) == [f"model-{k:05}-of-{count:05}.safetensors" for k in range(1, count + 1)]
    return tensors


def check_same_weights(tensors: dict[str, torch.Tensor], expected: pathlib.Path):
    theirs = load_file(expected / "model.safetensors")
    assert tensors.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(tensors[name], tensor), name


def test_results_in_several_files_are_resumed_from_and_used_as_weights(small_files, cluster, straight, tmp_path):
    spec = write_spec(tmp_path, training_spec("several", workers=2, steps=40))
    several = small_files.run(spec, tmp_path / "several")
    assert not (several / "model.safetensors").exists()
    assert len(load_indexed(several)) == 6 and len(list(several.glob("model-*"))) > 2
    check_same_weights(load_indexed(several), straight)
    check_whole_checkpoints(several, [8, 16, 24, 32, 40])
    assert json.loads((several / "checkpoints" / "16" / "manifest.json").read_text())["format_version"] == 2
    assert not list(staging(small_files).iterdir())

    # By a folder, on a cluster that makes one file of it, and by a job's name.
    folder = cluster.run(spec, tmp_path / "folder", "--resume", several / "checkpoints" / "16")
    check_same(folder, straight, first=16)
    part = small_files.wait(small_files.submit(write_spec(tmp_path, training_spec("part", workers=2, steps=24))))
    again = small_files.run(spec, tmp_path / "again", "--resume", part["id"])
    assert curve(again) == curve(straight)[24:]
    check_same_weights(load_indexed(again), straight)

    losses = []
    for weights in (several / "model.safetensors.index.json", straight / "model.safetensors"):
        begun = training_spec(f"from-{weights.parent.name}", workers=2, steps=8)
        begun["model"]["weights"] = str(weights)
        losses.append(curve(cluster.run(write_spec(tmp_path, begun), tmp_path / begun["name"])))
    assert losses[0] == losses[1] and losses[0] != curve(straight)[:8]


def test_a_checkpoint_of_several_files_that_lacks_one_is_refused(small_files, tmp_path):
    spec = write_spec(tmp_path, training_spec("lacking", workers=2, steps=16))
    checkpoint = small_files.run(spec, tmp_path / "out") / "checkpoints" / "8"
    parts = sorted(checkpoint.glob("model-*"))
    parts[0].write_bytes(parts[1].read_bytes())
    refused = gpipe("job", "submit", spec, "--resume", checkpoint, address=small_files.address, check=False)
    assert refused.returncode == 2 and f"resume_files.files[{parts[0].name}]" in refused.stderr, refused.stderr
    parts[0].unlink()
    refused = gpipe("job", "submit", spec, "--resume", checkpoint, address=small_files.address, check=False)
    assert refused.returncode != 0 and parts[0].name in refused.stderr, refused.stderr
