"""Two workers on networks of their own: a link that is cut in the middle of a job, between them or to the orchestrator."""

import os
import shutil
import time

import pytest
from safetensors.torch import load_file

import cut_link
from cluster import DEVICE, Cluster, read_jsonl, wait_until, write_spec
from failure_table import training_spec

pytestmark = pytest.mark.skipif(DEVICE != "cpu" or os.geteuid() != 0 or shutil.which("ip") is None,
                                reason="needs root, iproute2 and network namespaces")
BOUND_SECONDS = 10


def spec(name: str) -> dict:
    return training_spec(name, workers=2, steps=600)


@pytest.fixture(scope="module")
def expected(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    cluster.wait_idle(2)
    return cluster.run(write_spec(folder, spec("straight")), folder / "straight")


@pytest.mark.parametrize("cut,codes", [(cut_link.cut, {"STALLED", "WORKER_UNREACHABLE"}),
                                       (cut_link.cut_from_orchestrator, {"WORKER_LOST"})],
                         ids=["between the workers", "to the orchestrator"])
def test_a_link_that_is_cut_is_noticed_and_once_it_is_mended_the_job_goes_on(expected, tmp_path, cut, codes):
    with cut_link.network():
        running = Cluster(tmp_path / "cluster", host="0.0.0.0", arguments=["--insecure"])
        try:
            for worker in range(2):
                cut_link.start_worker(running, worker)
            running.wait_idle(2)
            job = running.submit(write_spec(tmp_path, spec("cut")))
            wait_until(lambda: int(running.job(job).get("checkpoint_step", 0)) >= 8, 60, "a checkpoint")
            begin = time.monotonic()
            cut(joined=False)
            wait_until(lambda: running.job(job).get("last_failure"), 30, "it is noticed")
            assert time.monotonic() - begin < BOUND_SECONDS
            failure = running.job(job)["last_failure"]
            assert failure["code"] in codes and ("w0" in failure["message"] or "w1" in failure["message"]), failure
            time.sleep(8)  # Attempts while it is cut end, too.
            cut(joined=True)
            done = running.wait(job, 120)
            assert done["state"] == "STATE_SUCCEEDED" and done["attempt"] >= 2, done
            found = running.pull(job, tmp_path / "found")
        finally:
            running.stop()
    curves = [[(s["step"], s["loss"]) for s in read_jsonl(folder / "metrics.jsonl")] for folder in (found, expected)]
    assert curves[0] == curves[1]
    assert load_file(found / "model.safetensors").keys() == load_file(expected / "model.safetensors").keys()
