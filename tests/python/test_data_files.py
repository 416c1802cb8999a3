"""gpipe data convert, and the functions that write samples and tokens: what PyTorch and NumPy read back is the same."""

import subprocess
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from gpipe import data
from cluster import ROOT, gpipe


def convert(*arguments, check=True):
    done = gpipe("data", "convert", *arguments, check=False, environment={"GPIPE_PYTHON": sys.executable})
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_csv_columns_become_tensors(tmp_path):
    (tmp_path / "a.csv").write_text("age,height,kind\n1,1.5,cat\n2,2.5,dog\n")
    (tmp_path / "b.csv").write_text("age,height,kind\n3,3.5,cat\n")
    out = tmp_path / "out.safetensors"
    done = convert(tmp_path / "a.csv", tmp_path / "b.csv", "-o", out, "--tensor", "input=age,height", "--tensor",
                   "target=kind", "--classes", "kind")
    assert "3 samples of input, target" in done.stdout
    tensors = load_file(out)
    assert torch.equal(tensors["input"], torch.tensor([[1, 1.5], [2, 2.5], [3, 3.5]]))
    assert torch.equal(tensors["target"], torch.tensor([0, 1, 0]))
    with safe_open(out, "pt") as file:
        assert file.metadata() == {"classes.kind": '["cat", "dog"]'}


def test_parquet_with_lists(tmp_path):
    table = pyarrow.table({"x": [[1.0, 2.0], [3.0, 4.0]], "y": pyarrow.array([7, 8], pyarrow.int32())})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    convert(tmp_path / "a.parquet", "-o", tmp_path / "out.safetensors")
    tensors = load_file(tmp_path / "out.safetensors")
    assert torch.equal(tensors["x"], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert torch.equal(tensors["y"], torch.tensor([7, 8]))


def test_numpy_files_and_a_given_type(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(5, 3)), np.arange(5, dtype=np.int32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "more.npz", y=y)
    convert(tmp_path / "x.npy", tmp_path / "more.npz", "-o", tmp_path / "out.safetensors", "--type", "x=float32",
            "--type", "y=int64")
    tensors = load_file(tmp_path / "out.safetensors")
    assert torch.equal(tensors["x"], torch.from_numpy(x).float())
    assert torch.equal(tensors["y"], torch.arange(5))


WRONG = {
    "text": ("a,b\n1,x\n", [], "column 'b' holds string, not numbers; --classes b"),
    "empty": ("a,b\n1,\n,2\n", [], "has empty values"),
    "no column": ("a,b\n1,2\n", ["--tensor", "input=c"], "there is no column 'c' for 'input'; there are: a, b"),
    "no type": ("a,b\n1,2\n", ["--type", "a=int4"], "none of"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_converted_is_told_and_leaves_nothing(tmp_path, case):
    text, options, words = WRONG[case]
    (tmp_path / "a.csv").write_text(text)
    done = convert(tmp_path / "a.csv", "-o", tmp_path / "out.safetensors", *options, check=False)
    assert done.returncode == 2 and words in done.stderr, done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "a.xlsx").write_text("")
    done = convert(tmp_path / "a.xlsx", "-o", tmp_path / "out.safetensors", check=False)
    assert done.returncode == 2 and "a.xlsx: it is none of .csv" in done.stderr


def test_samples_of_a_torch_dataset(tmp_path):
    dataset = torch.utils.data.TensorDataset(torch.randn(6, 2, 3), torch.arange(6))
    data.write_samples(({"input": x, "target": y} for x, y in dataset), tmp_path / "out.safetensors")
    tensors = load_file(tmp_path / "out.safetensors")
    assert torch.equal(tensors["input"], dataset.tensors[0]) and torch.equal(tensors["target"], dataset.tensors[1])
    with pytest.raises(data.DataError, match="was"):
        data.write_samples([{"x": [1.0]}, {"x": [1.0, 2.0]}], tmp_path / "bad.safetensors")
    assert not (tmp_path / "bad.safetensors").exists()


def test_tokens_of_texts(tmp_path):
    data.write_tokens([[1, 2], [], [50256]], tmp_path / "t.bin")
    assert np.fromfile(tmp_path / "t.bin", np.uint16).tolist() == [1, 2, 50256]
    with pytest.raises(data.DataError, match="65536"):
        data.write_tokens([[65536]], tmp_path / "u.bin")
    assert not (tmp_path / "u.bin").exists()


def test_the_script_runs_by_itself():
    script = ROOT / "client" / "python" / "gpipe" / "data.py"
    done = subprocess.run([sys.executable, script, "convert", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "Parquet" in done.stdout
