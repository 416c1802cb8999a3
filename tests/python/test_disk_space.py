"""What the orchestrator's disk holds: the last checkpoints, no file that no job has, and room for its own state."""

import pathlib
import shutil
import time

import torch
from safetensors.torch import load_file

from cluster import Cluster, gpipe, wait_until, write_spec
from failure_table import training_spec
from test_failures import full_disk
from test_files import inference_spec


def contents(state: pathlib.Path) -> list[pathlib.Path]:
    """The artifacts, without what is on its way."""
    return [path for path in (state / "artifacts").glob("*/*") if path.parent.name != "tmp" and path.is_file()]


def settle(state: pathlib.Path, files: int):
    """Files go a moment after what had them; then there are exactly so many."""
    wait_until(lambda: len(contents(state)) <= files, what=f"no more than {files} files")
    assert len(contents(state)) == files


def many_checkpoints(name: str, steps: int, keep: int) -> dict:
    spec = training_spec(name, workers=2, steps=steps)
    spec["train"] |= {"checkpoint_every": 1, "keep_checkpoints": keep}
    del spec["train"]["evaluate"]
    return spec


def test_the_last_checkpoints_are_kept_and_deleting_the_job_leaves_nothing(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(2)
    state = pathlib.Path(fresh_cluster.state)
    before = len(contents(state))
    job = fresh_cluster.submit(write_spec(tmp_path, many_checkpoints("often", 20, 3)))
    done = fresh_cluster.wait(job, 120)
    assert done["state"] == "STATE_SUCCEEDED", done
    steps = {path["path"].split("/")[1] for path in done["results"] if "/" in path["path"]}
    assert steps == {"18", "19", "20"}
    # Model, optimizer and manifest of three; the final model is that of the last one.
    settle(state, before + 9)
    assert not list((state / "artifacts" / "tmp").iterdir()), "parts of workers are left"
    fresh_cluster.pull(job, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "checkpoints").iterdir()) == ["18", "19", "20"]

    longer = many_checkpoints("longer", 22, 1)
    resumed = fresh_cluster.submit(write_spec(tmp_path, longer), "--resume", job)
    assert fresh_cluster.wait(resumed)["state"] == "STATE_SUCCEEDED"
    gpipe("job", "delete", job, address=fresh_cluster.address)
    # The one that it went on from, its last one, and its model.
    settle(state, before + 6)
    gpipe("job", "delete", resumed, address=fresh_cluster.address)
    settle(state, before)
    assert gpipe("job", "get", job, address=fresh_cluster.address, check=False).returncode != 0


def test_a_file_stays_as_long_as_a_job_has_it(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(2)
    state = pathlib.Path(fresh_cluster.state)
    before = len(contents(state))
    spec = inference_spec(tmp_path, "shared-data", mebibytes=1)
    jobs = [fresh_cluster.submit(spec) for _ in range(2)]
    assert [fresh_cluster.wait(job)["state"] for job in jobs] == ["STATE_SUCCEEDED"] * 2
    assert len(contents(state)) == before + 2  # The data, and outputs that are the same.
    gpipe("job", "delete", jobs[0], address=fresh_cluster.address)
    again = fresh_cluster.submit(spec)
    assert fresh_cluster.wait(again)["state"] == "STATE_SUCCEEDED"
    for job in [jobs[1], again]:
        assert len(contents(state)) == before + 2
        gpipe("job", "delete", job, address=fresh_cluster.address)
    settle(state, before)


def test_a_job_that_is_not_over_is_not_deleted(cluster, tmp_path):
    job = cluster.submit(write_spec(tmp_path, training_spec("endless", workers=2, steps=100000)))
    refused = gpipe("job", "delete", job, address=cluster.address, check=False)
    assert refused.returncode != 0 and "cancelled" in refused.stderr, refused.stderr
    gpipe("job", "cancel", job, address=cluster.address)
    gpipe("job", "delete", job, address=cluster.address)
    refused = gpipe("job", "delete", job, address=cluster.address, check=False)
    assert refused.returncode != 0 and job in refused.stderr, refused.stderr


def test_a_file_that_rotted_is_healed_by_submitting_again(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(1)
    spec = inference_spec(tmp_path, "rotten", mebibytes=1)
    first = fresh_cluster.run(spec, tmp_path / "first")
    data = max(contents(fresh_cluster.state), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:-1] + b"!")
    fresh_cluster.workers.pop("w0").kill()  # It has the file.
    fresh_cluster.start_worker("w1")
    fresh_cluster.wait_idle(1)
    failed = fresh_cluster.wait(fresh_cluster.submit(spec))
    assert failed["state"] == "STATE_FAILED" and failed["failure"]["code"] == "DAMAGED_FILE", failed
    wait_until(lambda: not data.exists(), what="the damaged file gone")
    again = fresh_cluster.run(spec, tmp_path / "again")
    outputs = [load_file(folder / "outputs.safetensors")["output"] for folder in (first, again)]
    assert torch.equal(*outputs)


def test_on_a_full_disk_jobs_are_held_and_go_on_when_there_is_room(tmp_path):
    (tmp_path / "small").mkdir()
    with full_disk(tmp_path / "small", 64 << 10) as (folder, enter):
        cluster = Cluster(tmp_path / "cluster", state=folder, enter=enter)
        inside = pathlib.Path(f"/proc/{cluster.orchestrator.pid}/root", *folder.parts[1:])
        try:
            cluster.start_workers(2)
            spec = training_spec("held", workers=1, steps=4000)
            spec["train"]["checkpoint_every"] = 0
            job = cluster.submit(write_spec(tmp_path, spec))
            wait_until(lambda: int(cluster.job(job).get("steps_done", 0)) > 100, what="steps")
            fill(inside)
            wait_until(lambda: gpipe("health", address=cluster.address, check=False).returncode == 1, what="read-only")
            assert "read-only" in gpipe("health", address=cluster.address, check=False).stdout
            refused = gpipe("job", "submit", write_spec(tmp_path, training_spec("next", workers=1)),
                            address=cluster.address, check=False)
            assert refused.returncode != 0 and "is full" in refused.stderr, refused.stderr
            held = wait_until(lambda: stands_still(cluster, job), what="the job held")
            assert held["state"] == "STATE_RUNNING" and "is full" in held["reason"], held

            (inside / "filler").unlink()
            wait_until(lambda: gpipe("health", address=cluster.address, check=False).returncode == 0, what="room")
            done = cluster.wait(job, 120)
            assert done["state"] == "STATE_SUCCEEDED" and int(done["attempt"]) == 1, done
            cluster.run(write_spec(tmp_path, training_spec("next", workers=1)), tmp_path / "next")
        finally:
            cluster.stop()


def fill(folder: pathlib.Path):
    """Leaves half a MiB."""
    with open(folder / "filler", "wb", buffering=0) as filler:
        while (room := shutil.disk_usage(folder).free - (512 << 10)) > 0:
            filler.write(bytes(min(1 << 20, room)))


def stands_still(cluster: Cluster, job: str):
    before = cluster.job(job)
    time.sleep(1)  # Several steps' time.
    after = cluster.job(job)
    return after if after.get("steps_done") == before.get("steps_done") else None
