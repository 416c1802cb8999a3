"""What operators do with a running cluster: draining workers, backups."""

import json
import pathlib
import subprocess
import tarfile

from cluster import Cluster, gpipe, read_jsonl, wait_until, write_spec
from failure_table import training_spec
from test_comeback import check_same


def worker(cluster, name: str) -> dict:
    return next(worker for worker in cluster.worker_list() if worker["name"] == name)


def restart_orchestrator(cluster):
    cluster.orchestrator.terminate()
    cluster.orchestrator.wait()
    cluster.start_orchestrator(port=cluster.address.rpartition(":")[2])


def test_a_drained_worker_goes_on_and_gets_no_new_work(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(2)
    running = fresh_cluster.submit(write_spec(tmp_path, training_spec("running", workers=2, steps=300)))
    wait_until(lambda: fresh_cluster.job(running)["state"] == "STATE_RUNNING", what="it runs")
    said = gpipe("worker", "drain", "w1", "--reason", "new memory", address=fresh_cluster.address).stdout
    assert said == f"worker w1 gets no new work; its part in {running} goes on\n"
    waiting = fresh_cluster.submit(write_spec(tmp_path, training_spec("waiting", workers=2)))
    done = fresh_cluster.wait(running)
    assert done["state"] == "STATE_SUCCEEDED" and done["attempt"] == 1, done
    fresh_cluster.wait_idle(2)
    assert fresh_cluster.job(waiting)["reason"] == "needs 2 workers; 1 is connected; w1 is drained"
    table = gpipe("worker", "list", address=fresh_cluster.address).stdout
    assert "w1    IDLE drained" in table and "drained: new memory" in table, table
    gpipe("worker", "undrain", "w1", address=fresh_cluster.address)
    assert fresh_cluster.wait(waiting)["state"] == "STATE_SUCCEEDED"


def test_a_worker_stays_drained_over_restarts_of_both_sides(fresh_cluster):
    fresh_cluster.start_workers(2)
    gpipe("worker", "drain", "w1", address=fresh_cluster.address)
    restart_orchestrator(fresh_cluster)
    fresh_cluster.wait_idle(2)
    assert worker(fresh_cluster, "w1")["drained"] and worker(fresh_cluster, "w1")["reason"] == "drained"
    fresh_cluster.workers["w1"].kill()
    fresh_cluster.workers["w1"].wait()
    restart_orchestrator(fresh_cluster)
    assert worker(fresh_cluster, "w1") == {"name": "w1", "state": "STATE_LOST", "drained": True, "reason": "drained"}
    fresh_cluster.start_worker("w1")
    fresh_cluster.wait_idle(2)
    assert worker(fresh_cluster, "w1")["drained"]
    gpipe("worker", "undrain", "w1", address=fresh_cluster.address)
    assert "drained" not in worker(fresh_cluster, "w1")


def test_draining_is_refused_with_a_word(cluster):
    unknown = gpipe("worker", "drain", "nobody", address=cluster.address, check=False)
    assert unknown.returncode == 4 and "no worker 'nobody'" in unknown.stderr, unknown
    long = gpipe("worker", "drain", "w0", "--reason", "x" * 201, address=cluster.address, check=False)
    assert long.returncode == 2 and "reason: must have at most 200 bytes, and has 201" in long.stderr, long
    assert not any(worker.get("drained") for worker in cluster.worker_list())
    drained = json.loads(gpipe("worker", "drain", "w0", "-o", "json", address=cluster.address).stdout)
    assert drained["drained"], drained
    gpipe("worker", "undrain", "w0", address=cluster.address)


def backup(cluster: Cluster, target: pathlib.Path, *arguments) -> str:
    return gpipe("admin", "backup", target, *arguments, address=cluster.address).stdout


def endless_spec(name: str) -> dict:
    """Which removes a checkpoint with each new one."""
    spec = training_spec(name, workers=2, steps=800)
    spec["train"]["keep_checkpoints"] = 1
    return spec


def test_a_backup_of_a_running_job_goes_on_elsewhere(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(2)
    results = fresh_cluster.run(write_spec(tmp_path, training_spec("ended", workers=2)), tmp_path / "ended")
    ended = json.loads((results / "job.json").read_text())["id"]
    fresh_cluster.wait_idle(2)
    job = fresh_cluster.submit(write_spec(tmp_path, endless_spec("running")))
    wait_until(lambda: int(fresh_cluster.job(job).get("checkpoint_step", 0)) >= 40, what="checkpoints")
    said = backup(fresh_cluster, tmp_path / "backup")
    assert said.startswith(f"{tmp_path / 'backup'}: ") and " files, " in said, said
    assert fresh_cluster.job(job)["attempt"] == 1
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "backup", check=True)
    assert fresh_cluster.wait(job)["state"] == "STATE_SUCCEEDED"
    expected = fresh_cluster.pull(job, tmp_path / "expected")

    gpipe("admin", "restore", tmp_path / "backup", "--state-dir", tmp_path / "restored")
    other = Cluster(tmp_path / "other", state=tmp_path / "restored")
    try:
        assert other.job(ended)["state"] == "STATE_SUCCEEDED"
        check_same(other.pull(ended, tmp_path / "ended again"), tmp_path / "ended")
        waiting = other.job(job)
        assert waiting["state"] == "STATE_QUEUED" and int(waiting["checkpoint_step"]) >= 40, waiting
        steps = read_jsonl(other.pull(job, tmp_path / "half") / "metrics.jsonl")
        assert len(steps) >= 40 and steps == read_jsonl(expected / "metrics.jsonl")[:len(steps)]
        other.start_workers(2)
        done = other.wait(job)
        assert done["state"] == "STATE_SUCCEEDED" and done["attempt"] == 2, done
        check_same(other.pull(job, tmp_path / "found"), expected)
    finally:
        other.stop()


def test_an_archive_has_the_same_files_as_a_folder(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(2)
    fresh_cluster.run(write_spec(tmp_path, training_spec("ended", workers=2)), tmp_path / "ended")
    fresh_cluster.wait_idle(2)
    backup(fresh_cluster, tmp_path / "folder")
    backup(fresh_cluster, tmp_path / "archive.tar")
    with tarfile.open(tmp_path / "archive.tar") as archive:
        archive.extractall(tmp_path / "archive", filter="data")
    contents = [{str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*")
                 if path.is_file() and path.name != "SHA256SUMS"} for root in (tmp_path / "folder", tmp_path / "archive")]
    assert contents[0] == contents[1] and len(contents[0]) == 8
    gpipe("admin", "restore", tmp_path / "archive", "--state-dir", tmp_path / "restored")
    backup(fresh_cluster, tmp_path / "small", "--without-files")
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["SHA256SUMS", "gpipe.db"]


def test_backups_and_restores_that_are_refused(cluster, tmp_path):
    cluster.wait_idle(2)
    cluster.run(write_spec(tmp_path, training_spec("ended", workers=2)), tmp_path / "ended")
    backup(cluster, tmp_path / "backup")
    again = gpipe("admin", "backup", tmp_path / "backup", address=cluster.address, check=False)
    assert again.returncode == 2 and "is there already, and not an empty folder" in again.stderr, again
    onto = gpipe("admin", "restore", tmp_path / "backup", "--state-dir", cluster.folder / "state", check=False)
    assert onto.returncode == 2 and "is there already, and not an empty folder" in onto.stderr, onto
    damaged = max((tmp_path / "backup" / "artifacts").rglob("*"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    refused = gpipe("admin", "restore", tmp_path / "backup", "--state-dir", tmp_path / "restored", check=False)
    assert refused.returncode == 1 and f"{damaged} is not what it was" in refused.stderr, refused
    assert not list(tmp_path.glob("restored*"))
    gone = gpipe("admin", "backup", tmp_path / "nothing", address="127.0.0.1:1", check=False)
    assert gone.returncode == 3 and not list(tmp_path.glob("nothing*")), gone
