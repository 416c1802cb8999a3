"""gpipe.Client and gpipe.AsyncClient against real processes: what they say, send and bring is what the program `gpipe`
says, sends and brings."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pathlib
import re
import sys
import threading
import xml.etree.ElementTree

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from cluster import ROOT, gpipe as cli, read_jsonl, wait_until, write_spec
from gpipe import AsyncClient, Client, InvalidSpecError, JobCancelledError, JobFailedError, errors, v1
from gpipe._progress import FileProgress
from gpipe._results import load
from python_client import cut_link, endless_spec, training_spec, write_data
from test_security import READ_TOKEN, SecureCluster


@pytest.fixture(scope="module")
def client(cluster):
    with Client(cluster.address) as connected:
        yield connected


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# --- Specs ---

@pytest.mark.parametrize("form", ["file", "mapping", "message"])
def test_a_job_from_each_form_of_spec(client, cluster, tmp_path, form):
    spec = training_spec(f"form-{form}")
    path = write_spec(write_data(tmp_path), spec)
    if form == "file":
        job = client.submit(path)
    else:
        given = spec if form == "mapping" else client.job(cluster.submit(path)).message.spec
        job = client.submit(given, folder=tmp_path)  # The working directory is another one.
    assert job.wait().state == "SUCCEEDED" and job.is_over and (job.steps_done, job.steps_total) == (12, 12)

    expected = cluster.pull(job.id, tmp_path / "expected")
    tensors, arrays = job.tensors(framework="torch"), job.tensors()
    for name, tensor in load_file(expected / "model.safetensors").items():
        assert torch.equal(tensors[name], tensor) and np.array_equal(arrays[name], tensor.numpy())
    assert set(tensors) == {"0.weight", "0.bias", "2.weight", "2.bias"}


WRONG = {
    "unknown": {"train": {"batchsize": 4}},
    "type": {"pipeline": {"chunks": "many", "workers": [1]}},
    "oneof": {"train": {"loss": {"mse": {}, "cross_entropy": {}}}},
    "enum": {"pipeline": {"checkpoint": "sometimes"}},
    "range": {"pipeline": {"chunks": -2}, "train": {"batch_size": -1}},
    "sum": {"pipeline": {"balance": [1, 1]}},
    "layer": {"model": {"sequential": ["relus", {"linear": {"in_features": True}}, {"dropout": 3}, None]}},
    "range and no file": {"pipeline": {"chunks": 0}, "train": {"dataset": {"path": "nowhere.safetensors"}}},
    "no file": {"train": {"dataset": {"path": "nowhere.safetensors"}}},
    "no match": {"train": {"dataset": {"path": ["data.safetensors", "part-*.safetensors"]}}},
    "no tensor": {"train": {"dataset": {"path": "data.safetensors", "inputs": ["x"]}}},
    "shape": {"model": {"sequential": [{"linear": {"in_features": 9, "out_features": 3}}]},
              "pipeline": {"balance": [1]}},
    "weights": {"model": {"weights": "."}},
}


def merged(spec: dict, change: dict) -> dict:
    return {**spec, **{key: merged(spec[key], value) if isinstance(value, dict) and isinstance(spec.get(key), dict)
                       and key not in ("loss", "dataset") else value for key, value in change.items()}}


@pytest.mark.parametrize("case", WRONG)
def test_a_refusal_has_the_words_of_the_program(client, cluster, tmp_path, monkeypatch, case):
    monkeypatch.chdir(write_data(tmp_path))
    path = write_spec(pathlib.Path(), merged(training_spec("wrong"), WRONG[case]))
    expected = cluster.refusal(path).strip()
    for ask in (client.submit, client.validate):
        with pytest.raises(InvalidSpecError) as refused:
            ask(path)
        assert str(refused.value) == expected.removeprefix("error: ").removeprefix("gpipe: ")
        assert refused.value.reason == "INVALID_SPEC" and refused.value.code == "INVALID_ARGUMENT"
        assert refused.value.field and refused.value.violations[0].description in expected
    with pytest.raises(InvalidSpecError) as without_lines:
        client.submit(merged(training_spec("wrong"), WRONG[case]))
    assert without_lines.value.violations == refused.value.violations


TEXTS = {
    "twice": "name: a\nname: b\n",
    "not yaml": "name: [a\n",
    "empty": "# nothing\n",
    "two documents": "name: a\n---\nname: b\n",
    "bytes": b"name: \xff\n",
    "quoted number": "name: a\npipeline: {chunks: '2'}\n",
    "no value": "name: a\npipeline: {chunks: }\n",
    "merge": "x-p: &p {chunks: 0, workerss: 3}\nname: a\npipeline: {<<: *p, chunks: -1}\n",
    "list": "- name: a\n",
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_file_that_cannot_be_read_is_refused_at_the_same_line(client, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    text = TEXTS[case]
    pathlib.Path("spec.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    expected = cli("validate", "spec.yaml", address=client.address, check=False).stderr
    with pytest.raises(InvalidSpecError) as refused:
        client.validate("spec.yaml")
    lines = [re.match(r"spec.yaml:(\d+:)?( [\w.]+:)?", line)[0] for line in str(refused.value).splitlines()]
    assert lines == re.findall(r"spec.yaml:(?:\d+:)?(?: [\w.]+:)?", expected), (refused.value, expected)


def test_every_reason_of_the_api_has_a_class_of_its_own():
    header = (ROOT / "common" / "error_reason.h").read_text()
    reasons = set(re.findall(r'"([A-Z_]+)"', header)) - {"GPIPE_COMMON_ERROR_REASON_H_"}
    assert reasons == set(errors.BY_REASON)
    assert len(set(errors.BY_REASON.values())) == len(reasons)
    assert isinstance(errors.make("", "INTERNAL", "OF_TOMORROW"), errors.ApiError)


# --- Files ---

def uploads(client: Client) -> list[str]:
    """Of a client that notes what it sends."""
    return [name for name, done, total in client.seen if done == total and name.startswith("sending")]


def listening(address: str) -> Client:
    seen: list[tuple[str, int, int]] = []
    made = Client(address, on_file=lambda *event: seen.append(event))
    made.seen = seen
    return made


def test_a_file_is_sent_once_and_hashed_once(cluster, tmp_path):
    spec = training_spec("sent")
    spec["train"]["dataset"]["path"] = "data-*.safetensors"
    for i in range(2):
        save_file({"input": torch.randn(16, 8), "target": torch.randint(3, (16,))}, tmp_path / f"data-{i}.safetensors")
        os.utime(tmp_path / f"data-{i}.safetensors", (1, 1))
    with listening(cluster.address) as client:
        first = client.submit(spec, folder=tmp_path)
        assert uploads(client) == ["sending data-0.safetensors", "sending data-1.safetensors"]
        assert list(first.message.spec.train.dataset.path) == ["data-0.safetensors", "data-1.safetensors"]
        client.seen.clear()

        def remembered() -> dict[str, str]:
            client.submit(spec, folder=tmp_path).cancel()
            memory = pathlib.Path(os.environ["XDG_CACHE_HOME"]) / "gpipe" / "hashes"
            lines = memory.read_text().splitlines()[1:] if memory.exists() else []
            return {line.split(" ", 6)[6]: line.split()[0] for line in lines}

        # The time at which a file's times were set is of this moment.
        hashes = wait_until(remembered, what="the files old enough")
        seen = len(client.seen)
        assert uploads(client) == [] and remembered() and not client.seen[seen:]
        files = [tmp_path / f"data-{i}.safetensors" for i in range(2)]
        assert hashes == {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        # The program has the same memory.
        cluster.submit(write_spec(tmp_path, spec))
        assert remembered() == hashes


def test_a_wrong_memory_costs_one_more_reading(cluster, tmp_path):
    data = write_data(tmp_path) / "data.safetensors"
    status = data.stat()
    memory = pathlib.Path(os.environ["XDG_CACHE_HOME"]) / "gpipe" / "hashes"
    memory.parent.mkdir(parents=True)
    stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    memory.write_text(f"gpipe hashes 1\n{'0' * 64} {stamp} 0 {data}\n")
    with Client(cluster.address) as client:
        assert client.submit(training_spec("memory"), folder=tmp_path).wait().state == "SUCCEEDED"


def test_what_is_wrong_with_a_spec_is_said_before_its_files_are_read(cluster, tmp_path):
    spec = merged(training_spec("early"), {"pipeline": {"chunks": -1}})
    write_data(tmp_path)
    with listening(cluster.address) as client, pytest.raises(InvalidSpecError, match="pipeline.chunks"):
        client.submit(spec, folder=tmp_path)
    assert not client.seen and not (tmp_path / "cache").exists()


# --- Jobs ---

def test_metrics_pull_logs_and_drawings_are_those_of_the_program(client, cluster, tmp_path):
    spec = training_spec("numbers", checkpoint_every=6,
                         evaluate={"dataset": {"path": "data.safetensors"}, "every_steps": 4})
    job = client.submit(spec, folder=write_data(tmp_path)).wait()
    expected = cluster.pull(job.id, tmp_path / "expected")
    job.pull(tmp_path / "pulled")
    files = sorted(path.relative_to(expected) for path in expected.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "pulled") for path in (tmp_path / "pulled").rglob("*")
                           if path.is_file()) and len(files) > 5
    for file in files:
        if file.suffix in (".safetensors",) or file.name == "manifest.json":
            assert (tmp_path / "pulled" / file).read_bytes() == (expected / file).read_bytes()
    for name in ("metrics.jsonl", "evaluation.jsonl"):
        assert read_jsonl(tmp_path / "pulled" / name) == read_jsonl(expected / name)

    metrics, steps = job.metrics(), read_jsonl(expected / "metrics.jsonl")
    for name in ("step", "epoch", "loss", "lr", "grad_norm", "step_seconds", "bubble_share", "stage_busy"):
        assert np.array_equal(getattr(metrics, name), np.array([step[name] for step in steps])), name
    assert metrics.stage_peak_saved_bytes.shape == (12, 2) and len(metrics) == 12
    evaluations = read_jsonl(expected / "evaluation.jsonl")
    assert metrics.evaluations.step.tolist() == [each["step"] for each in evaluations] == [4, 8, 12]
    assert np.array_equal(metrics.evaluations.accuracy, [each["accuracy"] for each in evaluations])

    events = json.loads(cli("-o", "json", "job", "logs", job.id, address=cluster.address).stdout)["events"]
    assert [event.message for event in job.logs()] == [event["message"] for event in events]
    assert [event.message for event in job.logs(follow=True)] == [event["message"] for event in events]

    timeline = job.timeline()
    assert timeline.step == 12 and "STAGE" in str(timeline)
    for drawing in (timeline.svg(), client.plan(spec, folder=tmp_path).svg(), job.plot().svg()):
        xml.etree.ElementTree.fromstring(drawing)
    timeline.save(tmp_path / "step.json")
    assert cli("job", "timeline", job.id, "-o", tmp_path / "program.json", address=cluster.address)
    ours, theirs = (json.loads((tmp_path / f"{name}.json").read_text())["traceEvents"] for name in ("step", "program"))
    assert ours == theirs
    for shown in (job, timeline, client.plan(spec, folder=tmp_path), job.plot(logarithmic=True)):
        assert "<" in shown._repr_html_()
    assert job.id in job.describe() and "0.1" in job.describe() and "SUCCEEDED" in job._repr_html_()


def test_a_plan_is_that_of_the_program(client, cluster, tmp_path):
    spec = training_spec("planned")
    plan = client.plan(write_spec(write_data(tmp_path), spec))
    expected = json.loads(cli("-o", "json", "plan", tmp_path / "planned.yaml", address=cluster.address).stdout)
    assert plan.balance == [2, 1] and plan.grid == expected["grid"] and plan.grid in str(plan) + "\n"
    assert plan.bubble_share == expected["bubble_share"] and len(plan.stages) == 2
    assert client.plan({**spec, "pipeline": {"chunks": 2}}, folder=tmp_path, workers=1).balance == [3]
    assert client.validate(spec, folder=tmp_path) == []


def test_pause_resume_cancel_delete_and_what_does_not_fit(client):
    job = client.submit(endless_spec("controlled"))
    updates = job.watch()
    next(update for update in updates if isinstance(update, v1.StepMetrics))
    assert job.pause().state == "PAUSED" and client.job(job.id).state == "PAUSED"
    with pytest.raises(errors.WrongJobStateError, match="a job that is PAUSED cannot write a checkpoint"):
        job.checkpoint()
    assert job.resume().state == "RUNNING"
    saved = job.checkpoint(timeout=30)
    assert saved > 0 and job.message.checkpoint_step == saved
    assert job.id in [listed.id for listed in client.jobs("running", "paused")]
    with pytest.raises(errors.PreconditionError, match="cannot be deleted before"):
        job.delete()
    job.cancel()
    with pytest.raises(JobCancelledError):
        job.wait(timeout=30)
    assert job.wait(check=False).state == "CANCELLED"
    with pytest.raises(errors.WrongJobStateError) as refused:
        job.pause()
    assert refused.value.code == "FAILED_PRECONDITION" and refused.value.reason == "WRONG_JOB_STATE"
    updates.close()
    job.delete()
    with pytest.raises(errors.JobNotFoundError) as gone:
        job.refresh()
    assert gone.value.reason == "JOB_NOT_FOUND" and isinstance(gone.value, LookupError)
    with pytest.raises(ValueError, match="there is no state 'walking'"):
        client.jobs("walking")


def test_a_job_that_fails_says_what_failed_it(client, tmp_path):
    spec = training_spec("nan", optimizer={"sgd": {"lr": 1e30}})
    job = client.submit(spec, folder=write_data(tmp_path))
    with pytest.raises(JobFailedError, match="not finite") as failed:
        job.wait()
    assert failed.value.failure.code == "NOT_FINITE" and failed.value.job.id == job.id


def test_waiting_has_an_end(client):
    job = client.submit(endless_spec("long"))
    with pytest.raises(errors.DeadlineError, match="did not end within 0.5 s; it is"):
        job.wait(timeout=0.5)
    job.cancel()


def test_a_job_goes_on_from_another_and_from_its_folder(client, tmp_path):
    spec = training_spec("resumed", steps=8, checkpoint_every=4)
    first = client.submit(spec, folder=write_data(tmp_path)).wait()
    first.pull(tmp_path / "results")
    spec["train"]["steps"] = 12
    for resume in (first.id, tmp_path / "results"):
        job = client.submit(spec, folder=tmp_path, resume=resume).wait()
        assert job.metrics().step.tolist() == [9, 10, 11, 12]
    with pytest.raises(ValueError, match="no whole checkpoint"):
        client.submit(spec, folder=tmp_path, resume=tmp_path)


def test_one_request_id_is_one_job(client, tmp_path):
    spec = training_spec("once")
    jobs = [client.submit(spec, folder=write_data(tmp_path), request_id=f"once-{tmp_path}") for _ in range(2)]
    assert jobs[0].id == jobs[1].id
    with pytest.raises(errors.RequestIdReusedError):
        client.submit(training_spec("twice"), folder=tmp_path, request_id=f"once-{tmp_path}")


def test_workers_can_be_drained(client):
    names = sorted(worker.name for worker in client.workers())
    assert names == ["w0", "w1", "w2", "w3"]
    assert client.drain("w3", "a test").drained and client.workers()[-1].reason
    assert not client.undrain("w3").drained
    with pytest.raises(errors.NotFoundError):
        client.drain("w9")
    assert client.version().version


# --- Connections ---

def test_a_watch_goes_on_behind_a_broken_connection(cluster, tmp_path):
    """Nothing is lost and nothing comes twice, however often the link is cut."""
    spec = endless_spec("cut")
    spec["train"]["steps"] = 300
    with cut_link(cluster.address) as link, Client(link.address) as client:
        job = client.submit(spec)
        steps = []
        for update in job.watch(timeout=120):
            if isinstance(update, v1.StepMetrics):
                steps.append(update.step)
                if len(steps) in (20, 120):
                    link.cut()
        assert job.state == "SUCCEEDED" and link.connections >= 3
        assert steps == list(range(steps[0], 301))  # It may have run before the watch began.


def test_nobody_at_the_address():
    client = Client("127.0.0.1:9")
    with pytest.raises(errors.UnavailableError, match="orchestrator at 127.0.0.1:9") as unavailable:
        client.jobs()
    assert isinstance(unavailable.value, ConnectionError)
    with pytest.raises(errors.UnavailableError):
        client.submit(endless_spec("nowhere"))
    client.close()
    with pytest.raises(errors.CancelledError, match="the connection is closed"):
        client.jobs()


def test_certificates_and_tokens(tmp_path, monkeypatch):
    secure = SecureCluster(tmp_path / "cluster", monkeypatch)
    try:
        folder = secure.certificates
        with Client(secure.address) as client:  # From the environment, as the program.
            assert client.jobs() == []
        for name in ("GPIPE_TLS_CA", "GPIPE_TLS_CERT", "GPIPE_TLS_KEY"):
            monkeypatch.delenv(name)
        with Client(secure.address, tls_ca=folder / "ca.crt", token=READ_TOKEN) as client:
            assert client.jobs() == []
            with pytest.raises(errors.DeniedError, match="may not do this") as denied:
                client.submit(endless_spec("denied"))
            assert denied.value.code == "PERMISSION_DENIED"
        with Client(secure.address, tls_ca=folder / "ca.crt") as client, pytest.raises(errors.DeniedError):
            client.jobs()
        with Client(secure.address) as client, pytest.raises(errors.UnavailableError):
            client.jobs()
    finally:
        secure.stop()
    with pytest.raises(ValueError, match="does not travel in plain text"):
        Client(secure.address, token=READ_TOKEN)
    with pytest.raises(ValueError, match="HOST:PORT"):
        Client("nowhere")


# --- asyncio ---

def test_the_twin_for_an_event_loop_does_the_same(cluster, tmp_path):
    write_data(tmp_path)

    async def train(client: AsyncClient, name: str) -> None:
        job = await client.submit(training_spec(name), folder=tmp_path)
        steps = [update.step async for update in job.watch() if isinstance(update, v1.StepMetrics)]
        assert (await job.wait()).state == "SUCCEEDED"
        assert (await job.metrics()).step.tolist()[12 - len(steps):] == steps and "0.weight" in await job.tensors()
        assert [event.sequence async for event in job.logs()]
        await job.pull(tmp_path / name)
        assert (await job.timeline()).step == 12
        assert len((await job.plot()).metrics) == 12
        await job.delete()

    async def main() -> None:
        async with AsyncClient(cluster.address) as client:
            # Both at once, on one thread.
            await asyncio.gather(train(client, "a"), train(client, "b"))
            with pytest.raises(InvalidSpecError, match="batchsize"):
                await client.submit(merged(training_spec("c"), WRONG["unknown"]), folder=tmp_path)
            with pytest.raises(errors.JobNotFoundError):
                await client.job("nobody")
            job = await client.submit(endless_spec("d"))
            watching = asyncio.create_task(job.wait())
            await asyncio.sleep(0.2)
            watching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await watching
            await job.cancel()
            assert (await job.wait(check=False)).state == "CANCELLED"
            assert len(await client.workers()) == 4 and (await client.plan(training_spec("p"), folder=tmp_path)).balance

    asyncio.run(main())


def test_a_bar_where_it_is_wanted(client, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)  # As in a program that runs notebooks, which this is not.
    client.submit(training_spec("bar"), folder=write_data(tmp_path)).wait(progress=True)
    shown = capsys.readouterr().err
    assert "12/12" in shown and "succeeded" in shown
    client.submit(training_spec("no-bar"), folder=tmp_path).wait()
    assert capsys.readouterr().err == ""


def test_bars_of_large_files(capsys):
    shown = FileProgress(tqdm)
    for name, size in (("small", 1 << 20), ("large", 1 << 27)):
        for done in (size // 2, size):
            shown(f"sending {name}", done, size)
    err = capsys.readouterr().err
    assert "sending large: 100%" in err and "128M" in err and "small" not in err


def test_numbers_that_numpy_has_not(tmp_path):
    save_file({"a": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors", "torch")["a"].dtype == torch.bfloat16
    with pytest.raises(TypeError, match="framework='torch'"):
        load(tmp_path / "a.safetensors", "numpy")
    with pytest.raises(ValueError, match="framework must be numpy or torch"):
        load(tmp_path / "a.safetensors", "jaxx")


def test_clients_of_several_threads(cluster, tmp_path):
    write_data(tmp_path)
    states = []

    def run(name: str) -> None:
        with Client(cluster.address) as client:
            states.append(client.submit(training_spec(name), folder=tmp_path).wait().state)

    threads = [threading.Thread(target=run, args=(f"thread{i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == ["SUCCEEDED"] * 3
