"""A cluster behind TLS with real processes: who gets in, who does not, and what the logs say of it. The table RPC x role
x outcome is in tests/unit/orchestrator/server_access_test.cc."""

import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess

import pytest

from cluster import BIN, DEVICE, ROOT, Cluster, gpipe, losses_of, wait_until, write_spec
from failure_table import training_spec

READ_TOKEN = "read-token-0123456789"


def certs(folder: pathlib.Path, *arguments) -> pathlib.Path:
    subprocess.run([ROOT / "deploy" / "certs.sh", *arguments, folder], check=True, stdout=subprocess.DEVNULL)
    return folder


def flags(folder: pathlib.Path, name: str) -> list:
    return ["--tls-ca", folder / "ca.crt", "--tls-cert", folder / f"{name}.crt", "--tls-key", folder / f"{name}.key"]


def environment(folder: pathlib.Path, name: str) -> dict:
    return {"GPIPE_TLS_CA": str(folder / "ca.crt"), "GPIPE_TLS_CERT": str(folder / f"{name}.crt"),
            "GPIPE_TLS_KEY": str(folder / f"{name}.key")}


class SecureCluster(Cluster):
    """Its workers have worker.crt; while it is there, the CLI is called with admin.crt, through the environment."""

    def __init__(self, folder: pathlib.Path, monkeypatch, arguments=()):
        self.certificates = certs(folder / "certificates")
        (folder / "tokens").write_text(f"read grafana {READ_TOKEN}\n")
        for name, value in environment(self.certificates, "admin").items():
            monkeypatch.setenv(name, value)
        super().__init__(folder, arguments=[*flags(self.certificates, "orchestrator"), "--tokens-file",
                                            folder / "tokens", *arguments])

    def start_worker(self, name, arguments=(), **options):
        return super().start_worker(name, arguments=[*flags(self.certificates, "worker"), *arguments], **options)

    def start_workers(self, count):
        for index in range(count):
            self.start_worker(f"worker-{index}")
        self.wait_idle(count)

    def log(self, name="orchestrator") -> str:
        return (self.folder / f"{name}.log").read_text()

    def await_line(self, pattern: str, name="orchestrator", count=1):
        wait_until(lambda: len(re.findall(pattern, self.log(name))) >= count, 30, f"{pattern} in the log of {name}")

    def as_(self, name: str, *command):
        """What the CLI ends with, called with that certificate."""
        return gpipe(*command, address=self.address, environment=environment(self.certificates, name), check=False)


@pytest.fixture
def secure(tmp_path, monkeypatch):
    running = SecureCluster(tmp_path / "cluster", monkeypatch)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def stranger(tmp_path):
    """Certificates of another CA."""
    return certs(tmp_path / "other")


@pytest.mark.parametrize("example", ["simple_train", "simple_infer"])
def test_the_examples_run_over_mtls(secure, tmp_path, example):
    secure.start_workers(2)
    results = secure.run(ROOT / "examples" / f"{example}.yaml", tmp_path / "results")
    assert (results / ("model.safetensors" if example == "simple_train" else "outputs.safetensors")).exists()
    assert "denied" not in secure.log() and "warn" not in secure.log("worker-0"), secure.log()


def test_a_job_resumes_from_a_checkpoint_over_mtls(secure, tmp_path):
    """Workers read the files of their job and no others: those of a checkpoint are among them."""
    secure.start_workers(2)
    spec = training_spec("first", 2, 16)
    first = secure.wait(secure.submit(write_spec(tmp_path, spec)))
    assert first["state"] == "STATE_SUCCEEDED", first
    spec["train"]["steps"] = 24
    second = secure.wait(secure.submit(write_spec(tmp_path, spec), "--resume", first["id"]))
    assert second["state"] == "STATE_SUCCEEDED", second


def test_each_role_may_do_what_it_may(secure, tmp_path):
    spec = write_spec(tmp_path, training_spec("job", 2))
    denied, unknown = 7, 4
    commands = [["job", "list"], ["job", "submit", spec], ["job", "cancel", "none"], ["worker", "drain", "none"]]
    outcomes = {
        "read": [0, denied, denied, denied],
        "client": [0, 0, unknown, denied],
        "admin": [0, 0, unknown, unknown],
        "worker": [denied] * 4,
        "orchestrator": [denied] * 4,
    }
    for name, expected in outcomes.items():
        ended = [secure.as_(name, *command) for command in commands]
        assert [done.returncode for done in ended] == expected, (name, ended)
    assert secure.as_("orchestrator", "health").returncode == 0, "health is for everybody"
    jobs = json.loads(secure.as_("read", "-o", "json", "job", "list").stdout)["jobs"]
    assert [job["submitted_by"] for job in jobs] == ["admin", "client"], "newest first"
    assert re.search(r"^by +client$", secure.as_("read", "job", "get", jobs[1]["id"]).stdout, re.M)
    secure.await_line(r"denied: /gpipe.v1.JobService/CancelJob of 'read' \(role read\) at ipv4:127.0.0.1")
    done = secure.as_("read", "job", "cancel", "none")
    assert "'read' (role read) may not do this, only submit or admin" in done.stderr, done


def test_a_token_says_who_calls_and_is_in_no_log(secure, tmp_path):
    token = tmp_path / "token"

    def call(*command):
        nobody = {"GPIPE_TLS_CA": str(secure.certificates / "ca.crt"), "GPIPE_TLS_CERT": "", "GPIPE_TLS_KEY": "",
                  "GPIPE_TOKEN_FILE": str(token) if token.exists() else ""}
        return gpipe(*command, address=secure.address, environment=nobody, check=False)

    assert call("job", "list").returncode == 7
    token.write_text(READ_TOKEN + "\n")
    assert call("job", "list").returncode == 0
    assert call("job", "cancel", "none").returncode == 7
    (secure.folder / "tokens").write_text(f"submit grafana {READ_TOKEN}\n")
    assert call("job", "cancel", "none").returncode == 4, "the file of tokens is read again"
    (secure.folder / "tokens").write_text("\n")
    done = call("job", "list")
    assert done.returncode == 7 and "the token is not known here" in done.stderr, done
    secure.await_line("denied: /gpipe.v1.JobService/ListJobs of somebody without a certificate or token")
    secure.await_line("denied: /gpipe.v1.JobService/ListJobs of somebody with an unknown token")
    assert READ_TOKEN not in secure.log()


def test_another_ca_is_not_let_in_on_either_side(secure, stranger):
    done = gpipe("job", "list", address=secure.address, environment=environment(stranger, "admin"), check=False)
    assert done.returncode == 3 and "certificate verify failed" in done.stderr, done
    trusting = {**environment(stranger, "admin"), "GPIPE_TLS_CA": str(secure.certificates / "ca.crt")}
    done = gpipe("job", "list", address=secure.address, environment=trusting, check=False)
    assert done.returncode == 2 and "is not trusted by --tls-ca" in done.stderr, done
    # One that does not check its own files first.
    context = ssl.create_default_context(cafile=secure.certificates / "ca.crt")
    context.load_cert_chain(stranger / "admin.crt", stranger / "admin.key")
    assert not speaks(secure, context)
    secure.await_line(r"handshake with a client failed.*certificate verify failed")
    worker = Cluster.start_worker(secure, "worker-0", arguments=flags(stranger, "worker"))
    secure.await_line("certificate verify failed", "worker-0")
    assert worker.poll() is None, "it goes on trying: the orchestrator may get another certificate"


def speaks(cluster, context) -> bool:
    """Whether HTTP/2 is spoken with a client of that context."""
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection(cluster.address.split(":"), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as tls:
                tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
                return bool(tls.recv(1))
    except (ssl.SSLError, ConnectionError):
        return False


def test_an_expired_certificate_is_not_let_in_and_not_started_with(secure, tmp_path):
    expired = shutil.copytree(secure.certificates, tmp_path / "expired")
    certs(expired, "--renew", "--days", "-1")
    done = gpipe("job", "list", address=secure.address, environment=environment(expired, "admin"), check=False)
    assert done.returncode == 2 and re.search(r"--tls-cert .*/admin.crt: expired at 20", done.stderr), done
    for program, arguments in [("gpipe-worker", flags(expired, "worker")),
                               ("gpipe-orchestrator", [*flags(expired, "orchestrator"), "--state-dir", tmp_path / "state"])]:
        done = subprocess.run([BIN / program, *map(str, arguments)], capture_output=True, text=True, timeout=60)
        assert done.returncode != 0 and re.search(r"--tls-cert .*: expired at 20", done.stderr), done
    assert not (tmp_path / "state").exists()
    context = ssl.create_default_context(cafile=secure.certificates / "ca.crt")
    context.load_cert_chain(expired / "admin.crt", expired / "admin.key")
    assert not speaks(secure, context)
    secure.await_line(r"handshake with a client failed.*certificate verify failed")


def test_plain_text_to_a_tls_port_is_not_let_in(secure):
    nothing = dict.fromkeys(["GPIPE_TLS_CA", "GPIPE_TLS_CERT", "GPIPE_TLS_KEY"], "")
    done = gpipe("job", "list", address=secure.address, environment=nothing, check=False)
    assert done.returncode == 3, done
    secure.await_line("handshake with a client failed")


def test_a_stolen_name_is_refused(secure):
    secure.start_workers(1)
    certs(secure.certificates, "--issue", "worker:gpu7")
    thief = Cluster.start_worker(secure, "worker-1", arguments=flags(secure.certificates, "gpu7"))
    line = "the certificate of 'gpu7' is not for a worker named 'worker-1'"
    secure.await_line(f"refused a session from ipv4:127.0.0.1:.*{line}")
    assert thief.wait(60) == 1
    assert line in secure.log("worker-1") and "gpu7, or begin with gpu7-" in secure.log("worker-1")
    assert [worker["name"] for worker in secure.worker_list()] == ["worker-0"]


def test_a_worker_without_a_name_takes_one_that_its_certificate_allows(secure):
    log = open(secure.folder / "unnamed.log", "ab")
    secure.workers["unnamed"] = subprocess.Popen(
        [str(BIN / "gpipe-worker"), "--orchestrator", secure.address, "--device", DEVICE,
         *map(str, flags(secure.certificates, "worker"))], stdout=log, stderr=log)
    secure.wait_idle(1)
    assert secure.worker_list()[0]["name"].startswith("worker-")


def server_certificate(cluster) -> str:
    context = ssl.create_default_context(cafile=cluster.certificates / "ca.crt")
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(cluster.address.split(":")) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True))


def test_certificates_are_renewed_while_a_job_runs(secure, tmp_path):
    secure.start_workers(2)
    spec = training_spec("long", 2, 1_000_000)
    job = secure.submit(write_spec(tmp_path, spec))
    wait_until(lambda: secure.job(job)["state"] == "STATE_RUNNING", 60, "the job runs")
    old = server_certificate(secure)
    certs(secure.certificates, "--renew", "--days", "100")
    for name in ("orchestrator", "worker-0", "worker-1"):
        secure.await_line("TLS with the certificate of", name, count=2)
    new = (secure.certificates / "orchestrator.crt").read_text()
    wait_until(lambda: server_certificate(secure).split() == new.split(), 30, "the new certificate")
    assert old.split() != new.split()
    assert secure.job(job)["state"] == "STATE_RUNNING"
    secure.start_worker("worker-2")
    secure.wait_idle(1)
    gpipe("job", "cancel", job, address=secure.address)
    assert secure.wait(job)["state"] == "STATE_CANCELLED"
    assert "lost" not in secure.log(), secure.log()


def listening(process: subprocess.Popen) -> set[str]:
    """The addresses at which a process listens, as /proc/net/tcp has them."""
    descriptors = pathlib.Path(f"/proc/{process.pid}/fd")
    sockets = {found[1] for fd in descriptors.iterdir() if (found := re.match(r"socket:\[(\d+)\]", os.readlink(fd)))}
    rows = [line.split() for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}").readlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


@pytest.mark.skipif(DEVICE != "cpu", reason="about Gloo")
def test_gloo_listens_at_the_data_address_and_nowhere_else(secure, tmp_path):
    for index in range(2):
        secure.start_worker(f"worker-{index}", arguments=["--data-address", "127.0.0.2"])
    secure.wait_idle(2)
    job = secure.submit(write_spec(tmp_path, training_spec("long", 2, 1_000_000)))
    wait_until(lambda: secure.job(job)["state"] == "STATE_RUNNING", 60, "the job runs")
    assert [listening(worker) for worker in secure.workers.values()] == [{"0200007F"}] * 2


def test_what_a_program_cannot_use_it_names_before_it_starts(tmp_path):
    certificates = certs(tmp_path / "certificates")
    good = flags(certificates, "orchestrator")
    cases = {
        "--tls-key: .*none.key": [*good[:5], tmp_path / "none.key"],
        "--tls-key .*read.key: is the key of another certificate": [*good[:5], certificates / "read.key"],
        "--tls-ca needs --tls-cert and --tls-key": good[:2],
        "--insecure and --tls-ca contradict": [*good, "--insecure"],
        "--tokens-file.*none": [*good, "--tokens-file", tmp_path / "none"],
        "--tokens-file needs --tls-ca": ["--tokens-file", tmp_path / "none"],
    }
    for message, arguments in cases.items():
        done = subprocess.run([BIN / "gpipe-orchestrator", "--listen", "127.0.0.1:0", "--state-dir", tmp_path / "state",
                               *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and re.search(message, done.stderr), (message, done)
    assert not (tmp_path / "state").exists()


def test_a_private_cluster_does_without(tmp_path, monkeypatch):
    """`gpipe run` is on loopback, whatever the environment says of the standing cluster."""
    for name in ("GPIPE_TLS_CA", "GPIPE_TLS_CERT", "GPIPE_TLS_KEY"):
        monkeypatch.setenv(name, "/none")
    gpipe("run", write_spec(tmp_path, training_spec("private", 1, 4)), "--output", tmp_path / "out")
    assert len(losses_of(tmp_path / "out")) == 4
