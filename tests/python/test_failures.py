"""What happens when something dies: real processes, real signals, a bound on the time until the job says so."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import tempfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster import BIN, DEVICE, Cluster, gpipe, preloaded, read_jsonl, wait_until, write_spec
from failure_table import (PHASES, check_outputs, failpoint, leave_finished, lose_finished, lose_sender, lose_worker, once,
                           slow_disk, training_spec, where_it_stopped)

BOUND_SECONDS = 10


def check_survivors_run_the_next_job(cluster, folder):
    cluster.wait_idle(2)
    cluster.run(write_spec(folder, training_spec("next", workers=2)), folder / "next")


@pytest.mark.parametrize("point", PHASES, ids=lambda p: p.partition("@")[0])
def test_a_killed_worker_fails_the_job_with_its_name_stage_and_work(fresh_cluster, tmp_path, point):
    seconds, job = lose_worker(fresh_cluster, tmp_path, point)
    assert seconds < BOUND_SECONDS
    assert job["state"] == "STATE_FAILED"
    failure = job["failure"]
    assert failure["code"] == "WORKER_LOST"
    assert failure["worker"] == "w1" and failure["stage"] == 1
    assert PHASES[point].removeprefix("PHASE_").lower()[:5] in failure["doing"].lower(), failure
    check_survivors_run_the_next_job(fresh_cluster, tmp_path)


def test_a_hung_worker_counts_as_lost_after_its_lease(fresh_cluster, tmp_path):
    seconds, job = lose_worker(fresh_cluster, tmp_path, "worker.forward@40", signal.SIGSTOP)
    assert seconds < BOUND_SECONDS
    assert job["state"] == "STATE_FAILED" and job["failure"]["worker"] == "w1"
    check_survivors_run_the_next_job(fresh_cluster, tmp_path)


@pytest.mark.parametrize("how,code", [(signal.SIGTERM, "WORKER_LEFT"), (signal.SIGKILL, "WORKER_LOST")],
                         ids=["SIGTERM", "SIGKILL"])
def test_a_worker_that_has_sent_all_is_needed_until_it_is_received(fresh_cluster, tmp_path, how, code):
    seconds, job = lose_sender(fresh_cluster, tmp_path, how)
    assert seconds < BOUND_SECONDS
    assert job["state"] == "STATE_FAILED" and job["failure"]["code"] == code and job["failure"]["worker"] == "w1"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_worker_that_has_finished_may_go(fresh_cluster, tmp_path, how):
    seconds, job = lose_finished(fresh_cluster, tmp_path, how)
    assert seconds < BOUND_SECONDS
    assert job["state"] == "STATE_FAILED" and job["failure"]["worker"] == "w2", job


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_job_whose_finished_worker_has_gone_succeeds_with_the_right_outputs(tmp_path, how):
    cluster = Cluster(tmp_path / "cluster", environment=slow_disk(tmp_path))
    try:
        _, job = leave_finished(cluster, tmp_path, how)
        assert job["state"] == "STATE_SUCCEEDED", job
        check_outputs(cluster, job, tmp_path)
    finally:
        cluster.stop()


@pytest.mark.parametrize("how", ["killed", "failing"])
def test_links_that_cannot_be_measured_do_not_fail_the_job(fresh_cluster, tmp_path, how):
    fresh_cluster.start_worker("w0")
    action = {"killed": "stop", "failing": "error"}[how]
    victim = fresh_cluster.start_worker("w1", environment=failpoint("worker.measuring", action))
    fresh_cluster.wait_idle(2)
    spec = training_spec("unknown_links", workers=2)
    spec["pipeline"] = {"workers": 2, "chunks": 4}
    job = fresh_cluster.submit(write_spec(tmp_path, spec))
    if how == "killed":
        wait_until(lambda: where_it_stopped(fresh_cluster, "w1"), 60, "w1 stopped")
        victim.kill()
        fresh_cluster.start_worker("w2")
    done = fresh_cluster.wait(job)
    assert done["state"] == "STATE_SUCCEEDED", done
    assert done["workers"] == {"killed": ["w0", "w2"], "failing": ["w0", "w1"]}[how]


def test_an_uncontrolled_kill_fails_the_job_too(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(3)
    job = fresh_cluster.submit(write_spec(tmp_path, once(training_spec("long", steps=1000000))))
    wait_until(lambda: int(fresh_cluster.job(job).get("steps_done", 0)) > 3, what="steps done")
    fresh_cluster.workers["w2"].kill()
    done = fresh_cluster.wait(job, BOUND_SECONDS)
    assert done["state"] == "STATE_FAILED" and done["failure"]["worker"] == "w2" and done["failure"]["stage"] == 2
    check_survivors_run_the_next_job(fresh_cluster, tmp_path)


@pytest.mark.parametrize("action,code", [("nan", "NOT_FINITE"), ("oom", "OUT_OF_MEMORY")])
def test_a_failing_stage_is_named_and_its_peers_are_consequences(fresh_cluster, tmp_path, action, code):
    fresh_cluster.start_worker("w0")
    fresh_cluster.start_worker("w1")
    fresh_cluster.start_worker("w2", environment=failpoint("worker.forward@20", action))
    fresh_cluster.wait_idle(3)
    done = fresh_cluster.wait(fresh_cluster.submit(write_spec(tmp_path, training_spec("bad"))), BOUND_SECONDS)
    assert done["state"] == "STATE_FAILED"
    assert done["failure"]["code"] == code and done["failure"]["worker"] == "w2", done["failure"]
    assert done["attempt"] == 1 and "restarts" not in done, done
    fresh_cluster.wait_idle(3)


def test_a_diverging_loss_fails_the_job(cluster, tmp_path):
    spec = training_spec("diverge", steps=200)
    spec["train"]["optimizer"] = {"sgd": {"lr": 1e30}}
    done = cluster.wait(cluster.submit(write_spec(tmp_path, spec)))
    assert done["state"] == "STATE_FAILED" and done["failure"]["code"] == "NOT_FINITE"
    assert "step" in done["reason"]


def test_sigterm_to_a_worker_leaves_in_order(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(3)
    job = fresh_cluster.submit(write_spec(tmp_path, once(training_spec("leave", steps=1000000))))
    wait_until(lambda: int(fresh_cluster.job(job).get("steps_done", 0)) > 3, what="steps done")
    leaving = fresh_cluster.workers["w1"]
    leaving.terminate()
    assert leaving.wait(BOUND_SECONDS) == 0
    done = fresh_cluster.wait(job, BOUND_SECONDS)
    assert done["state"] == "STATE_FAILED" and done["failure"]["code"] == "WORKER_LEFT"
    assert done["failure"]["worker"] == "w1"


def test_acknowledged_jobs_survive_kill_9_of_the_orchestrator_and_run(fresh_cluster, tmp_path):
    jobs = [fresh_cluster.submit(write_spec(tmp_path, training_spec(f"queued{i}", workers=2))) for i in range(5)]
    fresh_cluster.orchestrator.kill()
    fresh_cluster.orchestrator.wait()
    fresh_cluster.start_orchestrator(port=fresh_cluster.address.rpartition(":")[2])
    fresh_cluster.start_workers(2)
    for job in jobs:
        assert fresh_cluster.wait(job)["state"] == "STATE_SUCCEEDED"


def test_a_running_job_restarts_from_its_checkpoint_after_kill_9_of_the_orchestrator(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(2)
    spec = training_spec("restart", workers=2, steps=2000)
    spec["train"]["checkpoint_every"] = 100
    expected = fresh_cluster.run(write_spec(tmp_path, dict(spec, name="straight")), tmp_path / "straight")
    job = fresh_cluster.submit(write_spec(tmp_path, spec))
    wait_until(lambda: int(fresh_cluster.job(job).get("checkpoint_step", 0)) > 0, what="a checkpoint")
    fresh_cluster.orchestrator.kill()
    fresh_cluster.orchestrator.wait()
    fresh_cluster.start_orchestrator(port=fresh_cluster.address.rpartition(":")[2])
    done = fresh_cluster.wait(job)
    assert done["state"] == "STATE_SUCCEEDED" and done["attempt"] == 2, done
    gpipe("job", "pull", job, "--output", tmp_path / "restarted", address=fresh_cluster.address)
    curve = [(s["step"], s["loss"]) for s in read_jsonl(tmp_path / "restarted" / "metrics.jsonl")]
    assert curve == [(s["step"], s["loss"]) for s in read_jsonl(expected / "metrics.jsonl")]


def test_sigterm_to_the_orchestrator_ends_it_in_order(fresh_cluster):
    fresh_cluster.start_workers(1)
    fresh_cluster.orchestrator.terminate()
    assert fresh_cluster.orchestrator.wait(BOUND_SECONDS) == 0


def test_cancel_pause_and_resume(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(2)
    address = fresh_cluster.address
    job = fresh_cluster.submit(write_spec(tmp_path, training_spec("pause", workers=2, steps=1000000)))

    def steps():
        return int(fresh_cluster.job(job).get("steps_done", 0))

    wait_until(lambda: steps() > 3, what="steps done")
    gpipe("job", "pause", job, address=address)
    assert fresh_cluster.job(job)["state"] == "STATE_PAUSED"
    # Everything granted is worked off; then the count stands still.
    settled = wait_until(lambda: [steps()] if steps() == steps() else None, what="a standstill")[0]
    gpipe("job", "resume", job, address=address)
    wait_until(lambda: steps() > settled, what="more steps")
    gpipe("job", "cancel", job, address=address)
    assert fresh_cluster.wait(job)["state"] == "STATE_CANCELLED"
    assert gpipe("job", "wait", job, address=address, check=False).returncode == 5
    assert gpipe("job", "resume", job, address=address, check=False).returncode != 0
    fresh_cluster.wait_idle(2)


def processes_of(marker: str) -> list[str]:
    """Command lines of running processes that mention marker."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if marker in line and "pytest" not in line:
                found.append(line)
    return found


def start_run(folder, steps=1000000):
    """`gpipe run` on two workers, and the folder that its temporary files are in."""
    scratch = folder / "scratch"
    scratch.mkdir()
    spec = write_spec(folder, training_spec("private", workers=2, steps=steps))
    process = subprocess.Popen([str(BIN / "gpipe"), "run", str(spec), "--output", str(folder / "out")],
                               env=dict(os.environ, TMPDIR=str(scratch), NO_COLOR="1"), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return process, scratch


def children_of(process, program):
    children = [c for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir()
                for c in (task / "children").read_text().split()]
    return [int(c) for c in children if program in pathlib.Path(f"/proc/{c}/cmdline").read_text()]


@pytest.mark.parametrize("how", [None, signal.SIGINT, signal.SIGTERM], ids=["success", "ctrl-c", "sigterm"])
def test_gpipe_run_leaves_nothing_behind(tmp_path, how):
    process, scratch = start_run(tmp_path, steps=20 if how is None else 1000000)
    if how is not None:
        wait_until(lambda: "step" in process.stdout.readline(), what="progress")
        process.send_signal(how)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == (0 if how is None else 5), output
    assert list(scratch.iterdir()) == []
    assert processes_of(str(scratch)) == []


def test_a_worker_killed_under_gpipe_run_fails_it(tmp_path):
    process, scratch = start_run(tmp_path)
    wait_until(lambda: "step" in process.stdout.readline(), what="progress")
    os.kill(children_of(process, "gpipe-worker")[0], signal.SIGKILL)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1, output
    assert list(scratch.iterdir()) == []


def test_what_a_run_has_stored_outlives_its_orchestrator(tmp_path):
    process, scratch = start_run(tmp_path)
    wait_until(lambda: "step" in process.stdout.readline(), what="progress")
    database, = scratch.glob("**/gpipe.db")
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as stored:
        wait_until(lambda: stored.execute("SELECT count(*) FROM checkpoints").fetchone()[0], what="a checkpoint")
    orchestrator, = children_of(process, "gpipe-orchestrator")
    os.kill(orchestrator, signal.SIGKILL)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1, output
    kept, = scratch.iterdir()
    assert f"stays in {kept}" in output
    job_id = output.split("gpipe job pull ")[1].split()[0]
    served = Cluster(kept)
    try:
        served.pull(job_id, tmp_path / "out")
    finally:
        served.stop()
    assert list((tmp_path / "out" / "checkpoints").glob("*/manifest.json"))


@contextlib.contextmanager
def full_disk(folder, kibibytes=256):
    """A folder with so little left on its file system, and the command that a program needs before its own to see it."""
    enter = ["unshare", "--map-root-user", "--mount", "sh", "-c",
             f'mount -t tmpfs -o size={kibibytes}k tmpfs "$0" && exec "$@"', str(folder)]
    if subprocess.run([*enter, "true"], capture_output=True).returncode == 0:
        yield folder, enter
        return
    # In a container, which may not mount, /dev/shm is a small file system of its own.
    free = shutil.disk_usage("/dev/shm").free
    assert free < 1 << 30, "this test needs a user namespace to mount a tmpfs in, or a small /dev/shm"
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shared:
        pathlib.Path(shared, "filler").write_bytes(bytes(free - (kibibytes << 10)))
        yield pathlib.Path(shared), []


def test_a_full_disk_fails_the_job_with_that_reason(fresh_cluster, tmp_path):
    (tmp_path / "small").mkdir()
    with full_disk(tmp_path / "small") as (folder, enter), open(tmp_path / "w0.log", "wb") as log:
        fresh_cluster.workers["w0"] = subprocess.Popen(
            [*enter, str(BIN / "gpipe-worker"), "--orchestrator", fresh_cluster.address, "--name", "w0", "--threads",
             "1", "--work-dir", str(folder)], stdout=log, stderr=log)
        fresh_cluster.wait_idle(1)
        spec = training_spec("full", workers=1)
        spec["model"]["sequential"][0] = {"linear": {"in_features": 16, "out_features": 4096}}
        spec["model"]["sequential"][2] = {"linear": {"in_features": 4096, "out_features": 16}}
        done = fresh_cluster.wait(fresh_cluster.submit(write_spec(tmp_path, spec)))
        assert done["state"] == "STATE_FAILED" and done["failure"]["code"] == "DISK_FULL", done
        fresh_cluster.stop()


def test_a_file_that_has_no_room_costs_the_orchestrator_and_other_jobs_nothing(tmp_path):
    (tmp_path / "small").mkdir()
    save_file({"input": torch.zeros(16 << 20)}, tmp_path / "large.safetensors")  # 64 MiB.
    large = {"name": "large", "model": {"sequential": [{"relu": {}}]}, "infer": {"inputs": "large.safetensors"}}
    with full_disk(tmp_path / "small", 32 << 10) as (folder, enter):
        cluster = Cluster(tmp_path / "cluster", state=folder, enter=enter)
        try:
            cluster.start_workers(1)
            job = cluster.submit(write_spec(tmp_path, training_spec("small", workers=1, steps=200)))
            refused = gpipe("job", "submit", write_spec(tmp_path, large), address=cluster.address, check=False)
            assert refused.returncode != 0 and "disk full" in refused.stderr, refused.stderr
            assert cluster.wait(job)["state"] == "STATE_SUCCEEDED"
            cluster.run(write_spec(tmp_path, training_spec("next", workers=1)), tmp_path / "next")
        finally:
            cluster.stop()


def test_workers_may_start_before_the_orchestrator_and_join_later(fresh_cluster, tmp_path):
    port = fresh_cluster.address.rpartition(":")[2]
    fresh_cluster.orchestrator.terminate()
    fresh_cluster.orchestrator.wait()
    fresh_cluster.start_worker("w0")
    fresh_cluster.start_orchestrator(port=port)
    fresh_cluster.wait_idle(1)
    job = fresh_cluster.submit(write_spec(tmp_path, training_spec("later", workers=2)))
    assert fresh_cluster.job(job)["state"] == "STATE_QUEUED"
    fresh_cluster.start_worker("w1")
    assert fresh_cluster.wait(job)["state"] == "STATE_SUCCEEDED"


def test_a_submission_is_idempotent_by_request_id(cluster, tmp_path):
    path = write_spec(tmp_path, training_spec("twice", workers=2))
    first = cluster.submit(path, "--request-id", "the-same-request")
    assert cluster.submit(path, "--request-id", "the-same-request") == first
    listed = json.loads(gpipe("job", "list", "-o", "json", address=cluster.address).stdout)["jobs"]
    assert [job["id"] for job in listed].count(first) == 1


def test_a_missing_file_is_refused_with_its_line(cluster, tmp_path):
    spec = training_spec("missing", workers=2)
    spec["train"]["dataset"] = {"path": "nowhere.safetensors", "inputs": ["x"], "target": "y"}
    path = write_spec(tmp_path, spec)
    refused = gpipe("job", "submit", path, address=cluster.address, check=False)
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "nowhere" in text)
    assert refused.returncode == 2
    assert f"missing.yaml:{line}: train.dataset.path" in refused.stderr


@pytest.mark.parametrize("change,field", [
    (lambda s: s["model"]["sequential"].__setitem__(2, {"linear": {"in_features": 7, "out_features": 16}}),
     "model.sequential[2].linear"),
    (lambda s: s["pipeline"].__setitem__("balance", [2, 2]), "pipeline.balance"),
    (lambda s: s["pipeline"].__setitem__("chunks", 0), "pipeline.chunks"),
    (lambda s: s["model"]["sequential"].__setitem__(1, {"pop_add": {"name": "nothing"}}), "model.sequential[1].pop_add"),
    (lambda s: s["train"].__setitem__("batch", 3), "train.batch"),
    (lambda s: s["train"]["dataset"]["random"].__setitem__("classes", 99), "train.dataset"),
], ids=["shapes", "balance", "chunks", "pop", "unknown", "classes"])
def test_bad_specs_are_refused_with_field_and_line(cluster, tmp_path, change, field):
    spec = training_spec("bad", workers=2)
    change(spec)
    refused = gpipe("job", "submit", write_spec(tmp_path, spec), address=cluster.address, check=False)
    assert refused.returncode == 2, refused
    assert f": {field}" in refused.stderr, refused.stderr
    assert "bad.yaml:" in refused.stderr


def test_a_target_outside_the_classes_is_refused(cluster, tmp_path):
    spec = training_spec("classes", workers=2)
    save_file({"x": torch.randn(20, 16), "y": torch.arange(20)}, tmp_path / "data.safetensors")
    spec["train"]["dataset"] = {"path": "data.safetensors", "inputs": ["x"], "target": "y"}
    refused = gpipe("job", "submit", write_spec(tmp_path, spec), address=cluster.address, check=False)
    assert refused.returncode == 2
    assert "train.dataset.target" in refused.stderr and "16" in refused.stderr


def test_a_job_goes_on_after_the_orchestrator_was_stopped(fresh_cluster, tmp_path):
    """Longer than a lease: the workers have let go when it wakes, and the job starts again from its checkpoint."""
    fresh_cluster.start_workers(2)
    spec = training_spec("stopped", workers=2, steps=1500)
    spec["train"]["checkpoint_every"] = 100
    del spec["train"]["evaluate"]
    job = fresh_cluster.submit(write_spec(tmp_path, spec))
    log = fresh_cluster.folder / "orchestrator.log"
    wait_until(lambda: f"{job}: checkpoint of step 100" in log.read_text(), 60, "the first checkpoint")
    fresh_cluster.orchestrator.send_signal(signal.SIGSTOP)
    logs = [fresh_cluster.folder / f"{name}.log" for name in fresh_cluster.workers]
    wait_until(lambda: all("let go" in log.read_text() for log in logs), 30, "the workers have let go")
    fresh_cluster.orchestrator.send_signal(signal.SIGCONT)
    ended = fresh_cluster.wait(job, 120)
    assert ended["state"] == "STATE_SUCCEEDED" and int(ended["attempt"]) == 2, ended
    assert "the orchestrator was stopped for a while; goes on from the checkpoint of step" in log.read_text()
    stopped = load_file(fresh_cluster.pull(job, tmp_path / "stopped") / "model.safetensors")
    through = load_file(fresh_cluster.run(write_spec(tmp_path, dict(spec, name="through")), tmp_path / "through") /
                        "model.safetensors")
    assert stopped.keys() == through.keys()
    for name, tensor in through.items():
        torch.testing.assert_close(stopped[name], tensor, rtol=1e-5, atol=1e-7)


def states(cluster) -> dict[str, str]:
    return {worker["name"]: worker["state"] for worker in cluster.worker_list()}


@pytest.mark.skipif(DEVICE != "cpu", reason="NCCL listens at the interface of an address, not at the address")
def test_a_worker_that_its_peers_cannot_reach_gets_no_work_and_the_job_goes_to_others(fresh_cluster, tmp_path):
    blocked = {"LD_PRELOAD": str(preloaded("unreachable", tmp_path)), "UNREACHABLE_ADDRESS": "127.0.0.2"}
    fresh_cluster.start_worker("w0", environment=blocked)
    fresh_cluster.start_worker("w1", arguments=["--data-address", "127.0.0.2"])
    fresh_cluster.wait_idle(2)
    alone = fresh_cluster.wait(fresh_cluster.submit(write_spec(tmp_path, once(training_spec("alone", workers=2)))),
                               BOUND_SECONDS)
    assert alone["state"] == "STATE_FAILED" and alone["failure"]["code"] == "WORKER_UNREACHABLE", alone
    assert alone["failure"]["worker"] == "w1" and "127.0.0.2" in alone["failure"]["message"], alone["failure"]
    assert states(fresh_cluster)["w1"] == "STATE_UNREACHABLE"
    table = gpipe("worker", "list", address=fresh_cluster.address).stdout
    assert "w1    UNREACHABLE" in table and "peers cannot connect to its data address 127.0.0.2" in table, table

    # Started again it is tried again, and the job that finds it out goes on without it.
    fresh_cluster.workers["w1"].kill()
    wait_until(lambda: states(fresh_cluster)["w1"] == "STATE_LOST", what="w1 is lost")
    fresh_cluster.start_worker("w1", arguments=["--data-address", "127.0.0.2"])
    fresh_cluster.start_worker("w2", environment=blocked)
    fresh_cluster.wait_idle(3)
    done = fresh_cluster.wait(fresh_cluster.submit(write_spec(tmp_path, training_spec("moves", workers=2))))
    assert done["state"] == "STATE_SUCCEEDED" and done["attempt"] == 2 and done["workers"] == ["w0", "w2"], done
    assert states(fresh_cluster)["w1"] == "STATE_UNREACHABLE"
    log = gpipe("job", "logs", done["id"], address=fresh_cluster.address).stdout
    assert "worker w1 (stage 1) is unreachable" in log and "goes on from the beginning" in log, log


@pytest.mark.parametrize("address", ["192.0.2.1", "no.such.name.invalid"])
def test_a_data_address_that_is_not_this_machines_is_refused_at_the_start(fresh_cluster, address):
    worker = fresh_cluster.start_worker("w0", device="cpu", arguments=["--data-address", address])
    assert worker.wait(BOUND_SECONDS) == 2
    assert f"cannot use data address '{address}'" in (fresh_cluster.folder / "w0.log").read_text()
