"""gpipe.GPipe without workers: what it is made of, what it refuses, and where the program that it exports is cut."""

from __future__ import annotations

import collections
import pathlib

import pytest
import torch
from torch import nn

from gpipe import ExportError, GPipe
from gpipe._gpipe import tensor_file
from gpipe._gpipe.arguments import Arguments
from gpipe._gpipe.folder import Folder
from gpipe._gpipe.partitions import devices_of
from gpipe._gpipe.program import export_program


def linears(count: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(count)))


def tied_children() -> nn.Sequential:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    return nn.Sequential(first, second)


def same_child_twice() -> nn.Sequential:
    layer = nn.Linear(2, 2)
    return nn.Sequential(layer, layer)


# --- What it refuses, in torchgpipe's order and words ---

REFUSED = {
    "no balance": ((linears(2),), {}, ValueError, "^balance is required\n\nIf your model is still under development, "
                   "its optimal balance would change frequently. In this case, we highly recommend 'gpipe.balance'"),
    "no chunks": ((linears(2), [2]), {"chunks": 0}, ValueError, "^number of chunks must be positive integer$"),
    "negative chunks": ((linears(2), [2]), {"chunks": -1}, ValueError, "^number of chunks must be positive integer$"),
    "checkpoint": ((linears(2), [2]), {"checkpoint": "INVALID"}, ValueError,
                   "^checkpoint is not one of 'always', 'except_last', or 'never'$"),
    "no sequential": ((nn.ReLU(), [1]), {}, TypeError, "^module must be nn.Sequential to be partitioned$"),
    "list": ((nn.ModuleList([nn.ReLU()]), [1]), {}, TypeError, "^module must be nn.Sequential to be partitioned$"),
    "one child twice": ((same_child_twice(), [1, 1]), {}, ValueError,
                        "^module with duplicate children is not supported$"),
    "tied children": ((tied_children(), [1, 1]), {}, ValueError,
                      "^module with duplicate parameters in distinct children is not supported$"),
    "too short": ((linears(2), [1]), {}, ValueError, r"^module and sum of balance have different length \(module: 2, "
                  r"sum of balance: 1\)\n\n.*'gpipe.balance'"),
    "too long": ((linears(2), [3]), {}, ValueError, r"\(module: 2, sum of balance: 3\)"),
    "zero": ((linears(2), [0, 2]), {}, ValueError, r"^all balance numbers must be positive integer \(balance: "
             r"\[0, 2\]\)\n\n.*'gpipe.balance'"),
    "negative": ((linears(2), [-1, 3]), {}, ValueError, r"positive integer \(balance: \[-1, 3\]\)"),
    "few devices": ((linears(3), [1, 1, 1]), {"devices": ["cpu"]}, IndexError,
                    r"^too few devices to hold given partitions \(devices: 1, partitions: 3\)$"),
    "kinds of devices": ((linears(2), [1, 1]), {"devices": ["cpu", "cuda:0"]}, ValueError, "the same kind of device"),
    # Of two mistakes the first is told.
    "order": ((nn.ReLU(), None), {"chunks": 0, "checkpoint": "no"}, ValueError, "^balance is required"),
    "order of options": ((nn.ReLU(), [0]), {"chunks": 0, "checkpoint": "no"}, ValueError, "^number of chunks"),
    "order of modules": ((nn.ReLU(), [0]), {}, TypeError, "^module must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_made_says_why(case):
    args, options, error, words = REFUSED[case]
    with pytest.raises(error, match="(?s)" + words):
        GPipe(*args, **options)


@pytest.mark.parametrize("value,kind", [("hello", "str"), (["a"], "list"), ((torch.zeros(2), "b"), "str")])
def test_what_is_no_tensor_is_refused(value, kind):
    with pytest.raises(TypeError, match=f"^expected Tensor, but got <class '{kind}'>$"):
        GPipe(linears(2), [1, 1])(value)


class Returns(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, input):
        return self.make(input)


@pytest.mark.parametrize("balance", [[2], [1, 1]])
@pytest.mark.parametrize("make,kind", [(lambda x: "hello", "str"), (lambda x: [x], "list"), (lambda x: (x, 1), "int")])
def test_what_does_not_return_a_tensor_is_refused(balance, make, kind):
    with pytest.raises(TypeError, match=f"^expected Tensor, but got <class '{kind}'>$"):
        GPipe(nn.Sequential(nn.Linear(2, 2), Returns(make)), balance)(torch.randn(3, 2))


@pytest.mark.parametrize("value,words", [
    (torch.tensor(1.0), "is a single number"), (torch.randn(0, 2), "at least one"), ((), "no tensor"),
    ((torch.randn(2, 2), torch.randn(3, 2)), r"first dimensions are \[2, 3\]")])
def test_what_is_no_mini_batch_is_refused(value, words):
    with pytest.raises(ValueError, match=words):
        GPipe(linears(2), [1, 1])(value)


def test_one_argument():
    with pytest.raises(TypeError):
        GPipe(linears(2), [2])(torch.zeros(2, 2), torch.zeros(2, 2))


def test_what_cannot_be_exported_is_said_before_anything_starts():
    with pytest.raises(ExportError, match="torch.export cannot export module '1'"):
        GPipe(nn.Sequential(nn.Linear(2, 2), Returns(lambda x: x * float(x.sum()))), [1, 1])(torch.randn(3, 2))


# --- What it is made of ---

class Word:
    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text


def test_public_attributes():
    model = GPipe(linears(1), balance=(1,), devices=("cpu", "cpu"), chunks=42.0, checkpoint=Word("always"))
    assert model.balance == [1] and model.devices == [torch.device("cpu")]
    assert model.chunks == 42 and type(model.chunks) is int
    assert model.checkpoint == "always" and type(model.checkpoint) is str


@pytest.mark.parametrize("balance", [[2], [1, 1]])
def test_it_is_like_a_sequential(balance):
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    model = GPipe(nn.Sequential(*layers), balance)
    assert len(model) == 2 and list(model) == layers
    assert [model[i] for i in (0, 1, -1, -2)] == [*layers, *layers[::-1]]
    for outside in (2, -3):
        with pytest.raises(IndexError):
            model[outside]


def test_partitions_keep_the_names_of_children():
    children = collections.OrderedDict(a=nn.Linear(2, 2), b=nn.ReLU(), c=nn.Linear(2, 2))
    model = GPipe(nn.Sequential(children), [1, 2])
    assert isinstance(model.partitions, nn.ModuleList)
    assert all(isinstance(partition, nn.Sequential) for partition in model.partitions)
    assert [[name for name, _ in partition.named_children()] for partition in model.partitions] == [["a"], ["b", "c"]]
    assert list(model.state_dict()) == ["partitions.0.a.weight", "partitions.0.a.bias", "partitions.1.c.weight",
                                        "partitions.1.c.bias"]
    assert len(list(model.parameters())) == 4 and not hasattr(model, "a")


def test_moving_is_denied_and_casting_is_not():
    model = GPipe(linears(2), [1, 1])
    words = "^denied to move parameters and buffers, because GPipe should manage device placement$"
    for move in (model.cuda, model.cpu, lambda: model.to("cuda"), lambda: model.to(torch.device("cpu")),
                 lambda: model.to(0), lambda: model.to(device="cpu"), lambda: model.to(torch.rand(1)),
                 lambda: model.to(tensor=torch.rand(1)), lambda: model.to("cpu", torch.float64)):
        with pytest.raises(TypeError, match=words):
            move()
    assert model.half()[0].weight.dtype == torch.float16
    assert model.to(torch.float64) is model and model[1].bias.dtype == torch.float64
    assert model.float()[0].weight.dtype == torch.float32


def test_an_empty_model_is_the_identity():
    model, input = GPipe(nn.Sequential(), []), torch.rand(3)
    assert model(input) is input and len(model) == 0 and model.devices == []


def test_numbers_are_gpus_where_there_are_some(monkeypatch):
    assert devices_of([0, 1, 2], 2) == [torch.device("cpu")] * 2 == devices_of(None, 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices_of([1, 0], 2) == [torch.device("cuda:1"), torch.device("cuda:0")] == devices_of([1, "cuda:0"], 2)
    assert devices_of(None, 2) == [torch.device("cuda:0"), torch.device("cuda:1")]
    with pytest.raises(IndexError, match="devices: 2, partitions: 3"):
        devices_of(None, 3)


# --- Where the program is cut ---

def exported(model: GPipe, input, folder: pathlib.Path):
    with model._engine.mirror.plain():
        return export_program(model.partitions, Arguments(input), True, folder)


def named(**children) -> nn.Sequential:
    return nn.Sequential(collections.OrderedDict(children))


def layer() -> nn.Linear:
    return nn.Linear(2, 2)


CUTS = {
    "first children": (named(a=layer(), b=nn.ReLU(), c=layer(), d=layer()), [2, 1, 1], ("c", "d")),
    "one partition": (named(a=layer(), b=layer()), [2], ()),
    "children that do nothing": (named(a=layer(), n=nn.Identity(), b=layer()), [1, 2], ("b",)),
    "a partition that does nothing": (named(a=layer(), n=nn.Identity(), b=layer()), [1, 1, 1], ("b",)),
    "the last one": (named(a=layer(), b=layer(), n=nn.Identity()), [1, 1, 1], ("b",)),
    # Every stage does for itself what depends on the input alone.
    "the first one": (named(f=nn.Flatten(), r=nn.ReLU(), a=layer(), b=layer()), [1, 1, 1, 1], ("b",)),
    "chance": (named(d=nn.Dropout(0.5), a=layer()), [1, 1], ("a",)),
    "nested": (named(a=nn.Sequential(layer(), layer()), b=nn.Sequential(nn.ReLU(), layer())), [1, 1], ("b",)),
    "written inputs": (named(a=layer(), b=nn.ReLU(inplace=True), c=layer()), [1, 2], ("gpipe_entrance_1",)),
    "written later": (named(a=layer(), b=layer(), c=nn.ReLU(inplace=True)), [1, 2], ("b",)),
    "written deep inside": (named(a=layer(), b=nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))), [1, 1],
                            ("gpipe_entrance_1",)),
}


@pytest.mark.parametrize("case", CUTS)
def test_stages_begin_where_partitions_do(tmp_path, case):
    model, balance, split = CUTS[case]
    program = exported(GPipe(model, balance), torch.randn(5, 2), tmp_path)
    assert program.split == split and program.inputs == ("input",) and not program.returns_tuple
    assert program.differentiable == {name for name, _ in model.named_parameters()}


def test_a_program_that_writes_to_its_input_gets_a_copy(tmp_path):
    input = -torch.ones(5, 2)
    assert exported(GPipe(named(r=nn.ReLU(inplace=True), a=layer()), [2]), input, tmp_path).split == ()
    assert torch.equal(input, -torch.ones(5, 2))


def test_without_anything_for_workers_there_is_none():
    model = GPipe(nn.Sequential(nn.Identity(), nn.ReLU()), [1, 1])
    input = torch.randn(3, 2, requires_grad=True)
    model(input).sum().backward()
    assert torch.equal(input.grad, (input > 0).float())


def test_tuples(tmp_path):
    model = GPipe(nn.Sequential(Returns(lambda both: (both[0] @ both[1].mT, both[1])), Twice()), [1, 1])
    program = exported(model, (torch.randn(3, 2, 2), torch.randn(3, 2, 2)), tmp_path)
    assert program.inputs == ("input_0", "input_1") and program.returns_tuple
    single = GPipe(nn.Sequential(layer(), Returns(lambda x: (x,))), [2])
    assert exported(single, torch.randn(1, 2), tmp_path).returns_tuple


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = layer()

    def forward(self, both):
        return self.layer(both[0]), both[1] * 2


def test_export_leaves_the_model_as_it_was(tmp_path):
    model = GPipe(nn.Sequential(layer(), nn.BatchNorm1d(2), nn.Dropout(0.5)), [1, 2])
    input = torch.randn(5, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    exported(model, input, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and [module.training for module in model.modules()] == modes


# --- Files of tensors ---

def test_tensors_through_a_file(tmp_path):
    tensors = {"f": torch.randn(3, 2), "t": torch.randn(2, 3).mT, "n": torch.tensor(2.5, dtype=torch.float64),
               "e": torch.empty(0, 4), "b": torch.tensor([True, False, True]), "i": torch.arange(5),
               "h": torch.randn(3).bfloat16(), "u": torch.arange(3, dtype=torch.uint8),
               "c": torch.randn(2).cfloat().conj()}
    tensor_file.write(tmp_path / "tensors", tensors)
    found = tensor_file.read(tmp_path / "tensors")
    (tmp_path / "tensors").unlink()
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
    found["f"].zero_()
    with pytest.raises(FileExistsError):
        [tensor_file.write(tmp_path / "twice", tensors) for _ in range(2)]


def test_tensor_files_are_those_of_safetensors(tmp_path):
    from safetensors.torch import load_file, save_file
    tensors = {"a": torch.randn(3, 2), "b": torch.arange(5, dtype=torch.uint8), "c": torch.randn(3).double()}
    tensor_file.write(tmp_path / "ours", tensors)
    save_file(tensors, tmp_path / "theirs")
    for found in (load_file(tmp_path / "ours"), tensor_file.read(tmp_path / "theirs")):
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items()) and len(found) == 3


def test_a_folder_goes_with_its_object(tmp_path):
    folder = Folder(tmp_path / "for-")
    assert folder.path.name.startswith("for-")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "file").touch()
    del folder
    assert not list(tmp_path.iterdir())
