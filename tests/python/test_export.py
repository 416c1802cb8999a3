"""gpipe.export: what it refuses, and that the model is left alone. PyTorch only."""

from __future__ import annotations

import copy
import pathlib
import zipfile

import pytest
import torch
from torch import nn
from torch.export.pt2_archive._package import load_pt2

from gpipe import ExportError, empty_weights, export


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
    export(model, inputs, tmp_path / "two.pt2")
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
    export(Two(), two_inputs(), tmp_path / "two.pt2")
    loaded = torch.export.load(tmp_path / "two.pt2").module()
    for batch in (2, 7):
        assert loaded(torch.zeros(batch, 4, dtype=torch.long), torch.ones(batch))["logits"].shape == (batch, 11)


@pytest.mark.parametrize("by_name", [False, True])
def test_inputs_keep_the_names_and_the_order_of_forward(tmp_path, by_name):
    ids, scale = two_inputs()
    given = {"scale": scale, "ids": ids} if by_name else (ids, scale)
    program = export(Two(), given, tmp_path / "two.pt2")
    assert list(program.graph_signature.user_inputs) == ["ids", "scale"]


def test_the_model_is_left_as_it_was(tmp_path):
    model = Two()
    model.drop.eval()
    model.head.weight.grad = torch.ones(11, 6)
    calls = []
    model.head.weight.register_post_accumulate_grad_hook(lambda _: calls.append(1))
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    parameters = list(model.parameters())
    export(model, two_inputs_from(state), tmp_path / "two.pt2")
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
        export(Reversed(), (torch.randn(3, 4),), tmp_path / "reversed.pt2")
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
        export(model, (torch.randn(3, 4),), tmp_path / "jump.pt2")
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
        export(nn.Sequential(nn.Identity(), module()), (torch.randn(batch, 4),), tmp_path / "baked.pt2")
    assert f"module '1' ({module.__name__}) at " in str(refused.value)
    assert line in str(refused.value) and "Constraints violated (batch): " in str(refused.value)


class Mapped(nn.Module):
    def forward(self, x):
        return torch.vmap(torch.sin)(x)


def test_functions_of_functorch_are_refused_with_their_line(tmp_path):
    with pytest.raises(ExportError, match=r"module '0' \(Mapped\) at .*: return torch.vmap"):
        export(nn.Sequential(Mapped()), (torch.randn(3, 4),), tmp_path / "mapped.pt2")


@pytest.mark.parametrize("inputs, message", [
    ((torch.zeros(1, 4, dtype=torch.long), torch.ones(1)), "at least 2 samples"),
    ((torch.zeros(3, 4, dtype=torch.long), torch.ones(2)), "not one batch: {'ids': 3, 'scale': 2}"),
    ((torch.zeros(3, 4, dtype=torch.long), torch.tensor(1.0)), "input 'scale' is a single number"),
    ((torch.zeros(3, 4, dtype=torch.long),), "do not fit Two.forward"),
    (torch.zeros(3, 4), "must be a tuple"),
])
def test_example_inputs_that_cannot_be_are_refused(tmp_path, inputs, message):
    with pytest.raises(ExportError) as refused:
        export(Two(), inputs, tmp_path / "two.pt2")
    assert message in str(refused.value)


def test_dynamic_shapes_of_ones_own(tmp_path):
    length = torch.export.Dim("length", min=2, max=64)
    batch = torch.export.Dim("batch", min=1, max=64)
    export(Two(), two_inputs(), tmp_path / "two.pt2", dynamic_shapes=({0: batch, 1: length}, {0: batch}))
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
        export(model, (torch.randn(3, 4),), tmp_path / "foreign.pt2")


# --- What the model is in evaluation ---

def records(path: pathlib.Path) -> set[str]:
    return {name.partition("/")[2] for name in zipfile.ZipFile(path).namelist()}


def note(path: pathlib.Path) -> str:
    archive = zipfile.ZipFile(path)
    return next((archive.read(n).decode() for n in archive.namelist() if n.endswith("/extra/gpipe_evaluation")), "")


def test_what_is_in_eval_in_a_model_in_training_stays_so(tmp_path):
    model = Two()
    model.norm.eval()
    model.drop.eval()
    for root_in_eval in (False, True):
        if root_in_eval:  # Then all of it is meant for everything.
            model.eval()
        program = export(model, two_inputs(), tmp_path / "two.pt2")
        modes = {node.target._schema.name: node.args[-4 if "norm" in node.name else -1] for node in program.graph.nodes
                 if node.name in ("batch_norm", "dropout")}
        assert modes == {"aten::batch_norm": root_in_eval, "aten::dropout": root_in_eval}
        assert model.training != root_in_eval and not model.norm.training and not model.drop.training


class Modules(nn.Module):
    """What workers know to turn off."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.memory = nn.LSTM(8, 8, 2, dropout=0.2, batch_first=True)
        self.norms = nn.ModuleList([nn.BatchNorm1d(8), nn.BatchNorm1d(8, track_running_stats=False)])
        self.spread = nn.RReLU()
        self.drops = nn.ModuleList([nn.AlphaDropout(), nn.Dropout(0.3)])

    def forward(self, x):
        x = self.drops[0](self.memory(self.encoder(x))[0].mean(1))
        with torch.no_grad():
            shift = self.drops[1](x.mean())
        return self.norms[1](self.spread(self.norms[0](x))) + shift


class Sampled(nn.Module):
    """Random numbers in both modes."""

    def forward(self, x):
        return x + torch.randn_like(x)


@pytest.mark.parametrize("make, inputs", [(Two, two_inputs), (Modules, lambda: (torch.randn(3, 5, 8),)),
                                          (Sampled, lambda: (torch.randn(3, 5),))])
def test_an_evaluation_program_that_workers_would_make_is_not_saved(tmp_path, make, inputs):
    export(make(), inputs(), tmp_path / "m.pt2")
    assert "models/evaluation.json" not in records(tmp_path / "m.pt2") and note(tmp_path / "m.pt2") == "same"


class Otherwise(nn.Module):
    """Another constant, and fewer parameters, in evaluation; a dropout that is on in both."""

    def __init__(self):
        super().__init__()
        self.layer, self.more = nn.Linear(4, 3), nn.Linear(3, 3)
        self.register_buffer("mask", torch.ones(3), persistent=False)

    def forward(self, x):
        x = self.layer(x * torch.tensor([2.0] if self.training else [3.0])) * self.mask
        return nn.functional.dropout(self.more(x) if self.training else x, 0.5, training=True)


@pytest.mark.parametrize("options", [{}, {"weights": False},
                                     {"check": (Otherwise(), (torch.randn(3, 4),))}], ids=["all", "none", "check"])
def test_another_evaluation_program_is_saved_beside_the_weights(tmp_path, options):
    model, path = Otherwise(), tmp_path / "m.pt2"
    export(model, (torch.randn(3, 4),), path, **options)
    assert [file.name for file in tmp_path.iterdir()] == ["m.pt2"] and model.training
    names = records(path)
    assert len([n for n in names if n.startswith("data/weights/weight_")]) == (0 if "weights" in options else 4)
    assert len([n for n in names if n.startswith("data/constants/tensor_")]) == 3  # Of which the mask is in both.
    assert set(torch.export.load(path).graph_signature.parameters) == {n for n, _ in model.named_parameters()}
    if options:
        return
    loaded = load_pt2(path).exported_programs["evaluation"].module()
    x = torch.randn(5, 4)
    torch.manual_seed(1)
    expected = model.eval()(x)
    torch.manual_seed(1)
    torch.testing.assert_close(loaded(x), expected)


def test_a_model_without_values_has_its_evaluation_program(tmp_path):
    with empty_weights():
        model = Otherwise()
    export(model, (torch.randn(3, 4),), tmp_path / "m.pt2")
    assert "models/evaluation.json" in records(tmp_path / "m.pt2")


class TrainsOnly(nn.Module):
    def forward(self, x):
        return x * 2 if self.training or x.sum() > 0 else x


def test_a_model_that_only_training_can_be_exported_of_says_so(tmp_path, capsys):
    export(TrainsOnly(), (torch.randn(3, 4),), tmp_path / "m.pt2")
    assert "for training only, without `infer` and `evaluate`" in capsys.readouterr().out
    assert note(tmp_path / "m.pt2").startswith("in eval(): torch.export cannot export the model itself (TrainsOnly)")
