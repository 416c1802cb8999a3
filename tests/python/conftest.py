import importlib.util
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "client" / "python")]

import protos
from cluster import BIN, DEVICE, DEVICES, Cluster

# The tests use the package as it is in this checkout. A GPU machine has no gRPC, and runs none that needs the API.
if importlib.util.find_spec("grpc_tools"):
    protos.generate_here()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A standing cluster of four workers with one thread each."""
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        running.start_workers(4)
        yield running
    finally:
        running.stop()


@pytest.fixture
def fresh_cluster(tmp_path):
    """A cluster of the test's own, without workers, to break."""
    running = Cluster(tmp_path / "cluster")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def devices_of_models(monkeypatch):
    """Models of gpipe.GPipe that say nothing of devices have those of the tests, in turn: a GPU may have several."""
    if DEVICE == "cpu":
        return
    from gpipe._gpipe import module

    given = module.devices_of
    monkeypatch.setattr(module, "devices_of", lambda devices, partitions: given(
        devices or [DEVICES[i % len(DEVICES)] for i in range(partitions)], partitions))


@pytest.fixture
def sessions(monkeypatch):
    """Those that models of gpipe.GPipe have begun in the test, which run in this process (stand_in.py)."""
    from gpipe._gpipe import engine
    from stand_in import StandInLauncher

    monkeypatch.setattr(engine, "Launcher", StandInLauncher)
    monkeypatch.setattr(StandInLauncher, "sessions", [])
    return StandInLauncher.sessions


@pytest.fixture(scope="module")
def workers():
    """Of models of gpipe.GPipe that are given no cluster: those of one test are those of the next one."""
    from gpipe._gpipe import embedded

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GPIPE_BIN_DIR", str(BIN))
        patch.delenv("GPIPE_ORCHESTRATOR", raising=False)
        embedded.enter(patch)
        yield
        embedded.leave(patch)
