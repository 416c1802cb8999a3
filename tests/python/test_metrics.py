"""What operators' programs see: metrics of real processes that say what the jobs themselves say, Debian's Prometheus
with the configuration, the alert rules and the dashboard that are shipped, probes of health, JSON logs."""

import contextlib
import json
import pathlib
import re
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import grpc
import pytest
import yaml

from cluster import BIN, ROOT, Cluster, gpipe, wait_until, write_spec
from failure_table import failpoint, state_of, training_spec, wait_for_stop
from test_security import certs, flags

HTTP = ["--http-listen", "127.0.0.1:0"]
# Of a job whose layers were measured, and of GPUs.
MAY_BE_ABSENT = {"gpipe_job_forecast_step_seconds",
                 *(f"gpipe_{of}gpu_{what}" for of in ("", "worker_") for what in (
                     "memory_used_bytes", "temperature_celsius", "power_watts", "clock_hertz", "slowed",
                     "uncorrected_errors_total")), "gpipe_gpu_max_clock_hertz"}


def get(address, path):
    """(status, text)"""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def http_address(log: pathlib.Path):
    return wait_until(lambda: re.findall(r"serving HTTP on (\S+:\d+)", log.read_text()), what=f"HTTP in {log}")[-1]


def samples(text: str) -> dict:
    """{(name, ((label, value), ...)): number}"""
    found = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
        pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or "")
        key = (name, tuple(sorted(pairs)))
        assert key not in found, f"{key} is there twice"
        found[key] = float(value)
    return found


def names(text: str) -> set:
    return set(re.findall(r"^# TYPE (\w+)", text, re.M))


def documented(*headings) -> set:
    parts = re.split(r"^## (.*)$", (ROOT / "docs" / "metrics.md").read_text(), flags=re.M)
    sections = dict(zip(parts[1::2], parts[2::2]))
    return {name for heading in headings for name in re.findall(r"^\| `(\w+)`", sections[heading], re.M)}


def promtool(*arguments, text=None):
    done = subprocess.run(["promtool", *map(str, arguments)], input=text, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Watched:
    """A cluster of two workers whose HTTP addresses are known, with a job that was paused in the middle."""

    def __init__(self, folder):
        self.cluster = Cluster(folder / "cluster", arguments=HTTP)
        try:
            self.cluster.start_workers(2, arguments=HTTP)
            self.orchestrator = http_address(self.cluster.folder / "orchestrator.log")
            self.workers = [http_address(self.cluster.folder / f"w{index}.log") for index in range(2)]
            self.job_id = self.cluster.submit(write_spec(folder, training_spec("watched", workers=2, steps=100_000)))
            wait_until(lambda: self.steps_done() >= 20, 60, "20 steps")
            self.pause()
        except BaseException:
            self.cluster.stop()
            raise

    def job(self):
        return self.cluster.job(self.job_id)

    def steps_done(self):
        return int(self.job().get("steps_done", 0))

    def pause(self):
        gpipe("job", "pause", self.job_id, address=self.cluster.address)
        seen = []

        def still():
            seen.append(self.job().get("rounds_done"))
            time.sleep(0.2)
            return len(seen) > 3 and len(set(seen[-4:])) == 1
        wait_until(still, what="a job that stands still")

    def metrics(self):
        return get(self.orchestrator, "/metrics")[1]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    running = Watched(tmp_path_factory.mktemp("watched"))
    try:
        yield running
    finally:
        running.cluster.stop()


def test_the_metrics_are_the_documented_ones_and_well_formed(watched):
    of_orchestrator = watched.metrics()
    of_worker = get(watched.workers[0], "/metrics")[1]
    for text, headings in ((of_orchestrator, ("Orchestrator", "Both")), (of_worker, ("Worker", "Both"))):
        assert not names(text) - documented(*headings)
        assert documented(*headings) - names(text) <= MAY_BE_ABSENT
        promtool("check", "metrics", text=text)


def test_the_orchestrators_metrics_say_what_the_job_says(watched):
    job, found = watched.job(), samples(watched.metrics())
    mine = (("job_id", watched.job_id),)
    assert found["gpipe_job_info", (*mine, ("name", "watched"), ("state", "PAUSED"))] == 1
    assert found["gpipe_job_steps_done", mine] == int(job["steps_done"]) >= 20
    assert found["gpipe_job_steps", mine] == 100_000
    assert found["gpipe_job_rounds_done", mine] == int(job["rounds_done"])
    assert found["gpipe_job_attempt", mine] == 1
    assert found["gpipe_job_restarts", mine] == job.get("restarts", 0) == 0
    step = job["last_step"]
    assert found["gpipe_job_loss", mine] == pytest.approx(step["loss"])
    assert found["gpipe_bubble_ratio", mine] == pytest.approx(step["bubble_share"])
    assert found["gpipe_job_step_seconds", mine] == pytest.approx(step["step_seconds"])
    for stage in range(2):
        labels = (*mine, ("stage", str(stage)), ("worker", job["workers"][stage]))
        assert found["gpipe_job_stage_busy_ratio", labels] == pytest.approx(step["stage_busy"][stage])

    assert found["gpipe_steps_total", ()] == found["gpipe_step_duration_seconds_count", ()] == int(job["steps_done"])
    assert found["gpipe_samples_total", ()] == 16 * int(job["steps_done"])
    assert found["gpipe_jobs", (("state", "PAUSED"),)] == 1
    assert found["gpipe_queue_depth", ()] == 0
    assert found["gpipe_queue_wait_seconds_count", ()] == 1
    assert found["gpipe_job_submit_total", ()] == 1
    assert found["gpipe_workers", (("state", "ASSIGNED"),)] == 2
    assert found["gpipe_worker_up", (("worker", "w0"),)] == found["gpipe_worker_up", (("worker", "w1"),)] == 1
    assert found["gpipe_heartbeat_age_seconds", (("worker", "w0"),)] < 2
    assert 0 <= found["gpipe_worker_utilization_ratio", (("worker", "w0"),)] <= 1
    assert found["gpipe_database_bytes", ()] == sum(
        (watched.cluster.state / f"gpipe.db{ending}").stat().st_size for ending in ("", "-wal"))
    assert found["gpipe_grpc_calls_total", (("code", "OK"), ("method", "gpipe.v1.JobService/SubmitJob"))] == 1
    assert found["process_resident_memory_bytes", ()] > 1 << 20


def test_the_workers_metrics_add_up(watched):
    job = watched.job()
    for index, address in enumerate(watched.workers):
        found = samples(get(address, "/metrics")[1])
        assert found["gpipe_worker_connected", ()] == 1
        assert [dict(labels)["worker"] for name, labels in found if name == "gpipe_worker_info"] == [f"w{index}"]
        assert "torch" in {dict(labels)["name"] for name, labels in found if name == "gpipe_worker_software_info"}
        # Rounds are training steps, evaluations (64 samples of 16, every 8 steps), and three looks at the loss if any.
        rounds = found["gpipe_round_duration_seconds_count", ()]
        assert rounds >= int(job["steps_done"])
        wall = found["gpipe_round_duration_seconds_sum", ()]
        stage = (("stage", str(index)),)
        phases = {labels: value for (name, labels), value in found.items() if name == "gpipe_stage_compute_seconds_total"}
        assert {dict(labels)["phase"] for labels in phases} == {"forward", "recompute", "backward", "optimizer"}
        assert {dict(labels)["stage"] for labels in phases} == {str(index)}
        assert sum(phases.values()) + found["gpipe_stage_idle_seconds_total", stage] == pytest.approx(wall, rel=1e-3)
        # Checkpoints every 8 steps; the last one may be on its way.
        assert abs(found["gpipe_checkpoint_seconds_count", ()] - int(job["steps_done"]) // 8) <= 1
        assert found["gpipe_checkpoint_bytes_total", ()] > 0
        # A stage sends as many values as its neighbour's gradients bring back.
        assert found["gpipe_comm_bytes_total", (("direction", "sent"),)] > 0
        assert found["gpipe_comm_bytes_total", (("direction", "received"),)] > 0
        assert found["gpipe_comm_seconds_total", ()] > 0
        assert 0 <= found["gpipe_device_utilization_ratio", ()] <= 1


def test_health_names_the_failing_check(watched):
    for address, checks in ((watched.orchestrator, ["serving", "event_loop", "database", "disk"]),
                            (watched.workers[0], ["serving", "session"])):
        assert get(address, "/livez") == (200, "live\n")
        assert get(address, "/readyz") == (200, "".join(f"{check} ok\n" for check in checks) + "ready\n")
        assert all(get(address, f"/readyz/{check}") == (200, f"{check} ok\n") for check in checks)
        assert get(address, "/readyz/nonsense")[0] == 404
    assert f"{watched.job_id} PAUSED, attempt 1, " in get(watched.orchestrator, "/statusz")[1]
    assert re.search(rf"^job {watched.job_id} attempt 1: ", get(watched.workers[0], "/statusz")[1], re.M)


@contextlib.contextmanager
def prometheus(folder: pathlib.Path, watched: Watched):
    """Debian's, with the configuration that is shipped, but for its targets and its pace. Yields its API."""
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    targets = {"gpipe-orchestrator": [watched.orchestrator], "gpipe-worker": watched.workers}
    for scrape in config["scrape_configs"]:
        for key in ("scheme", "tls_config", "dns_sd_configs", "relabel_configs"):
            scrape.pop(key, None)
        scrape["static_configs"] = [{"targets": targets.pop(scrape["job_name"])}]
    assert not targets
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "alerts.yml").write_text((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    promtool("check", "config", folder / "prometheus.yml")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % probe.getsockname()[1]
    log = open(folder / "prometheus.log", "wb")
    process = subprocess.Popen(["prometheus", f"--config.file={folder / 'prometheus.yml'}",
                                f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"],
                               stdout=log, stderr=log)

    def ask(path, **parameters):
        status, text = get(address, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(text)
        assert status == 200 and answer["status"] == "success", answer
        return answer["data"]

    def is_up():
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        with contextlib.suppress(urllib.error.URLError, ConnectionError, json.JSONDecodeError, AssertionError):
            found = ask("targets", state="active")["activeTargets"]
            return len(found) == 3 and all(target["health"] == "up" for target in found)
    try:
        wait_until(is_up, 60, "targets that are up")
        yield ask
    finally:
        process.terminate()
        process.wait(20)


def dashboard_queries() -> dict:
    """{panel and query: PromQL}, with the variables as when all is chosen."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "gpipe.json").read_text())
    variables = {"__rate_interval": "1m"}
    for variable in dashboard["templating"]["list"]:
        variables[variable["name"]] = variable["query"] if variable["type"] == "constant" else ".*"
    queries = {}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = re.sub(r"\$\{?(\w+)\}?", lambda name: variables[name[1]], target["expr"])
            queries[f"{panel['title']} {target['refId']}"] = query
    return queries


def alert_rules() -> dict:
    groups = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def test_rules_and_dashboard_use_documented_metrics_only():
    known = documented("Orchestrator", "Worker", "Both")
    for title, query in {**alert_rules(), **dashboard_queries()}.items():
        used = set(re.findall(r"\b((?:gpipe|process)_\w+)", re.sub(r'"[^"]*"', "", query)))
        used = {re.sub(r"_(bucket|sum|count)$", "", name) if name not in known else name for name in used}
        assert used <= known, f"{title}: {used - known}"
    promtool("check", "rules", ROOT / "deploy" / "prometheus" / "alerts.yml")


def test_prometheus_scrapes_evaluates_the_rules_and_answers_the_dashboard(watched, tmp_path):
    with prometheus(tmp_path, watched) as ask:
        def vector(query):
            return ask("query", query=query)["result"]

        def rules():
            found = {rule["name"]: rule for group in ask("rules")["groups"] for rule in group["rules"]}
            return all(rule["health"] != "unknown" for rule in found.values()) and found
        evaluated = wait_until(rules, 30, "evaluated rules")
        assert evaluated.keys() == alert_rules().keys()
        assert {name: rule.get("lastError") for name, rule in evaluated.items() if rule["health"] != "ok"} == {}
        assert [name for name, rule in evaluated.items() if rule["state"] == "firing"] == []

        now = time.time()
        for query in dashboard_queries().values():
            ask("query", query=query)
            ask("query_range", query=query, start=now - 60, end=now, step=5)
        wait_until(lambda: all(len(vector(f"rate({one}[1m])")) for one in (
            "gpipe_job_submit_total", "gpipe_grpc_calls_total", 'gpipe_stage_compute_seconds_total{stage="0"}',
            'gpipe_stage_compute_seconds_total{stage="1"}')), 30, "two scrapes of all")
        empty = {title for title, query in dashboard_queries().items() if not vector(query)}
        # What has not happened in this cluster, has no GPU, or was measured by nobody.
        silent = {"Step time and forecast B", "Device memory and process memory A", "Temperature of GPUs A",
                  "Clock of GPUs, of the highest A", "Clock of GPUs, of the highest B",
                  "Calls that failed or were rejected A"}
        quantiles = {title for title, query in dashboard_queries().items() if "histogram_quantile" in query}
        assert empty <= silent | quantiles, empty - silent - quantiles

        (loss,) = vector(f'gpipe_job_loss{{job_id="{watched.job_id}"}}')
        assert float(loss["value"][1]) == pytest.approx(watched.job()["last_step"]["loss"])


def test_a_lost_worker_is_seen_and_counted(tmp_path):
    watched = Watched(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(watched.cluster.stop)
        with prometheus(tmp_path, watched) as ask:
            watched.cluster.workers["w1"].kill()

            def alerts():
                return {alert["metric"]["alertname"] for alert in ask("query", query="ALERTS")["result"]}
            wait_until(lambda: "GpipeWorkerDown" in alerts(), 30, "an alert about w1")

        def counted():
            found = samples(watched.metrics())
            failures = found["gpipe_job_failures_total", (("code", "WORKER_LOST"),)]
            return failures + found["gpipe_job_restarts_total", (("reason", "WORKER_LOST"),)] and (found, failures)
        found, failures = wait_until(counted, what="a failure or a restart")
        assert found["gpipe_worker_up", (("worker", "w1"),)] == 0
        assert found["gpipe_workers", (("state", "LOST"),)] == 1
        job = watched.job()
        assert failures == (job["state"] == "STATE_FAILED") == 1 - job.get("restarts", 0)
        # It is on no worker any more, and so its labels are gone.
        assert ("gpipe_job_loss", (("job_id", watched.job_id),)) not in found


def not_serving(address, why):
    return get(address, "/readyz/serving") == (503, f"serving failed: {why}\n") and get(address, "/readyz")[0] == 503


def test_a_worker_that_ends_is_not_ready_first(tmp_path):
    cluster = Cluster(tmp_path / "cluster", arguments=HTTP)
    try:
        # It stops in a clock cycle, so that it waits in vain for its job to be saved.
        cluster.start_worker("w0", arguments=HTTP, environment=failpoint("worker.forward@40", "stop"))
        cluster.wait_idle(1)
        cluster.submit(write_spec(tmp_path, training_spec("cut", workers=1)))
        wait_for_stop(cluster, "w0", "worker.forward@40")
        address, worker = http_address(cluster.folder / "w0.log"), cluster.workers["w0"]
        assert get(address, "/readyz")[0] == 200
        worker.terminate()
        wait_until(lambda: not_serving(address, "the worker is leaving"), 4, "a worker that is not ready")
        assert get(address, "/livez")[0] == 200 and get(address, "/readyz/session")[0] == 200
        assert state_of(cluster, "w0") in ("STATE_ASSIGNED", "STATE_LEAVING"), "it said so before it left"
        assert worker.wait(20) == 0
    finally:
        cluster.stop()


def test_an_orchestrator_that_ends_is_not_ready_first(tmp_path):
    cluster, silent = Cluster(tmp_path / "cluster", arguments=HTTP), threading.Event()
    try:
        address = http_address(cluster.folder / "orchestrator.log")
        with grpc.insecure_channel(cluster.address) as channel:
            # An upload on which nothing comes holds the end up, for as long as the orchestrator lets it.
            upload = channel.stream_unary("/gpipe.v1.ArtifactService/UploadArtifact").future(
                iter(lambda: silent.wait(60) and None, None))
            health = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
            assert next(health) == b"\x08\x01", "SERVING"
            assert get(address, "/readyz")[0] == 200
            cluster.orchestrator.terminate()
            assert next(health) == b"\x08\x02", "NOT_SERVING"
            wait_until(lambda: not_serving(address, "the orchestrator is shutting down"), 2, "one that is not ready")
            assert get(address, "/livez")[0] == 200
            assert not upload.done(), "calls that were there go on"
            assert cluster.orchestrator.wait(20) == 0
    finally:
        silent.set()
        cluster.stop()


def test_a_worker_alone_is_not_ready(tmp_path):
    cluster = Cluster(tmp_path / "cluster", arguments=HTTP)
    try:
        cluster.start_workers(1, arguments=HTTP)
        worker = http_address(cluster.folder / "w0.log")
        cluster.orchestrator.kill()
        cluster.orchestrator.wait()
        wait_until(lambda: get(worker, "/readyz")[0] == 503, what="a worker that is not ready")
        assert get(worker, "/readyz/session") == (503, "session failed: the orchestrator is not connected\n")
        assert get(worker, "/livez")[0] == 200
        assert samples(get(worker, "/metrics")[1])["gpipe_worker_connected", ()] == 0
        cluster.start_orchestrator(port=int(cluster.address.rsplit(":", 1)[1]))
        wait_until(lambda: get(worker, "/readyz")[0] == 200, what="a worker that is ready again")
    finally:
        cluster.stop()


def test_https_has_the_programs_own_certificates(tmp_path):
    certificates, stranger = certs(tmp_path / "certificates"), certs(tmp_path / "stranger")
    cluster = Cluster(tmp_path / "cluster", arguments=[*flags(certificates, "orchestrator"), *HTTP])
    try:
        cluster.start_worker("worker", arguments=[*flags(certificates, "worker"), *HTTP])
        for log, name in (("orchestrator", "localhost"), ("worker", "worker")):
            host, port = http_address(cluster.folder / f"{log}.log").split(":")

            def live(identity=None, certificates=certificates, host=host, port=int(port), name=name):
                context = ssl.create_default_context(cafile=tmp_path / "certificates" / "ca.crt")
                if identity:
                    context.load_cert_chain(certificates / f"{identity}.crt", certificates / f"{identity}.key")
                with socket.create_connection((host, port), timeout=10) as plain:
                    with context.wrap_socket(plain, server_hostname=name) as secure:
                        secure.sendall(b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n")
                        return b"200 OK" in secure.recv(4096)
            # Clients are not asked for one: over HTTP it gives no rights, and a browser would ask its user which.
            assert live() and live("read") and live("read", stranger)
            with pytest.raises(OSError):
                get(f"{host}:{port}", "/livez")  # Plain text.
    finally:
        cluster.stop()


def test_json_logs_say_what_they_are_about(tmp_path):
    logs = {name: tmp_path / f"{name}.json" for name in ("orchestrator", "w0", "w1")}
    cluster = Cluster(tmp_path / "cluster", arguments=["--log-format", "json", "--log-file", logs["orchestrator"]])
    try:
        for name in ("w0", "w1"):
            cluster.start_worker(name, arguments=["--log-format", "json", "--log-file", logs[name]])
        cluster.wait_idle(2)
        job = cluster.wait(cluster.submit(write_spec(tmp_path, training_spec("logged", workers=2))))
        assert job["state"] == "STATE_SUCCEEDED", job
    finally:
        cluster.stop()
    entries = {name: [json.loads(line) for line in path.read_text().splitlines()] for name, path in logs.items()}
    for name, found in entries.items():
        assert found and all({"ts", "level", "program", "message"} <= entry.keys() for entry in found)
        assert any(entry.get("job") == job["id"] for entry in found), name
    assert {entry["worker"] for entry in entries["w1"]} == {"w1"}
    of_job = [entry for entry in entries["w1"] if entry.get("job") == job["id"]]
    assert {entry["attempt"] for entry in of_job} == {1} and any("stage" in entry for entry in of_job)
    assert any(entry.get("worker") == "w0" and "IDLE" in entry["message"] for entry in entries["orchestrator"])
    assert " info " not in (cluster.folder / "w0.log").read_text()  # All is in the file; stderr gets errors only.


@pytest.mark.parametrize("arguments, words", [
    (["--http-listen", "0.0.0.0:0"], "--http-listen 0.0.0.0:0: other machines could reach it"),
    (["--http-listen", "here"], "--http-listen here: must be HOST:PORT"),
    (["--log-format", "xml"], "--log-format"),
    (["--log-file", "/dev/null/log"], "--log-file /dev/null/log"),
])
@pytest.mark.parametrize("program", ["gpipe-orchestrator", "gpipe-worker"])
def test_bad_flags_are_named(program, arguments, words, tmp_path):
    own = ["--listen", "127.0.0.1:0", "--state-dir", str(tmp_path / "state")] if program == "gpipe-orchestrator" else []
    done = subprocess.run([BIN / program, *own, *arguments], text=True, capture_output=True, timeout=30)
    assert done.returncode == 2 and words in done.stdout + done.stderr, done
