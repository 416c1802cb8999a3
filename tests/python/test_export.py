"""gpipe_export: what it refuses, and that the model is left alone. PyTorch only."""

from __future__ import annotations

import collections
import copy
import pathlib
import sys

import pytest
import torch
from torch import nn

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "client" / "python"))
from gpipe_export import ExportError, gpipe_export  # noqa: E402


class Two(nn.Module):
    """A tied embedding, batch norm, dropout; a dict of outputs."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids, scale):
        x = self.drop(self.norm((self.embedding(ids) * scale[:, None, None]).mean(1)))
        return {"logits": self.head(x), "pooled": x}


def two_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 11, (3, 4)), torch.rand(3)


def test_the_saved_program_trains_as_the_model(tmp_path):
    torch.manual_seed(3)
    model, inputs = Two(), two_inputs()
    gpipe_export(model, inputs, tmp_path / "two.pt2")
    loaded = torch.export.load(tmp_path / "two.pt2").module()
    results = []
    for call in (model, loaded):
        torch.manual_seed(5)
        outputs = call(*inputs)
        (outputs["logits"].square().sum() + outputs["pooled"].sum()).backward()
        # A loaded program has one tensor under two names, with a gradient each.
        gradients = [p.grad for n, p in call.named_parameters() if n.endswith("g.weight") or n == "head.weight"]
        results.append((outputs, sum(g for g in gradients if g is not None), call.norm.running_mean))
    for name in ("logits", "pooled"):
        torch.testing.assert_close(results[1][0][name], results[0][0][name])
    torch.testing.assert_close(results[1][1:], results[0][1:])
    assert [path.name for path in tmp_path.iterdir()] == ["two.pt2"]


def test_other_batch_sizes_run(tmp_path):
    gpipe_export(Two(), two_inputs(), tmp_path / "two.pt2")
    loaded = torch.export.load(tmp_path / "two.pt2").module()
    for batch in (2, 7):
        assert loaded(torch.zeros(batch, 4, dtype=torch.long), torch.ones(batch))["logits"].shape == (batch, 11)


@pytest.mark.parametrize("by_name", [False, True])
def test_inputs_keep_the_names_and_the_order_of_forward(tmp_path, by_name):
    ids, scale = two_inputs()
    given = {"scale": scale, "ids": ids} if by_name else (ids, scale)
    program = gpipe_export(Two(), given, tmp_path / "two.pt2")
    assert list(program.graph_signature.user_inputs) == ["ids", "scale"]


def test_the_model_is_left_as_it_was(tmp_path):
    model = Two()
    model.drop.eval()
    model.head.weight.grad = torch.ones(11, 6)
    calls = []
    model.head.weight.register_post_accumulate_grad_hook(lambda _: calls.append(1))
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    parameters = list(model.parameters())
    gpipe_export(model, two_inputs_from(state), tmp_path / "two.pt2")
    assert all(a is b for a, b in zip(parameters, model.parameters()))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(model.head.weight.grad, torch.ones(11, 6)) and not calls
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training and model.norm.training and not model.drop.training


def two_inputs_from(state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = two_inputs()
    torch.set_rng_state(state)
    return inputs


class Reverse(torch.autograd.Function):
    """The gradient reversal of domain adaptation."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Reversed(nn.Module):
    def __init__(self):
        super().__init__()
        self.before = nn.Linear(4, 4)
        self.after = nn.Linear(4, 2)

    def forward(self, x):
        return self.after(Reverse.apply(self.before(x)))


def test_a_custom_backward_is_refused_with_the_parameters(tmp_path):
    with pytest.raises(ExportError) as refused:
        gpipe_export(Reversed(), (torch.randn(3, 4),), tmp_path / "reversed.pt2")
    assert "before.weight in module 'before' (Linear)" in str(refused.value)
    assert "after.weight" not in str(refused.value)
    assert "the model uses Reverse:" in str(refused.value)
    assert not list(tmp_path.iterdir())


class Jump(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


def test_control_flow_that_depends_on_data_is_refused_with_its_line(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.ModuleDict({"jump": Jump()})["jump"])
    with pytest.raises(ExportError) as refused:
        gpipe_export(model, (torch.randn(3, 4),), tmp_path / "jump.pt2")
    assert "module '1' (Jump)" in str(refused.value)
    assert "test_export.py:" in str(refused.value) and ": if x.sum() > 0:" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert model.training


class Baked(nn.Module):
    def forward(self, x):
        return x.reshape(3, -1) * 2


class Pairs(nn.Module):
    def forward(self, x):
        return x.view(2, x.shape[0] // 2, -1).sum(0)


@pytest.mark.parametrize("module, batch, line", [(Baked, 3, "x.reshape(3, -1)"), (Pairs, 4, "x.view(2, x.shape[0]")])
def test_a_batch_size_that_is_not_free_is_refused_with_its_line(tmp_path, module, batch, line):
    with pytest.raises(ExportError) as refused:
        gpipe_export(nn.Sequential(nn.Identity(), module()), (torch.randn(batch, 4),), tmp_path / "baked.pt2")
    assert f"module '1' ({module.__name__}) at " in str(refused.value)
    assert line in str(refused.value) and "Constraints violated (batch): " in str(refused.value)


Pair = collections.namedtuple("Pair", ["scores", "hidden"])


class Paired(nn.Module):
    def forward(self, x):
        return Pair(x * 2, [x])


def test_a_namedtuple_may_be_returned(tmp_path):
    for _ in range(2):
        gpipe_export(Paired(), (torch.randn(3, 4),), tmp_path / "paired.pt2")
    assert isinstance(torch.export.load(tmp_path / "paired.pt2").module()(torch.ones(2, 4)), Pair)


class Mapped(nn.Module):
    def forward(self, x):
        return torch.vmap(torch.sin)(x)


def test_functions_of_functorch_are_refused_with_their_line(tmp_path):
    with pytest.raises(ExportError, match=r"module '0' \(Mapped\) at .*: return torch.vmap"):
        gpipe_export(nn.Sequential(Mapped()), (torch.randn(3, 4),), tmp_path / "mapped.pt2")


@pytest.mark.parametrize("inputs, message", [
    ((torch.zeros(1, 4, dtype=torch.long), torch.ones(1)), "at least 2 samples"),
    ((torch.zeros(3, 4, dtype=torch.long), torch.ones(2)), "not one batch: {'ids': 3, 'scale': 2}"),
    ((torch.zeros(3, 4, dtype=torch.long), torch.tensor(1.0)), "input 'scale' is a single number"),
    ((torch.zeros(3, 4, dtype=torch.long),), "do not fit Two.forward"),
    (torch.zeros(3, 4), "must be a tuple"),
])
def test_example_inputs_that_cannot_be_are_refused(tmp_path, inputs, message):
    with pytest.raises(ExportError) as refused:
        gpipe_export(Two(), inputs, tmp_path / "two.pt2")
    assert message in str(refused.value)


def test_dynamic_shapes_of_ones_own(tmp_path):
    length = torch.export.Dim("length", min=2, max=64)
    batch = torch.export.Dim("batch", min=1, max=64)
    gpipe_export(Two(), two_inputs(), tmp_path / "two.pt2", dynamic_shapes=({0: batch, 1: length}, {0: batch}))
    loaded = torch.export.load(tmp_path / "two.pt2").module()
    assert loaded(torch.zeros(2, 9, dtype=torch.long), torch.ones(2))["logits"].shape == (2, 11)


@torch.library.custom_op("gpipe_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


twice.register_fake(lambda x: torch.empty_like(x))
twice.register_autograd(lambda ctx, gradient: gradient * 2)


class Foreign(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return twice(self.layer(x))


def test_an_operator_registered_in_python_is_refused(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), Foreign())
    with pytest.raises(ExportError, match=r"module '1' \(Foreign\) at .*test_export.py:\d+: .*gpipe_test.twice"):
        gpipe_export(model, (torch.randn(3, 4),), tmp_path / "foreign.pt2")
