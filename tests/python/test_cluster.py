"""What users see of a running cluster: automatic cuts, the clock, plans, results."""

import json
import re
import shutil
import subprocess
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import load_file, save_file

import make_data
from cluster import BIN, DEVICE, ROOT, gpipe, preloaded, read_jsonl, write_spec
from failure_table import training_spec


def test_an_absent_balance_is_cut_by_measured_cost(cluster, tmp_path):
    spec = training_spec("automatic")
    wide = {"linear": {"in_features": 1024, "out_features": 1024}}
    # Four cheap layers, then two that cost nearly everything: neither stage may hold both.
    spec["model"]["sequential"] = [{"relu": {}}, {"tanh": {}}, {"relu": {}}, {"linear": {"in_features": 16, "out_features": 1024}},
                                   wide, wide, {"linear": {"in_features": 1024, "out_features": 16}}]
    spec["pipeline"] = {"workers": 2, "chunks": 2, "checkpoint": "always"}
    job = cluster.wait(cluster.submit(write_spec(tmp_path, spec)))
    assert job["state"] == "STATE_SUCCEEDED", job
    balance = [int(count) for count in job["balance"]]
    assert sum(balance) == 7 and balance[0] == 5, balance


def test_a_measured_job_has_a_forecast_with_what_was_measured_beside_it(cluster, tmp_path):
    spec = training_spec("foretold", steps=6)
    spec["pipeline"] = {"workers": 2, "chunks": 4, "checkpoint": "always"}
    job = cluster.wait(cluster.submit(write_spec(tmp_path, spec)))
    assert job["state"] == "STATE_SUCCEEDED", job
    forecast = job["forecast"]
    assert 0 < forecast["bubble_share"] < 1 and forecast["step_seconds"] > 0
    assert [0 < stage["busy_share"] <= 1 and int(stage["peak_saved_bytes"]) > 0 for stage in forecast["stages"]] == [True] * 2
    text = gpipe("job", "get", job["id"], address=cluster.address).stdout
    assert "predicted a step of" in text and "; measured" in text, text

    # The same question again is not asked of a worker, by a plan either.
    gpipe("plan", tmp_path / "foretold.yaml", address=cluster.address)
    again = cluster.submit(tmp_path / "foretold.yaml")
    assert cluster.wait(again)["state"] == "STATE_SUCCEEDED"
    log = (cluster.folder / "orchestrator.log").read_text()
    assert log.count("a plan of foretold: the profile for") == 1
    assert log.count(f"{again}: the profile for") == 1 and f"{again}: measuring" not in log


def test_links_between_workers_are_measured_once_and_are_in_the_forecast(fresh_cluster, tmp_path):
    fresh_cluster.start_workers(3)
    forecasts = []
    for name in ("first", "second"):
        spec = training_spec(name)
        spec["pipeline"] = {"workers": 3, "chunks": 2}
        job = fresh_cluster.wait(fresh_cluster.submit(write_spec(tmp_path, spec)))
        assert job["state"] == "STATE_SUCCEEDED", job
        forecasts.append(job["forecast"]["links"])
        fresh_cluster.wait_idle(3)
    assert forecasts[0] == forecasts[1] and len(forecasts[0]) == 2
    for link in forecasts[0]:
        assert 0 <= link.get("latency_seconds", 0) < 0.1 and link["bytes_per_second"] > 1e6, link
    plan = json.loads(gpipe("plan", tmp_path / "first.yaml", "-o", "json", address=fresh_cluster.address).stdout)
    assert plan["forecast"]["links"] == forecasts[0]
    log = (fresh_cluster.folder / "orchestrator.log").read_text()
    assert re.findall(r"link (w\d - w\d): [\d.]+ us, [\d.]+ MB/s", log) == ["w0 - w1", "w1 - w2"], log


def test_a_run_that_resumes_into_its_own_folder_keeps_what_was_measured_before(tmp_path):
    spec, out = training_spec("long", workers=1, steps=16), tmp_path / "out"
    gpipe("run", write_spec(tmp_path, spec), "--output", out)
    before = read_jsonl(out / "metrics.jsonl")
    spec["train"]["steps"] = 24
    gpipe("run", write_spec(tmp_path, spec), "--output", out, "--resume", out)
    steps = read_jsonl(out / "metrics.jsonl")
    assert [s["step"] for s in steps] == list(range(1, 25)) and steps[:16] == before
    assert [e["step"] for e in read_jsonl(out / "evaluation.jsonl")] == [8, 16, 24]


def test_without_balance_and_workers_every_idle_worker_is_used(cluster, tmp_path):
    spec = training_spec("everyone")
    spec["pipeline"] = {"chunks": 2}
    job = cluster.wait(cluster.submit(write_spec(tmp_path, spec)))
    assert job["state"] == "STATE_SUCCEEDED", job
    assert len(job["workers"]) == 4 and len(job["balance"]) == 4


@pytest.mark.parametrize("window", [1, 3])
def test_the_clock_window_does_not_change_the_curve(cluster, tmp_path, window):
    curves = []
    for name, granted in (("free", 0), ("windowed", window)):
        spec = training_spec(name)
        spec["pipeline"]["clock_window"] = granted
        out = cluster.run(write_spec(tmp_path, spec), tmp_path / name)
        curves.append([step["loss"] for step in read_jsonl(out / "metrics.jsonl")])
    assert curves[0] == curves[1]


def test_watch_shows_each_clock_cycle_of_lock_step(fresh_cluster, tmp_path):
    spec = training_spec("cycles", steps=3)
    del spec["train"]["evaluate"], spec["train"]["checkpoint_every"]
    spec["pipeline"]["clock_window"] = 1
    job = fresh_cluster.submit(write_spec(tmp_path, spec))
    watch = subprocess.Popen([str(BIN / "gpipe"), "--orchestrator", fresh_cluster.address, "job", "watch", job, "--cycles",
                              "-o", "json"], stdout=subprocess.PIPE, text=True)
    assert "job" in json.loads(watch.stdout.readline())  # It watches; now the job may run.
    fresh_cluster.start_workers(3)
    lines = watch.communicate(timeout=60)[0].splitlines()
    cycles = [update["cycle"] for update in map(json.loads, lines) if "cycle" in update]
    # 3 stages and 4 micro-batches: 2 * (4 + 3 - 1) + 1 cycles in each of 3 steps, in order.
    seen = [(int(c.get("round", 0)), int(c.get("cycle", 0))) for c in cycles]
    assert seen == sorted(seen)
    assert set(seen) == {(r, c) for r in range(3) for c in range(13)}
    for cycle in cycles:
        for action in cycle.get("actions", []):
            if action["kind"] == "ACTION_KIND_FORWARD":
                assert action.get("micro_batch", 0) + action.get("stage", 0) == cycle.get("cycle", 0)


def test_plan_prints_stages_boundaries_grid_and_bubble(cluster, tmp_path):
    text = gpipe("plan", write_spec(tmp_path, training_spec("plan")), address=cluster.address).stdout
    assert "w0 | F0 F1 F2 F3" in text
    assert "layer.1" in text and "float32" in text
    assert "bubble 33%" in text


def test_plan_draws_the_stages(cluster, tmp_path):
    spec, drawing = write_spec(tmp_path, training_spec("plan")), tmp_path / "plan.svg"
    gpipe("plan", spec, "--svg", drawing, address=cluster.address)
    texts = [text.text for text in ElementTree.parse(drawing).iter("{http://www.w3.org/2000/svg}text")]
    assert {"stage 0", "stage 1", "0 linear", "1 relu", "layer.1"} <= set(texts)
    refused = gpipe("plan", spec, "--svg", tmp_path / "nowhere" / "plan.svg", address=cluster.address, check=False)
    assert refused.returncode == 2 and "--svg" in refused.stderr


def test_results_are_whole_and_load_into_pytorch(cluster, tmp_path):
    out = cluster.run(write_spec(tmp_path, training_spec("results")), tmp_path / "out")
    model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.ReLU(),
                                torch.nn.Linear(16, 16))
    model.load_state_dict(load_file(out / "model.safetensors"), strict=True)
    steps = read_jsonl(out / "metrics.jsonl")
    assert [step["step"] for step in steps] == list(range(1, 21))
    wanted = {"step", "epoch", "loss", "lr", "grad_norm", "step_seconds", "samples_per_second", "bubble_share"}
    assert wanted <= set(steps[0])
    assert all(0 <= step["bubble_share"] <= 1 for step in steps)
    assert json.loads((out / "job.json").read_text())["state"] == "STATE_SUCCEEDED"


def test_inference_streams_many_mini_batches(cluster, tmp_path):
    inputs = torch.randn(1000, 16)
    save_file({"input": inputs}, tmp_path / "x.safetensors")
    spec = {"name": "stream", "model": {"sequential": [{"relu": {}}, {"tanh": {}}, {"sigmoid": {}}]},
            "pipeline": {"balance": [1, 1, 1], "chunks": 2}, "infer": {"inputs": "x.safetensors", "batch_size": 7}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    torch.testing.assert_close(load_file(out / "outputs.safetensors")["output"], inputs.relu().tanh().sigmoid())


def test_random_inputs_are_torch_randn(cluster, tmp_path):
    spec = {"name": "random", "model": {"sequential": [{"relu": {}}]}, "pipeline": {"balance": [1]},
            "infer": {"random_inputs": {"shape": [10, 4], "seed": 3}}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    expected = torch.randn(10, 4, generator=torch.Generator().manual_seed(3)).relu()
    assert torch.equal(load_file(out / "outputs.safetensors")["output"], expected)


@pytest.mark.parametrize("example", ["simple_infer", "skip_train", "digits_train"])
def test_the_examples_run_as_they_are(tmp_path, example):
    make_data.write_digits(tmp_path)
    make_data.write_regression(tmp_path)
    shutil.copy(ROOT / "examples" / f"{example}.yaml", tmp_path)
    gpipe("run", tmp_path / f"{example}.yaml", "--output", tmp_path / "out", "-q")
    if example == "digits_train":
        assert read_jsonl(tmp_path / "out" / "evaluation.jsonl")[-1]["accuracy"] >= 0.95


def test_unreachable_and_unknown_have_their_exit_codes(cluster, tmp_path):
    assert gpipe("job", "list", address="127.0.0.1:1", check=False).returncode == 3
    assert gpipe("job", "get", "nothing-abcdef", address=cluster.address, check=False).returncode == 4
    assert gpipe("job", "frobnicate", address=cluster.address, check=False).returncode == 2


def test_a_connection_that_breaks_at_once_is_tried_again(cluster, tmp_path):
    environment = {"LD_PRELOAD": str(preloaded("broken_connect", tmp_path))}
    for command, code in ((["list"], 0), (["get", "nothing-abcdef"], 4), (["wait", "nothing-abcdef"], 4)):
        done = gpipe("job", *command, address=cluster.address, check=False, environment=environment)
        assert done.returncode == code, done


def test_a_trace_shows_the_schedule_and_the_operators_of_every_worker(tmp_path):
    out = tmp_path / "traced"
    gpipe("run", write_spec(tmp_path, training_spec("traced")), "--output", out, "--workers", 3, "--trace", "--timeline",
          "-q", *(["--device", "cuda"] if DEVICE != "cpu" else []))
    traces = sorted((out / "trace").glob("*.json"))
    assert [path.stem.split("-")[-1] for path in traces] == ["w0", "w1", "w2"]
    for stage, path in enumerate(traces):
        names = {event["name"] for event in json.loads(path.read_text())["traceEvents"] if event.get("ph") == "X"}
        assert {f"{stage}F0", f"{stage}B3", "aten::addmm"} <= names, sorted(names)
    last = {event["name"] for event in json.loads((out / "timeline.json").read_text())["traceEvents"]}
    assert {"F0", "B3"} <= last, sorted(last)
    assert ElementTree.parse(out / "timeline.svg").getroot().tag.endswith("svg")


def test_the_log_of_a_job_has_its_workers_lines(fresh_cluster, tmp_path):
    fresh_cluster.start_worker("w0", arguments=["--log-level", "error"])
    fresh_cluster.start_worker("w1")
    fresh_cluster.wait_idle(2)
    job = fresh_cluster.submit(write_spec(tmp_path, training_spec("lines", workers=2)))
    followed = gpipe("job", "logs", "-f", job, address=fresh_cluster.address).stdout
    assert followed == gpipe("job", "logs", job, address=fresh_cluster.address).stdout
    events = json.loads(gpipe("job", "logs", job, "-o", "json", address=fresh_cluster.address).stdout)["events"]
    for worker, stage in ("w0", "stage 0 of 2 (layers 0 to 1)"), ("w1", "stage 1 of 2 (layers 2 to 4)"):
        said = "\n".join(event["message"] for event in events if event["actor"] == worker)
        in_order = ["preparing", f"built {stage}", "connected with w", "wrote its part of the checkpoint of step 8:",
                    "wrote its part of the checkpoint of step 16:", "finished"]
        assert re.search(".*".join(map(re.escape, in_order)), said, re.DOTALL), said
        assert "wrote its part of the model:" in said  # Before the last checkpoint is written, or behind it.
        assert "step 1" not in said.replace("step 16", ""), "nothing per step"
    assert "the evaluation after step 16 is done: loss" in "\n".join(
        event["message"] for event in events if event["actor"] == "w1")
    assert events[-1]["state"] == "STATE_SUCCEEDED" and events[-1]["actor"] == "orchestrator"
    assert "built" not in (fresh_cluster.folder / "w0.log").read_text(), "its own log has the level it was asked for"


def test_the_progress_of_a_run_has_no_lines_of_workers(tmp_path):
    done = gpipe("run", write_spec(tmp_path, training_spec("quiet", workers=2)), "--output", tmp_path / "out")
    assert "built" not in done.stdout + done.stderr and "warning" not in done.stdout + done.stderr
