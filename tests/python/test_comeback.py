"""A job whose worker dies runs again by itself, from its newest checkpoint, and ends as if nothing had happened."""

import json
import os
import pathlib
import signal
import subprocess

import torch
import yaml
from safetensors.torch import load_file

import make_data
from cluster import BIN, DEVICE, ROOT, Cluster, gpipe, read_jsonl, wait_until, write_spec
from failure_table import failpoint, state_of, training_spec


def steps_done(cluster: Cluster, job: str) -> int:
    return int(cluster.job(job).get("steps_done", 0))


def digits_spec(folder: pathlib.Path, name: str) -> pathlib.Path:
    """examples/digits_train.yaml with a cut of its own, and checkpoints."""
    make_data.write_digits(folder)
    spec = yaml.safe_load((ROOT / "examples" / "digits_train.yaml").read_text())
    spec["name"] = name
    spec["pipeline"] |= {"balance": [3, 3, 3], "device": DEVICE.partition(":")[0]}
    spec["train"] |= {"checkpoint_every": 20, "keep_checkpoints": 0}
    return write_spec(folder, spec)


def replace(cluster: Cluster, name: str, **options):
    """kill -9, and a new process of that name."""
    cluster.workers[name].kill()
    cluster.workers[name].wait()
    wait_until(lambda: state_of(cluster, name) == "STATE_LOST", what=f"{name} is lost")
    cluster.start_worker(name, **options)


def check_same(found: pathlib.Path, expected: pathlib.Path):
    for name in ("metrics.jsonl", "evaluation.jsonl"):
        curves = [[(line["step"], line["loss"]) for line in read_jsonl(folder / name)] for folder in (found, expected)]
        assert curves[0] == curves[1], name
    models = [load_file(folder / "model.safetensors") for folder in (found, expected)]
    assert models[0].keys() == models[1].keys()
    for name, tensor in models[1].items():
        assert torch.equal(models[0][name], tensor), name


def test_digits_with_a_killed_worker_are_learnt_as_without(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(3)
    expected = fresh_cluster.run(digits_spec(tmp_path, "straight"), tmp_path / "straight")
    fresh_cluster.wait_idle(3)
    watched = subprocess.Popen(
        [str(BIN / "gpipe"), "job", "submit", str(digits_spec(tmp_path, "killed")), "--wait", "--request-id", "digits"],
        env=dict(os.environ, GPIPE_ORCHESTRATOR=fresh_cluster.address, NO_COLOR="1"), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    job = watched.stdout.readline().strip()
    wait_until(lambda: int(fresh_cluster.job(job).get("checkpoint_step", 0)) >= 60, 60, "a checkpoint")
    replace(fresh_cluster, "w1")
    words = watched.communicate(timeout=120)[1]
    assert watched.returncode == 0, words
    assert f"{job} QUEUED: restarts in 1 s (1 of 3): worker w1 (stage 1) was lost" in words, words
    assert "; goes on from the checkpoint of step" in words and f"{job} RUNNING on w0, w1, w2, attempt 2" in words, words
    done = fresh_cluster.job(job)
    assert done["state"] == "STATE_SUCCEEDED" and done["attempt"] == 2 and done["restarts"] == 1, done
    assert done["last_failure"]["code"] == "WORKER_LOST" and int(done["last_failure"]["step"]) > 60, done
    check_same(fresh_cluster.pull(job, tmp_path / "killed"), expected)


def test_a_job_waits_for_a_worker_and_says_so_and_fails_when_it_has_restarted_often_enough(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(2)
    spec = training_spec("often", workers=2, steps=1000000) | {"max_restarts": 2}
    job = fresh_cluster.submit(write_spec(tmp_path, spec))
    for restart in (1, 2):
        wait_until(lambda: steps_done(fresh_cluster, job) > 20 * restart, what="steps")
        fresh_cluster.workers["w1"].kill()
        wait_until(lambda: "1 is connected" in fresh_cluster.job(job)["reason"], what="a reason")
        assert fresh_cluster.job(job)["reason"] == f"restart {restart} of 2: needs 2 workers; 1 is connected"
        assert f"restarts     {restart} of 2" in gpipe("job", "get", job, address=fresh_cluster.address).stdout
        fresh_cluster.start_worker("w1")
        wait_until(lambda: fresh_cluster.job(job)["state"] == "STATE_RUNNING", what="running again")
    wait_until(lambda: steps_done(fresh_cluster, job) > 60, what="steps")
    fresh_cluster.workers["w1"].kill()
    done = fresh_cluster.wait(job)
    assert done["state"] == "STATE_FAILED" and done["failure"]["code"] == "WORKER_LOST" and done["attempt"] == 3, done
    assert done["reason"].endswith("; it has restarted 2 times, as often as max_restarts allows"), done["reason"]


def test_a_step_that_kills_one_worker_after_the_other_ends_the_job(fresh_cluster, tmp_path):
    deadly = failpoint("worker.forward@41", "kill")  # Of step 11.
    fresh_cluster.start_worker("w0")
    for name in ("w1", "w2"):
        fresh_cluster.start_worker(name, environment=deadly)
    fresh_cluster.wait_idle(3)
    spec = training_spec("deadly", workers=2)
    spec["pipeline"]["clock_window"] = 1
    del spec["train"]["checkpoint_every"], spec["train"]["evaluate"]
    done = fresh_cluster.wait(fresh_cluster.submit(write_spec(tmp_path, spec)))
    assert done["state"] == "STATE_FAILED" and done["attempt"] == 2, done
    assert done["reason"].startswith("step 11 has failed on two workers: worker w2 (stage 1) was lost"), done["reason"]
    assert "in the attempt before: worker w1 (stage 1) was lost" in done["reason"], done["reason"]


def long_spec(name: str, steps: int) -> dict:
    """With an evaluation, and without checkpoints of its own."""
    spec = training_spec(name, workers=2, steps=steps)
    del spec["train"]["checkpoint_every"]
    return spec


def begin(cluster: Cluster, folder: pathlib.Path, name: str, steps: int = 800) -> str:
    """A job that has done some steps."""
    job = cluster.submit(write_spec(folder, long_spec(name, steps)))
    wait_until(lambda: steps_done(cluster, job) > 20, what="steps")
    return job


def test_sigterm_to_a_worker_moves_its_job_to_another_one_with_all_that_was_done(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(3)
    expected = fresh_cluster.run(write_spec(tmp_path, long_spec("straight", 800)), tmp_path / "straight")
    fresh_cluster.wait_idle(3)
    job = begin(fresh_cluster, tmp_path, "moves")
    fresh_cluster.workers["w1"].send_signal(signal.SIGTERM)
    assert fresh_cluster.workers["w1"].wait(10) == 0
    done = fresh_cluster.wait(job)
    assert done["state"] == "STATE_SUCCEEDED" and done["workers"] == ["w0", "w2"] and done["attempt"] == 2, done
    assert done["last_failure"]["code"] == "WORKER_LEFT" and "restarts" not in done, done
    saved = int(done["checkpoint_step"])
    log = gpipe("job", "logs", job, address=fresh_cluster.address).stdout
    assert "restarts in 1 s: worker w1 (stage 1) left" in log and f"SIGTERM; step {saved} is saved" in log, log
    assert f"goes on from the checkpoint of step {saved}" in log and int(done["last_failure"]["step"]) == saved + 1, log
    check_same(fresh_cluster.pull(job, tmp_path / "moves"), expected)


def test_a_checkpoint_that_cannot_be_written_for_a_worker_that_leaves_is_told_at_once(fresh_cluster, tmp_path):
    fresh_cluster.start_worker("w0", environment=failpoint("worker.checkpoint_write", "error"))
    fresh_cluster.start_worker("w1", leave_within=100)
    fresh_cluster.wait_idle(2)
    job = begin(fresh_cluster, tmp_path, "unsaved", steps=1000000)
    fresh_cluster.workers["w1"].send_signal(signal.SIGTERM)
    assert fresh_cluster.workers["w1"].wait(30) == 0
    done = fresh_cluster.wait(job)
    assert done["failure"]["worker"] == "w0" and "writing the checkpoint of step" in done["reason"], done


def test_a_job_writes_a_checkpoint_when_it_is_asked_to(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(2)
    expected = fresh_cluster.run(write_spec(tmp_path, long_spec("straight", 800)), tmp_path / "straight")
    job = begin(fresh_cluster, tmp_path, "asked")
    ask = ["job", "checkpoint", job]
    said = gpipe(*ask, "--timeout", 30, address=fresh_cluster.address).stdout
    first = int(said.removeprefix("step "))
    second = json.loads(gpipe(*ask, "-o", "json", address=fresh_cluster.address).stdout)
    assert int(second["checkpoint_step"]) > first > 20, (said, second)
    done = fresh_cluster.wait(job)
    assert done["state"] == "STATE_SUCCEEDED" and done["rounds_done"] == done["rounds_total"], done
    check_same(fresh_cluster.pull(job, tmp_path / "asked"), expected)
    over = gpipe(*ask, address=fresh_cluster.address, check=False)
    assert over.returncode == 2 and "a job that is SUCCEEDED cannot write a checkpoint" in over.stderr, over
    resumed = fresh_cluster.run(write_spec(tmp_path, long_spec("resumed", 800)), tmp_path / "resumed", "--resume", job)
    assert torch.equal(*(load_file(folder / "model.safetensors")["0.weight"] for folder in (resumed, expected)))


def test_a_restart_outlives_the_orchestrator(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(2)
    job = fresh_cluster.submit(write_spec(tmp_path, training_spec("outlives", workers=2, steps=400)))
    wait_until(lambda: int(fresh_cluster.job(job).get("checkpoint_step", 0)) >= 8, what="a checkpoint")
    fresh_cluster.workers["w1"].kill()
    wait_until(lambda: fresh_cluster.job(job)["state"] == "STATE_QUEUED", what="it waits")
    fresh_cluster.orchestrator.kill()
    fresh_cluster.orchestrator.wait()
    fresh_cluster.start_orchestrator(port=fresh_cluster.address.rpartition(":")[2])
    fresh_cluster.start_worker("w1")
    done = fresh_cluster.wait(job)
    assert done["state"] == "STATE_SUCCEEDED" and done["restarts"] == 1 and done["attempt"] == 2, done


def test_max_restarts_is_checked(cluster, tmp_path):
    spec = training_spec("many", workers=2) | {"max_restarts": 1001}
    refused = cluster.refusal(write_spec(tmp_path, spec))
    assert "max_restarts: must be between 0 and 1000, and is 1001" in refused and "many.yaml:" in refused, refused
    assert "max_restarts" in cluster.refusal(write_spec(tmp_path, spec | {"max_restarts": -1}))
    assert "must be a whole number" in cluster.refusal(write_spec(tmp_path, spec | {"max_restarts": "often"}))
