"""gpipe.Cluster: the processes are there for as long as they are wanted, and gone after that, however it ends."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

from cluster import BIN, ROOT, gpipe as cli, losses_of, wait_until, write_spec
from gpipe import Cluster, ClusterError, JobFailedError, v1
from python_client import endless_spec, training_spec, write_data


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    monkeypatch.setenv("GPIPE_BIN_DIR", str(BIN))


def is_there(process: int) -> bool:
    """A zombie is not: somebody has yet to look."""
    try:
        return "Z" not in pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(processes, folder: pathlib.Path) -> bool:
    return not any(map(is_there, processes)) and not folder.exists()


# --- Within a process ---

def test_a_job_on_a_private_cluster_is_the_one_of_gpipe_run(tmp_path):
    spec = training_spec("private")
    path = write_spec(write_data(tmp_path), spec)
    cli("run", path, "--output", tmp_path / "expected")
    with Cluster(workers=2, device=["cpu", "cpu"]) as cluster:
        processes, folder, memory = cluster.processes, cluster.folder, cluster.shared_memory
        assert memory.stat().st_mode & 0o777 == 0o700 and not cluster.failure
        (beside := memory.with_name(f"{memory.name}-of-a-user")).mkdir()
        assert set(processes) == {"orchestrator", "w0", "w1"} and all(map(is_there, processes.values()))
        job = cluster.submit(path).wait()
        assert job.message.spec.max_restarts == 0 and job.message.spec.pipeline.workers == 2
        # Files are read where they are.
        assert len(list((folder / "state" / "artifacts").rglob("*.ref"))) == 1
        job.pull(tmp_path / "pulled")
        assert losses_of(tmp_path / "pulled") == losses_of(tmp_path / "expected")
        assert (tmp_path / "pulled" / "model.safetensors").read_bytes() == (
            tmp_path / "expected" / "model.safetensors").read_bytes()
        assert cluster.submit({**spec, "name": "second"}, folder=tmp_path).wait().state == "SUCCEEDED"
    assert gone(processes.values(), folder) and not memory.exists() and not beside.exists()
    cluster.close()


def test_a_spec_is_made_to_fit(tmp_path):
    with Cluster(workers=2) as cluster:
        spec = training_spec("fit")
        del spec["pipeline"]["balance"]
        plans = [cluster.plan({**spec, "pipeline": pipeline}, folder=write_data(tmp_path))
                 for pipeline in ({"workers": 3}, {"balance": [1, 1, 1]}, {"balance": [3]}, {"device": "cuda"})]
        assert [max(plan.message.plan.stage_worker) + 1 for plan in plans] == [2, 2, 1, 2]


def test_an_exception_ends_it():
    with pytest.raises(ZeroDivisionError), Cluster(workers=1) as cluster:
        processes, folder = cluster.processes, cluster.folder
        cluster.submit(endless_spec("left"))
        1 / 0
    assert gone(processes.values(), folder)


def test_no_pipe_is_left_open():
    """Which Python says where such warnings are on, as they are under pytest."""
    program = "import gpipe\nwith gpipe.Cluster(workers=1) as cluster:\n    gpipe.Client(cluster.address).jobs()"
    done = subprocess.run([sys.executable, "-W", "error::ResourceWarning", "-c", program], capture_output=True,
                          text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT / "client" / "python")})
    assert (done.returncode, done.stderr) == (0, "")


def test_the_last_use_of_it_or_a_job_of_it_ends_it(tmp_path):
    cluster = Cluster(workers=1)
    processes, folder = cluster.processes, cluster.folder
    job = cluster.submit({**training_spec("last"), "pipeline": {}}, folder=write_data(tmp_path))
    del cluster
    assert job.wait().state == "SUCCEEDED"
    del job
    assert gone(processes.values(), folder)


def test_a_worker_that_dies_fails_its_job_and_an_orchestrator_all_calls(tmp_path):
    with Cluster(workers=2) as cluster:
        job = cluster.submit(endless_spec("dies"))
        next(update for update in job.watch() if isinstance(update, v1.StepMetrics))
        os.kill(cluster.processes["w1"], signal.SIGKILL)
        with pytest.raises(JobFailedError) as failed:
            job.wait(timeout=60)
        assert (failed.value.failure.code, failed.value.failure.worker) == ("WORKER_LOST", "w1")
        # No other worker will come: it is said, and not waited for.
        with pytest.raises(ClusterError, match=r"w1 was killed by signal 9 \(Killed\); the end of its log:"):
            cluster.submit(endless_spec("never"))
        os.kill(cluster.processes["orchestrator"], signal.SIGKILL)
        with pytest.raises(ClusterError, match="was killed by signal 9"):
            wait_until(lambda: cluster.jobs() and None, 20, "an error")
        processes, folder = cluster.processes, cluster.folder
    assert gone(processes.values(), folder)


@pytest.mark.parametrize("program,words,late", [
    ("gpipe-orchestrator", "orchestrator ended with 3; the end of its log:\nno disk", False),
    ("gpipe-worker", "w0 ended with 3; the end of its log:\nno disk", False),
    ("gpipe-worker", "w0 ended with 3; the end of its log:\nno disk", True)])
def test_what_does_not_start_says_why(tmp_path, monkeypatch, program, words, late):
    for name in ("gpipe-orchestrator", "gpipe-worker"):
        (tmp_path / name).symlink_to(BIN / name)
    (tmp_path / program).unlink()
    (tmp_path / program).write_text("#!/bin/sh\necho no disk >&2\nexit 3\n")
    (tmp_path / program).chmod(0o755)
    (tmp_path / "folders").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "folders"))
    with pytest.raises(ClusterError, match=words), Cluster(workers=1, bin_dir=tmp_path) as cluster:
        if late:
            wait_until(lambda: cluster._keeper.failure, 20, "the end noticed")
        cluster.submit(endless_spec("none"))
    assert not list((tmp_path / "folders").iterdir())
    with pytest.raises(ClusterError, match="are not in .*; GPIPE_BIN_DIR says where"):
        Cluster(bin_dir=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="too many for this machine"):
        Cluster(workers=10_000)
    for devices in (["cpu"], ["cpu", "cuda:0"], ["cpu", "tpu"]):
        with pytest.raises(ValueError, match="must list 2 devices of one kind, cpu or cuda"):
            Cluster(workers=2, device=devices)


def test_a_child_that_is_forked_off_does_not_end_it():
    with Cluster(workers=1) as cluster:
        child = os.fork()
        if child == 0:
            cluster._end()  # As the child's interpreter would at its end.
            os._exit(0)
        os.waitpid(child, 0)
        assert all(map(is_there, cluster.processes.values()))
        assert len(cluster.workers()) <= 1


# --- The process itself ends ---

PROGRAM = """
    import multiprocessing, os, sys, time
    import gpipe
    from python_client import endless_spec
    cluster = gpipe.Cluster(workers=2)
    cluster.submit(endless_spec("endless"))
    print(cluster._keeper._process.pid, *cluster.processes.values(), cluster.folder, flush=True)
"""
ENDINGS = {
    "its end": ("", None, 0),
    "an exception": ("raise SystemExit(4)", None, 4),
    "os._exit": ("os._exit(5)", None, 5),
    "Ctrl-C": ("while True: time.sleep(1)", signal.SIGINT, -signal.SIGINT),
    "Ctrl-C while it waits": ("print(cluster.jobs()[0].wait())", signal.SIGINT, -signal.SIGINT),
    "SIGTERM": ("while True: time.sleep(1)", signal.SIGTERM, -signal.SIGTERM),
    "SIGKILL": ("while True: time.sleep(1)", signal.SIGKILL, -signal.SIGKILL),
    # A child that was forked holds the pipes open for longer.
    "SIGKILL with a child": ("""if os.fork() == 0: time.sleep(15); os._exit(0)
    while True: time.sleep(1)""", signal.SIGKILL, -signal.SIGKILL),
}


@contextlib.contextmanager
def running(tmp_path, rest: str):
    """A program with a cluster, its keeper's and its processes' numbers, and the folder."""
    text = textwrap.dedent(PROGRAM + "    " + rest + "\n")
    folders = [str(ROOT / "client" / "python"), str(ROOT / "tests" / "python")]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(folders))
    program = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env=environment,
                               stderr=open(tmp_path / "errors", "w"), start_new_session=True)
    try:
        *numbers, folder = program.stdout.readline().split()
        assert numbers, (tmp_path / "errors").read_text()
        yield program, [int(number) for number in numbers], pathlib.Path(folder)
    finally:
        program.kill()
        program.wait()
        program.stdout.close()


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left_when_the_process_ends(tmp_path, ending):
    rest, number, code = ENDINGS[ending]
    with running(tmp_path, rest) as (program, processes, folder):
        if number is not None:
            assert all(map(is_there, processes)) and folder.exists()
            # A terminal's Ctrl-C goes to the whole group.
            os.killpg(program.pid, number) if number == signal.SIGINT else program.send_signal(number)
        assert program.wait(30) == code
        wait_until(lambda: gone(processes, folder), 15, "all gone")


def test_nothing_runs_when_even_the_keeper_is_killed(tmp_path):
    with running(tmp_path, "while True: time.sleep(1)") as (program, processes, folder):
        os.kill(processes[0], signal.SIGKILL)
        wait_until(lambda: not any(map(is_there, processes)), 15, "the processes gone")
        program.send_signal(signal.SIGINT)
        program.wait(30)
        assert not folder.exists()
