"""The Python package as it is built and installed, and its types."""

from __future__ import annotations

import os
import pathlib
import site
import subprocess
import sys
import zipfile

import pytest

from cluster import ROOT

SOURCE = ROOT / "client" / "python"
USE = """
import pathlib, gpipe, gpipe.v1, gpipe._cluster
assert pathlib.Path(gpipe.__file__).is_relative_to({place!r}), gpipe.__file__
assert gpipe.v1.JobSpec(name="a").name == "a" and gpipe.Client("127.0.0.1:1").address and gpipe.data.write_tokens
assert gpipe._cluster.KEEPER.exists() and pathlib.Path(gpipe.__file__).with_name("py.typed").exists()
"""


def run(*command, cwd=None, **environment) -> str:
    """Its words; it must not fail."""
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True, timeout=600, cwd=cwd,
                          env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **environment})
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """A wheel, without a network: what builds it is installed here."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", target,
        source)
    return next(target.glob("*.whl"))


def environment(folder: pathlib.Path) -> pathlib.Path:
    """A fresh one that has this one's packages. Returns its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    own = next((folder / "lib").glob("python*")) / "site-packages"
    (own / "tests.pth").write_text("\n".join(site.getsitepackages()))
    return folder / "bin" / "python"


def install(python: pathlib.Path, *what) -> None:
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-build-isolation",
        *what)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(SOURCE, tmp_path_factory.mktemp("wheel"))


def test_a_wheel_installs_and_works(wheel, tmp_path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"gpipe/py.typed", "gpipe/_keeper.py", "gpipe/v1/job_spec_pb2.py", "gpipe/v1/job_spec_pb2.pyi"} <= set(names)
    assert len(names) == len(set(names)) and all(name.startswith(("gpipe/", "gpipe-")) for name in names), names
    version = next(line.split()[2].rstrip(")") for line in (ROOT / "CMakeLists.txt").read_text().splitlines()
                   if line.startswith("project("))
    assert wheel.name == f"gpipe-{version}-py3-none-any.whl"
    python = environment(tmp_path / "venv")
    install(python, wheel)
    run(python, "-c", USE.format(place=str(tmp_path / "venv")), cwd=tmp_path)
    assert "Parquet" in run(python, "-m", "gpipe.data", "convert", "--help", cwd=tmp_path)


def test_a_source_distribution_has_all_that_a_wheel_is_made_of(wheel, tmp_path):
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=SOURCE)
    (tmp_path / "source").mkdir()
    run("tar", "--extract", "--file", next(tmp_path.glob("*.tar.gz")), "--directory", tmp_path / "source")
    # Away from the repository.
    again = build(next((tmp_path / "source").iterdir()), tmp_path / "again")
    contents = [{name: zipfile.ZipFile(each).read(name) for name in zipfile.ZipFile(each).namelist()
                 if not name.endswith("RECORD")} for each in (wheel, again)]
    assert contents[0] == contents[1]


def test_an_editable_installation_is_the_checkout(tmp_path):
    python = environment(tmp_path / "venv")
    install(python, "--editable", SOURCE)
    run(python, "-c", USE.format(place=str(SOURCE)), cwd=tmp_path)


def test_the_package_is_typed(tmp_path):
    run(sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "cache", cwd=SOURCE)


PROGRAM = '''
import asyncio
import gpipe
from gpipe import v1

def main(client: gpipe.Client) -> float:
    job = client.submit("job.yaml")
    for update in job.watch(stages=True):
        if isinstance(update, v1.StepMetrics):
            print(update.step, update.loss)
    for event in job.logs(follow=True):
        print(event.message)
    try:
        job.wait(timeout=3.0)
    except gpipe.JobFailedError as error:
        print(error.failure.worker)
    except gpipe.InvalidSpecError as error:
        print(error.field, error.reason, [violation.description for violation in error.violations])
    job.plot(logarithmic=True).save("loss.svg")
    loss: float = job.metrics().loss[-1]
    return loss + sum(len(stage.inputs) for stage in client.plan({"name": "a"}).stages)

async def twin(client: gpipe.AsyncClient) -> None:
    job = await client.submit(v1.JobSpec(name="a"))
    async for update in job.watch():
        print(update)
    await job.wait()

with gpipe.Cluster(workers=2) as cluster:
    main(cluster)
asyncio.run(twin(gpipe.AsyncClient()))
'''
MODEL = '''
from collections.abc import Generator

import torch
from torch import nn

from gpipe import GPipe
from gpipe.balance import balance_by_time
from gpipe.skip import Namespace, pop, skippable, stash, verify_skippables

class Stash(nn.Module):
    def forward(self, input: torch.Tensor) -> Generator[stash, None, torch.Tensor]:
        yield stash("skip", input)
        return input

class Pop(nn.Module):
    def forward(self, input: torch.Tensor) -> Generator[pop, torch.Tensor, torch.Tensor]:
        return input + (yield pop("skip"))

def main(sample: torch.Tensor) -> list[torch.device]:
    # Called, as mypy takes a decorated class for the class that it was.
    first, last, own = skippable(stash=["skip"])(Stash)(), skippable(pop=["skip"])(Pop)(), Namespace()
    layers = nn.Sequential(first.isolate(own), nn.Linear(2, 2), last.isolate(own, only=["skip"]))
    verify_skippables(layers)
    model = GPipe(layers, balance_by_time(2, layers, sample), chunks=2, checkpoint="always", cluster="127.0.0.1:7070")
    optimizer = model.optimizer(torch.optim.SGD, lr=0.1)
    optimizer.step()
    print(len(model), [layer.training for layer in model], model[0], model.chunks, model.state_dict())
    model.close()
    return model.devices
'''
WRONG = '''
import gpipe
gpipe.Client(7)
gpipe.Client().submit("a", folders="b")
gpipe.Client().job("a").metrics().losses
gpipe.GPipe(7)
'''


def test_a_users_program_is_checked_against_the_types(wheel, tmp_path):
    python = environment(tmp_path / "venv")
    install(python, wheel)
    (tmp_path / "good.py").write_text(PROGRAM)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "wrong.py").write_text(WRONG)
    check = [sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--cache-dir", tmp_path / "cache"]
    run(*check, "good.py", "model.py", cwd=tmp_path)
    with pytest.raises(AssertionError) as refused:
        run(*check, "wrong.py", cwd=tmp_path)
    assert str(refused.value).count("error:") == 4, refused.value
