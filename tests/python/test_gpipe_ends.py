"""The workers of gpipe.GPipe: there for as long as the model is, whatever happens to it, to them and to the process."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from cluster import BIN, ROOT, wait_until
from gpipe import Client, Cluster, ClusterError, Error, GPipe, JobCancelledError, JobFailedError
from gpipe._gpipe import embedded
from gpipe_models import backward, batch, expect_equal, network, pair, train

pytestmark = [pytest.mark.usefixtures("workers"), pytest.mark.filterwarnings("ignore:The given buffer is not writable")]


def cluster_of(model: GPipe) -> Cluster:
    return model._engine._launcher._client


def exchange_of(model: GPipe) -> pathlib.Path:
    return pathlib.Path(model._engine.mirror.session._exchange.folder)


# --- Around it ---

def test_two_models_at_once():
    (first, expected_first), (second, expected_second) = pair(), pair(lambda: network(1))
    for one, other in ((first, second), (expected_first, expected_second)):
        optimizers = [torch.optim.SGD(one.parameters(), lr=0.1), torch.optim.Adam(other.parameters())]
        for step in range(3):
            (one(batch(step)[0]) * other(batch(step)[0])).sum().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    expect_equal(first, expected_first, rtol=1e-5, atol=1e-6)
    expect_equal(second, expected_second, rtol=1e-5, atol=1e-6)
    assert cluster_of(first) is not cluster_of(second)


def test_the_next_model_has_the_workers_of_the_last_one():
    clusters = []
    for _ in range(2):
        model = GPipe(network(), [2, 3])
        model(batch()[0])
        clusters.append(cluster_of(model))
        del model
    assert clusters[0] is clusters[1]


def test_an_exception_in_the_loop_costs_nothing():
    models = pair()
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(4):
            with contextlib.suppress(ZeroDivisionError):
                loss = model(batch(step)[0]).sum()
                if step % 2:
                    1 / 0
                loss.backward()
                optimizer.step()
            with contextlib.suppress(RuntimeError):
                model(torch.randn(3, 5))  # Of another size than the first layer takes.
    expect_equal(*models, rtol=1e-5, atol=1e-6)


def test_no_file_is_left_in_memory():
    model = GPipe(network(), [2, 3], chunks=2)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), steps=5)
    with torch.no_grad():
        model(batch()[0])
    model.state_dict()
    folder = exchange_of(model)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(folder.iterdir())
    model.close()
    assert not folder.exists()


def test_an_output_outlives_its_file_and_its_model():
    model = GPipe(network(), [2, 3])
    output = model(batch()[0]).detach()
    copied = output.clone()
    model.close()
    output += 1
    assert torch.equal(output, copied + 1)


def test_a_model_that_nobody_has_ends_its_job():
    with Cluster(workers=2) as cluster:
        model = GPipe(network(), [2, 3], cluster=cluster)
        output = model(batch()[0])
        (job,), folder = cluster.jobs(), exchange_of(model)
        assert job.state == "RUNNING"
        del model
        with pytest.raises(Error):
            output.sum().backward()
        assert job.wait(timeout=30, check=False).state == "CANCELLED"
        assert not folder.exists()
        again = GPipe(network(), [2, 3], cluster=cluster)
        torch.testing.assert_close(again(batch()[0]), output)


def test_with_the_last_model_all_processes_end(monkeypatch):
    monkeypatch.setattr(embedded, "_pool", embedded._Pool())
    first, second = GPipe(network(), [2, 3]), GPipe(network(), [2, 3])
    for model in (first, second):
        model(batch()[0])
    processes = [number for model in (first, second) for number in cluster_of(model).processes.values()]
    folders = [cluster_of(model).shared_memory for model in (first, second)]
    del model, first
    assert all(pathlib.Path(f"/proc/{number}").exists() for number in processes)
    del second
    wait_until(lambda: not any(pathlib.Path(f"/proc/{number}").exists() for number in processes), 20, "all gone")
    assert not any(folder.exists() for folder in folders)


def test_a_standing_cluster(cluster):
    with Client(cluster.address) as client:
        model, expected = pair(chunks=2, cluster=client)
        for each in (model, expected):
            train(each, torch.optim.SGD(each.parameters(), lr=0.1))
        expect_equal(model, expected, rtol=1e-5, atol=1e-6)
        job = client.jobs("running")[0]
        assert not model._engine.mirror.session._exchange.folder
        model.close()
        assert job.wait(timeout=30).state == "SUCCEEDED"
        for name, tensor in job.tensors(framework="torch").items():
            torch.testing.assert_close(tensor, expected.state_dict()[name], rtol=1e-5, atol=1e-6)


# --- What fails ---

def kill(model: GPipe, name: str) -> None:
    os.kill(cluster_of(model).processes[name], signal.SIGKILL)


@pytest.mark.parametrize("name", ["w1", "orchestrator"])
def test_a_process_that_is_killed_is_told_and_not_waited_for(name):
    model, expected = pair()
    for each in (model, expected):
        train(each, torch.optim.SGD(each.parameters(), lr=0.1))
    kept = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer)
    kill(model, name)
    with pytest.raises(Error, match=name if name == "orchestrator" else "w1"):
        for _ in range(100):
            train(model, optimizer)
    with pytest.raises(Error):
        model.state_dict()
    model.load_state_dict(kept)
    with pytest.warns(UserWarning, match="workers were lost"):
        for each in (model, expected):
            train(each, torch.optim.SGD(each.parameters(), lr=0.1) if each is expected else optimizer)
    expect_equal(model, expected, rtol=1e-5, atol=1e-6)


def test_a_job_that_somebody_cancels():
    model = GPipe(network(), [2, 3])
    model(batch()[0])
    next(job for job in cluster_of(model).jobs("running")).cancel()
    with pytest.raises(JobCancelledError):
        for _ in range(100):
            model(batch()[0])


def test_what_fails_on_a_worker_is_said():
    model = GPipe(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3)), [1, 1])
    model(torch.tensor([[1], [2]]))
    with pytest.raises(JobFailedError, match="index out of range"):
        model(torch.tensor([[1], [10]]))
    model(torch.tensor([[1], [2]]))  # Nothing of it was only there.


def test_processes_that_are_forked_off():
    model, expected = pair()
    for each in (model, expected):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        loader = DataLoader(TensorDataset(*batch(size=20)), batch_size=5, num_workers=2)
        for _ in range(2):
            for input, target in loader:
                optimizer.zero_grad()
                functional.cross_entropy(each(input), target).backward()
                optimizer.step()
    folder, child = exchange_of(model), os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            try:
                model(batch()[0])
            except Error as error:
                code = 0 if "forked off" in str(error) else 2
            del model, each
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0 and folder.exists()
    expect_equal(model, expected, rtol=1e-5, atol=1e-6)


def test_workers_that_cannot_be_had(monkeypatch, tmp_path):
    monkeypatch.setattr(embedded, "_pool", embedded._Pool())
    monkeypatch.setenv("GPIPE_BIN_DIR", str(tmp_path))
    model = GPipe(network(), [2, 3])
    with pytest.raises(ClusterError, match="GPIPE_BIN_DIR says where"):
        model(batch()[0])
    assert not embedded._pool.users, "who has no cluster keeps none alive"
    monkeypatch.setenv("GPIPE_BIN_DIR", str(BIN))
    assert math.isfinite(float(backward(model)))


# --- The process itself ends ---

PROGRAM = """
    import os, sys, time, torch
    from gpipe import GPipe
    from gpipe_models import batch, network
    model = GPipe(network(), [2, 3])
    output = model(batch()[0])
    cluster = model._engine._launcher._client
    print(cluster._keeper._process.pid, *cluster.processes.values(), cluster.folder, cluster.shared_memory,
          model._engine._folder.path, flush=True)
"""
ENDINGS = {
    "its end": ("", None, 0),
    "an exception": ("raise SystemExit(4)", None, 4),
    "os._exit": ("os._exit(5)", None, 5),
    "Ctrl-C": ("while True: model(batch()[0]).sum().backward()", signal.SIGINT, -signal.SIGINT),
    "SIGTERM": ("while True: model(batch()[0]).sum().backward()", signal.SIGTERM, -signal.SIGTERM),
    "SIGKILL": ("while True: model(batch()[0]).sum().backward()", signal.SIGKILL, -signal.SIGKILL),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left_when_the_process_ends(tmp_path, ending):
    rest, number, code = ENDINGS[ending]
    text = textwrap.dedent(PROGRAM + "    " + rest + "\n")
    folders = [str(ROOT / "client" / "python"), str(ROOT / "tests" / "python")]
    program = subprocess.Popen([sys.executable, "-W", "ignore", "-c", text], stdout=subprocess.PIPE, text=True,
                               env=dict(os.environ, PYTHONPATH=os.pathsep.join(folders), TMPDIR=str(tmp_path)),
                               stderr=open(tmp_path / "errors", "w"), start_new_session=True)
    try:
        *processes, folder, memory, exported = program.stdout.readline().split()
        if number is not None:
            program.send_signal(number)
        assert program.wait(30) == code, (tmp_path / "errors").read_text()
        wait_until(lambda: not any(map(is_there, processes)), 15, "the processes gone")
        wait_until(lambda: not pathlib.Path(folder).exists() and not pathlib.Path(memory).exists(), 15, "no file left")
        if code in (0, 4):
            assert not pathlib.Path(exported).exists() and not (tmp_path / "errors").read_text()
    finally:
        program.kill()
        program.wait()
        program.stdout.close()


def is_there(process: str) -> bool:
    """A zombie is not: somebody has yet to look."""
    try:
        return "Z" not in pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
