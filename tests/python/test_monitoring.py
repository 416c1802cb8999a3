"""What a cluster tells of itself over gRPC: numbers per stage, timelines, watches that come back, slow watchers."""

import json
import os
import re
import statistics
import subprocess
import sys
from collections import Counter
from xml.etree import ElementTree

import grpc
import pytest

from api import Api
from cluster import BIN, ROOT, Cluster, gpipe, wait_until, write_spec
from timeline_check import check_order

# Clocks are aligned by the shortest of the last 32 round trips of heartbeats, wrong by at most half of that. On loopback
# that is below 0.1 ms when nobody computes; here three workers and their peers share a few cores, and a reader waits
# for a slice of the scheduler. Two clocks are compared, so twice the half of 4 ms.
CLOCKS = 4e-3


FORWARD, BACKWARD = 1, 2
LETTERS = {FORWARD: "F", BACKWARD: "B"}


def name_of(action):
    """`F3`, as check_order has it; other kinds by their number."""
    return f"{LETTERS.get(action.kind, action.kind)}{action.micro_batch}"


def linear(inputs, outputs):
    return {"linear": {"in_features": inputs, "out_features": outputs}}


def three_stages(name, steps, width=512, batch=256, chunks=4):
    return {"name": name,
            "model": {"sequential": [linear(64, width), {"relu": {}}, linear(width, width), {"relu": {}}, linear(width, 10)]},
            "pipeline": {"balance": [2, 2, 1], "chunks": chunks, "checkpoint": "always"},
            "train": {"dataset": {"random": {"samples": 1024, "input_shape": [64], "classes": 10, "seed": 1}},
                      "batch_size": batch, "steps": steps, "loss": {"cross_entropy": {}}, "optimizer": {"sgd": {"lr": 0.01}}}}


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A cluster of three workers, its API, and a job that is over with all its updates."""
    folder = tmp_path_factory.mktemp("monitoring")
    running = Cluster(folder / "cluster")
    try:
        api = Api(running.address)
        job = running.submit(write_spec(folder, three_stages("watched", steps=12)))
        stream = api.WatchJob(id=job, stages=True)
        updates = [next(stream)]
        for index in range(3):  # Now that no step can be missed.
            running.start_worker(f"w{index}")
        updates += stream
        assert running.job(job)["state"] == "STATE_SUCCEEDED"
        yield running, api, job, updates
    finally:
        running.stop()


def of_kind(updates, kind):
    return [getattr(update, kind) for update in updates if update.WhichOneof("update") == kind]


def busy(stage):
    return stage.forward + stage.backward + stage.recompute + stage.optimizer


def test_the_numbers_of_each_stage_add_up_to_the_step(watched):
    _, _, _, updates = watched
    steps, stages = of_kind(updates, "step"), of_kind(updates, "stages")
    assert [done.step for done in stages] == [step.step for step in steps] == list(range(1, 13))
    for step, done in zip(steps, stages):
        assert [stage.worker for stage in done.stages] == ["w0", "w1", "w2"]
        for stage, share in zip(done.stages, step.stage_busy):
            assert busy(stage) + stage.idle == pytest.approx(step.step_seconds, rel=1e-6)
            assert busy(stage) == pytest.approx(share * step.step_seconds, rel=1e-6)
            assert min(stage.forward, stage.backward, stage.recompute, stage.optimizer) > 0
            assert stage.peak_saved_bytes > 0
            waits = sum(peer.wait_nanos for peer in stage.traffic) * 1e-9
            assert waits <= stage.idle + 1e-6, "a worker that waits computes nothing"
        assert sum(stage.idle for stage in done.stages) / 3 == pytest.approx(step.bubble_share * step.step_seconds, rel=1e-6)


def test_what_one_worker_sends_the_other_gets(watched):
    _, _, _, updates = watched
    for done in of_kind(updates, "stages"):
        traffic = {(stage.stage, peer.worker): peer for stage in done.stages for peer in stage.traffic}
        assert set(traffic) == {(0, 1), (1, 0), (1, 2), (2, 1)}
        for (one, other), peer in traffic.items():
            # 256 samples of 512 float32: activations one way, gradients the other.
            assert peer.sent_bytes == peer.received_bytes == traffic[other, one].sent_bytes == 256 * 512 * 4


def test_the_timeline_of_a_step_is_true(watched):
    _, api, job, updates = watched
    timeline = api.GetTimeline(job=job)
    assert timeline.step == 12 and timeline.first_kept == 1 and timeline.last_kept == 12
    metrics = of_kind(updates, "step")[-1]
    assert timeline.bubble_share == metrics.bubble_share and timeline.step_seconds == metrics.step_seconds
    assert timeline.ideal_bubble_share == pytest.approx(2 / 6)
    actions = {(action.stage, name_of(action)): (action.start_nanos * 1e-9, (action.start_nanos + action.nanos) * 1e-9)
               for action in timeline.actions}
    for stage in range(3):
        # F, R and B of each of four micro-batches, and OPT; what the last one keeps it need not compute again.
        assert sum(other == stage for other, _ in actions) in (12, 13), actions
    computed = sum(action.nanos for action in timeline.actions) * 1e-9
    assert 1 - computed / (3 * timeline.step_seconds) == pytest.approx(metrics.bubble_share, abs=1e-6)
    kinds = Counter(action.kind for action in timeline.actions)
    assert kinds[FORWARD] == kinds[BACKWARD] == 12
    # Each forward but the first stage's, each backward but the last one's.
    assert check_order(actions, CLOCKS) == 2 * 2 * 4


def test_what_is_out_of_order_is_seen():
    good = {(0, "F0"): (0, 1), (1, "F0"): (1, 2), (1, "B0"): (2, 3), (0, "B0"): (3, 4), (0, "OPT"): (4, 5)}
    assert check_order(good, clocks=0) == 2
    for wrong in ({(1, "F0"): (0.5, 2)}, {(0, "B0"): (2.5, 4)}, {(0, "OPT"): (3.5, 5)}):
        with pytest.raises(AssertionError):
            check_order(good | wrong, clocks=0.1)


def test_a_timeline_is_written_as_a_trace_and_a_drawing(watched, tmp_path):
    cluster, _, job, _ = watched
    gpipe("job", "timeline", job, "-o", tmp_path / "trace.json", address=cluster.address)
    gpipe("job", "timeline", job, "--step", 3, "-o", tmp_path / "step.svg", address=cluster.address)
    trace = json.loads((tmp_path / "trace.json").read_text())
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert trace["otherData"]["step"] == 12 and {event["pid"] for event in spans} == {0, 1, 2}
    assert all(event["dur"] > 0 and event["ts"] >= 0 for event in spans)
    assert json.loads(gpipe("job", "timeline", job, "-o", "-", address=cluster.address).stdout) == trace
    drawing = ElementTree.parse(tmp_path / "step.svg").getroot()
    text = " ".join(element.text or "" for element in drawing.iter())
    assert f"step 3 of {job}" in text and "bubble" in text and "stage 2 F3" in text and "ideal" in text
    words = gpipe("job", "timeline", job, address=cluster.address).stdout
    assert "w2 |" in words and "step 12" in words
    kept = gpipe("job", "timeline", job, "--step", 99, address=cluster.address, check=False)
    assert kept.returncode == 4 and "of steps 1 to 12" in kept.stderr


def test_a_watcher_that_is_killed_comes_back_and_sees_each_step_once(watched, tmp_path):
    cluster, api, _, _ = watched
    job = cluster.submit(write_spec(tmp_path, three_stages("killed", steps=300, width=64, batch=32)))
    seen, token = [], ""
    process = subprocess.Popen([BIN / "gpipe", "job", "watch", job, "--stages", "-o", "json"], text=True,
                               stdout=subprocess.PIPE, env=dict(os.environ, GPIPE_ORCHESTRATOR=cluster.address))
    for line in process.stdout:
        update = json.loads(line)
        token = update["resume_token"]
        if "step" in update:
            seen.append(update["step"]["step"])
        if len(seen) == 20:
            break
    process.kill()
    process.wait()
    # It comes back several times, once after the job has ended.
    for count in (30, 40, None):
        for update in api.WatchJob(id=job, resume_token=token):
            assert update.WhichOneof("update") != "dropped"
            token = update.resume_token
            if update.HasField("step"):
                seen.append(update.step.step)
                count = count and count - 1
                if count == 0:
                    break
        if count is None or seen[-1] == 300:
            break
        if len(seen) >= 90:
            cluster.wait(job)
    # The first watch shows the job from when it began.
    assert seen == list(range(seen[0], 301)) and seen[0] <= 300 - 90


def test_a_reader_that_does_not_read_slows_nobody_and_is_told_what_it_missed(watched, tmp_path):
    STEPS = 2000
    cluster, api, _, _ = watched
    # Nothing widens the 64 KiB that may be on the way to it; the system's buffers could else hold the whole job.
    reader = Api(cluster.address, [("grpc.http2.bdp_probe", 0)])
    resident = lambda: int(open(f"/proc/{cluster.orchestrator.pid}/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def run(name, count, watch):
        """The median of a job's steps, but for those at its beginning, and what watches it."""
        job = cluster.submit(write_spec(tmp_path, three_stages(name, steps=count, width=32, batch=4, chunks=2)))
        watching = watch(job)
        assert cluster.wait(job, 180)["state"] == "STATE_SUCCEEDED"
        cluster.wait_idle(3)
        steps = [step.step_seconds for page in pages(api, job) for step in page.steps]
        assert len(steps) == count
        return statistics.median(steps[100:]), watching

    def not_reading(job):
        stream = reader.WatchJob(id=job, stages=True, timeout=240)
        next(stream)
        return stream

    alone, _ = run("alone", 1000, lambda job: None)
    before = resident()
    with_reader, stream = run("with-reader", STEPS, not_reading)
    grown = resident() - before
    updates = list(stream)
    dropped = sum(update.dropped for update in updates)
    kept = len(of_kind(updates, "step")) + len(of_kind(updates, "stages"))
    assert dropped > 0 and updates[-1].job.state == 5, "SUCCEEDED"
    assert kept + dropped <= 2 * STEPS + 10, "steps, and what their stages did"
    assert grown < 16 << 20, grown
    # Medians of steps of a millisecond, on a machine that does other things too.
    assert with_reader < 2 * alone, (with_reader, alone)


def pages(api, job):
    token = ""
    while True:
        page = api.ListJobMetrics(id=job, page_token=token)
        yield page
        token = page.next_page_token
        if not token:
            return


def test_the_cluster_is_watched_and_a_watch_goes_on(watched, tmp_path):
    cluster, api, _, _ = watched
    stream = api.WatchCluster()
    workers = {}
    for update in stream:
        if update.HasField("worker"):
            workers[update.worker.name] = update.worker
        if update.HasField("complete"):
            break
    assert set(workers) == {"w0", "w1", "w2"}
    token = update.resume_token
    stream.cancel()
    job = cluster.submit(write_spec(tmp_path, three_stages("in-view", steps=5)))
    states, missed, used = [], 0, {}
    for update in api.WatchCluster(resume_token=token):
        if update.HasField("job"):
            assert update.job.id == job and not update.job.HasField("spec")
            states.append(update.job.state)
        if update.HasField("worker"):
            used[update.worker.name] = update.worker.use
        missed += update.dropped
        if states and states[-1] == 5:
            break
    assert states == sorted(states), "QUEUED, STARTING, RUNNING, SUCCEEDED, some of them replaced"
    assert set(used) == {"w0", "w1", "w2"}
    gpipe("job", "delete", job, address=cluster.address)
    for update in api.WatchCluster(resume_token=update.resume_token):
        if update.job_gone:
            assert update.job_gone == job
            break


def test_workers_say_what_they_use_of_their_machine(watched):
    cluster, _, _, _ = watched
    wait_until(lambda: all("utilization" not in worker["use"] or worker["use"]["utilization"] >= 0
                           for worker in cluster.worker_list()), what="a second measurement")
    for worker in cluster.worker_list():
        assert worker["use"]["process_bytes"] > 50 << 20
        assert 0 <= worker["use"].get("utilization", 0) <= 1
    table = gpipe("worker", "list", address=cluster.address).stdout
    assert "USED" in table and "%" in table and "MiB" in table


def test_workers_say_what_they_compute_with(watched):
    cluster, _, _, _ = watched
    for worker in cluster.worker_list():
        assert re.fullmatch(r"\d+\.\d+\.\d+", worker["hello"]["software"]["torch"])
        gpu = worker["hello"]["device"] != "cpu"
        assert ({"driver", "cuda", "cudnn", "nccl"} <= worker["hello"]["software"].keys()) == gpu
        assert ("gpu" in worker["use"]) == gpu
    page = gpipe("worker", "describe", "w1", address=cluster.address).stdout
    assert re.search(r"^name +w1$", page, re.M) and re.search(r"^torch +\d", page, re.M)
    one = json.loads(gpipe("worker", "describe", "w1", "-o", "json", address=cluster.address).stdout)
    assert one["name"] == "w1" and "torch" in one["hello"]["software"]
    assert gpipe("worker", "describe", "w7", address=cluster.address, check=False).returncode == 4


def test_stages_are_shown_as_a_table(watched, tmp_path):
    cluster, _, _, _ = watched
    job = cluster.submit(write_spec(tmp_path, three_stages("table", steps=20)))
    shown = gpipe("job", "watch", "--stages", job, address=cluster.address).stdout
    assert "WAITS FOR" in shown and "BUBBLE" in shown and "w2" in shown


def test_a_program_with_reflection_alone_does_it_all(watched, tmp_path):
    cluster, _, _, _ = watched
    done = subprocess.run([sys.executable, ROOT / "examples" / "monitor.py", cluster.address, tmp_path / "out"],
                          text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "step 100 stage 1 on" in done.stdout and "idle, waits" in done.stdout
    assert (tmp_path / "out" / "outputs.safetensors").stat().st_size > 6400 * 10 * 4
    assert len((ROOT / "examples" / "monitor.py").read_text().splitlines()) <= 60


def test_reflection_can_be_off(tmp_path):
    quiet = Cluster(tmp_path / "quiet", arguments=["--no-reflection"])
    try:
        with pytest.raises(grpc.RpcError) as refused:
            Api(quiet.address)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    finally:
        quiet.stop()
