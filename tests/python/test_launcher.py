"""The worker's launcher (deploy/with-torch) against libraries of other versions on the caller's LD_LIBRARY_PATH: what is
loaded is the torch wheel's. No GPU is needed."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from cluster import BIN, ROOT

TORCH = pathlib.Path(importlib.util.find_spec("torch").submodule_search_locations[0])
WHEEL = TORCH.parent
SHADOWS = ["libcudnn.so.9", "libcudnn_graph.so.9", "libcublas.so.13", "libcublasLt.so.13", "libnccl.so.2",
           "libcudart.so.13", "libnvrtc.so.13"]
OLD = 91000
# Loads cuDNN as LibTorch does, has it load its first part, and says what came of it.
ASK_CUDNN = """
import ctypes, re
cudnn = ctypes.CDLL("libcudnn.so.9")
cudnn.cudnnGetVersion.restype = ctypes.c_size_t
cudnn.cudnnGetErrorString(0)
print(cudnn.cudnnGetVersion())
print(*sorted(set(re.findall(r"/\\S+/libcudnn\\S*", open("/proc/self/maps").read()))))
"""


@pytest.fixture(scope="module")
def shadows(tmp_path_factory):
    """A folder of libraries that are of an old version and do nothing."""
    folder = tmp_path_factory.mktemp("shadows")
    source = folder / "shadow.c"
    source.write_text(f"unsigned long cudnnGetVersion(void) {{ return {OLD}; }}\n"
                      'const char* cudnnGetErrorString(int status) { return "old"; }\n')
    compiler = next(found for found in ("cc", "gcc", "clang") if shutil.which(found))
    for name in SHADOWS:
        subprocess.run([compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, source], check=True)
    return folder


@pytest.fixture(scope="module")
def launcher(tmp_path_factory):
    """with-torch, laid out as in the archive."""
    root = tmp_path_factory.mktemp("archive")
    (root / "libexec").mkdir()
    (root / "lib").mkdir()
    shutil.copy(ROOT / "deploy" / "with-torch", root / "libexec" / "with-torch")
    version = re.search(r"^__version__ = '([^+']*)", (TORCH / "version.py").read_text(), re.M)[1]
    (root / "lib" / "torch-version").write_text(version + "\n")
    return root / "libexec" / "with-torch"


def run(*command, path, **environment):
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True, timeout=60,
                          env={**os.environ, "LD_LIBRARY_PATH": str(path), **environment})
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def cudnn_of(*prefix, path, **environment):
    """The version of the cuDNN that is found, and its files."""
    version, files = run(*prefix, sys.executable, "-c", ASK_CUDNN, path=path, **environment).splitlines()
    return int(version), [pathlib.Path(file).resolve() for file in files.split()]


@pytest.mark.parametrize("chosen", [{"GPIPE_TORCH_DIR": str(TORCH)}, {"GPIPE_PYTHON": sys.executable}])
def test_the_wheels_cudnn_is_loaded_with_all_its_parts(shadows, launcher, chosen):
    assert cudnn_of(path=shadows)[0] == OLD, "the shadow is no shadow"
    version, files = cudnn_of(launcher, path=shadows, **chosen)
    assert version > OLD
    assert {file.name for file in files} >= {"libcudnn.so.9", "libcudnn_graph.so.9"}
    assert all(file.is_relative_to(WHEEL.resolve() / "nvidia" / "cudnn") for file in files), files


def test_the_callers_path_is_still_searched(shadows, launcher):
    path = run(launcher, "printenv", "LD_LIBRARY_PATH", path=shadows, GPIPE_TORCH_DIR=str(TORCH)).strip().split(":")
    assert path[-1] == str(shadows) and path[0] == str(TORCH / "lib")
    assert all(pathlib.Path(folder).is_dir() for folder in path), path


def needed(*prefix, path, **environment):
    """{library: the file that the worker would load}"""
    archived = BIN.parent / "libexec" / "gpipe-worker"
    text = run(*prefix, "ldd", archived if archived.exists() else BIN / "gpipe-worker", path=path, **environment)
    return {name: pathlib.Path(file).resolve() for name, file in re.findall(r"^\s*(\S+) => (/\S+)", text, re.M)}


@pytest.mark.parametrize("launched", [True, False])
def test_the_worker_takes_all_that_is_nvidias_from_the_wheel(shadows, launcher, launched):
    archived = (BIN.parent / "libexec" / "gpipe-worker").exists()
    if archived and not launched:
        launcher = BIN.parent / "libexec" / "with-torch"  # An archive's worker never starts without one.
    prefix = [launcher] if launched or archived else []
    found = needed(*prefix, path=shadows, GPIPE_TORCH_DIR=str(TORCH))
    assert found.keys() >= set(SHADOWS) - {"libcudnn_graph.so.9"}
    outside = {name: file for name, file in found.items()
               if name in SHADOWS and not file.is_relative_to(WHEEL.resolve())}
    assert not outside
