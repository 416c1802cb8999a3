"""The files of deploy/ are what the programs that read them expect: Kubernetes, Compose, systemd, the shell."""

import pathlib
import re
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
# The oldest and the newest that have all that is used.
KUBERNETES = ["1.30", "1.37"]


def run(*command):
    """Returns the finished process; it must not fail."""
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


# --- Kubernetes


def kubernetes_objects():
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    return {(one["kind"], one["metadata"]["name"]): one for file in kustomization["resources"]
            for one in yaml.safe_load_all((DEPLOY / "kubernetes" / file).read_text())}


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_objects_fit_the_schemas(version):
    objects = kubernetes_objects()
    assert len(objects) > 8
    for one in objects.values():
        kubernetes_validate.validate(one, version, strict=True)


@needs("kubectl")
def test_kustomize_puts_all_together(tmp_path):
    folder = shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes", ignore=lambda *_: ["certs"])
    run(DEPLOY / "certs.sh", folder / "certs", "localhost", "gpipe-orchestrator")
    objects = [one for one in yaml.safe_load_all(run("kubectl", "kustomize", folder).stdout)]
    # Both secrets, too.
    assert len(objects) == len(kubernetes_objects()) + 2
    for one in objects:
        kubernetes_validate.validate(one, KUBERNETES[-1], strict=True)
        assert one["metadata"].get("namespace", one["metadata"]["name"]) == "gpipe"


def test_kubernetes_schemas_refuse_what_is_wrong():
    wrong = kubernetes_objects()["StatefulSet", "worker"]
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[-1], strict=True)


def test_every_file_of_kubernetes_is_in_the_kustomization():
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(kustomization["resources"])


def pod_specs():
    return [one["spec"]["template"]["spec"] for (kind, _), one in kubernetes_objects().items()
            if kind in ("Deployment", "StatefulSet")]


def test_what_pods_name_is_there():
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    secrets = {secret["name"] for secret in kustomization["secretGenerator"]}
    images = {image["name"] for image in kustomization["images"]}
    objects = kubernetes_objects()
    for pod in pod_specs():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for volume in volumes.values():
            assert volume.get("secret", {}).get("secretName") in secrets | {None}
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or ("PersistentVolumeClaim", claim) in objects
        (container,) = pod["containers"]
        assert container["image"] in images
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert ("Service", objects["StatefulSet", "worker"]["spec"]["serviceName"]) in objects


def test_pods_are_confined():
    for pod in pod_specs():
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                                "capabilities": {"drop": ["ALL"]}}


def test_selectors_find_their_pods():
    objects = kubernetes_objects()
    labels = [one["spec"]["template"]["metadata"]["labels"] for (kind, _), one in objects.items()
              if kind in ("Deployment", "StatefulSet")]
    for (kind, name), one in objects.items():
        spec = one.get("spec", {})
        if kind == "Service":
            wanted = spec["selector"]
        elif kind in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            wanted = spec["selector"]["matchLabels"]
        elif kind == "NetworkPolicy":
            wanted = spec["podSelector"]["matchLabels"]
        else:
            continue
        assert any(wanted.items() <= those.items() for those in labels), (kind, name)


# --- Compose


def compose_services():
    return yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())["services"]


@needs("docker-compose")
def test_docker_compose_reads_the_file():
    profiles = [word for profile in ("cpu", "gpu", "client") for word in ("--profile", profile)]
    read = yaml.safe_load(run("docker-compose", "-f", DEPLOY / "docker-compose.yml", *profiles, "config").stdout)
    assert set(read["services"]) == set(compose_services())


@pytest.mark.parametrize("profile, workers", [("cpu", 3), ("gpu", 8), ("gpu1", 1), ("gpu2", 2), ("gpu4", 4)])
def test_a_profile_has_its_workers(profile, workers):
    names = [name for name, service in compose_services().items() if profile in service.get("profiles", [])]
    prefix = "worker-" + ("cpu" if profile == "cpu" else "gpu")
    assert names == [f"{prefix}{i}" for i in range(workers)]


def test_each_gpu_has_one_worker_of_its_own_name():
    for name, service in compose_services().items():
        if not re.fullmatch(r"worker-[cg]pu\d", name):
            continue
        assert service["hostname"] == name
        assert service["command"][:2] == ["--name", name]
        if name.startswith("worker-gpu"):
            (device,) = service["deploy"]["resources"]["reservations"]["devices"]
            assert device == {"driver": "nvidia", "capabilities": ["gpu"], "device_ids": [name[-1]]}


def test_what_is_asked_how_it_is_serves_that():
    for name, service in compose_services().items():
        if not re.fullmatch(r"worker-[cg]pu\d", name):
            continue
        port = service["command"][service["command"].index("--http-listen") + 1].rpartition(":")[2]
        assert service["healthcheck"]["test"] == ["CMD", "gpipe", "health", "--http", f"localhost:{port}"], name
    (worker,) = re.findall(r"^FROM \S+ AS worker$(.*?)^ENTRYPOINT", (DEPLOY / "Dockerfile").read_text(), re.M | re.S)
    assert re.search(r"^COPY .* /opt/gpipe/bin/gpipe ", worker, re.M), "the image has the program that asks"


def test_services_are_confined():
    for name, service in compose_services().items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert name == "client" or service["read_only"], name


def test_settings_are_those_of_the_compose_file():
    used = set(re.findall(r"\$\{(\w+):-([^}]*)\}", (DEPLOY / "docker-compose.yml").read_text()))
    said = set(re.findall(r"^#(GPIPE_\w+)=(.*)$", (DEPLOY / ".env").read_text(), re.MULTILINE))
    assert used == said


# --- systemd


@needs("systemd-analyze")
@pytest.mark.parametrize("unit, exposure", [("gpipe-orchestrator.service", 16), ("gpipe-worker@.service", 25)])
def test_systemd_finds_nothing_wrong(unit, exposure, tmp_path):
    (tmp_path / "bin").mkdir()
    for program in ("gpipe-orchestrator", "gpipe-worker"):
        (tmp_path / "bin" / program).symlink_to(shutil.which("true"))
    text = (DEPLOY / "systemd" / unit).read_text().replace("/opt/gpipe/", f"{tmp_path}/")
    instance = tmp_path / unit.replace("@.", "@cpu.")
    instance.write_text(text)
    assert run("systemd-analyze", "verify", "--man=no", instance).stderr == ""
    # Of 100 points, for all that the service could do and need not.
    run("systemd-analyze", "security", "--offline=yes", f"--threshold={exposure}", instance)


# --- scripts


@needs("shellcheck")
def test_scripts_have_no_warnings():
    scripts = [*ROOT.glob("scripts/*.sh"), *DEPLOY.glob("*.sh"), DEPLOY / "gpipe-worker", DEPLOY / "with-torch",
               *DEPLOY.glob("slurm/*"), *ROOT.glob("tests/deploy/*.sh"), ROOT / ".ci" / "run"]
    assert len(scripts) > 15
    run("shellcheck", "--severity=warning", *scripts)
