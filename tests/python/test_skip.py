"""gpipe.skip: skip connections as torchgpipe has them, in one process, in an exported program and on a cluster."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cluster import gpipe, losses_of, write_spec
from exported import RTOL, expect_model, parts_of
from gpipe import export
from gpipe.skip import Namespace, pop, skippable, stash, verify_skippables
from gpipe.skip._context import current_context, skip_context
from gpipe.skip._layout import Skip, skips_of
from reference import optimise
from torchgpipe_models import images, unet


@skippable(stash=["skip"])
class Stash(nn.Module):
    """Keeps what it gets, and returns twice as much."""

    def forward(self, input):
        yield stash("skip", input)
        return input * 2


@skippable(pop=["skip"])
class Pop(nn.Module):
    def forward(self, input):
        skip = yield pop("skip")
        return input if skip is None else input + skip


class Fails(nn.Module):
    def __init__(self, times: int):
        super().__init__()
        self.times = times

    def forward(self, input):
        self.times -= 1
        if self.times >= 0:
            raise ArithmeticError("in the middle")
        return input


def declares(stashed=(), popped=()) -> nn.Module:
    """A layer that does nothing of it."""
    return skippable(stash=stashed, pop=popped)(nn.Identity)()


def does(*commands, stashed=(), popped=()) -> nn.Module:
    class Does(nn.Module):
        def forward(self, input):
            for command in commands:
                yield command
            return input

    return skippable(stash=stashed, pop=popped)(Does)()


ONE = torch.tensor(1.0)


def nothing_is_left() -> bool:
    return not current_context().values


# --- A forward in one process ---

def test_a_skip_goes_from_the_layer_that_stashes_to_the_one_that_pops():
    x = torch.tensor([3.0], requires_grad=True)
    output = nn.Sequential(Stash(), nn.ReLU(), Pop())(x)
    output.backward()
    assert output.item() == 9 and x.grad.item() == 3 and nothing_is_left()


def test_a_layer_may_stash_and_pop_several():
    @skippable(stash=["a", "b"])
    class First(nn.Module):
        def forward(self, input):
            yield stash("a", input + 1)
            yield stash("b", input + 2)
            return input

    @skippable(pop=["a", "b"], stash=["c"])
    class Second(nn.Module):
        def forward(self, input):
            b = yield pop("b")
            yield stash("c", b * 10)
            a = yield pop("a")
            return a

    @skippable(pop=["c"])
    class Third(nn.Module):
        def forward(self, input):
            c = yield pop("c")
            return input, c

    assert nn.Sequential(First(), Second(), Third())(torch.tensor(0)) == (1, 20)


def test_none_may_be_stashed():
    model = nn.Sequential(does(stash("skip", None), stashed=["skip"]), Pop())
    assert model(ONE) is ONE and nothing_is_left()


def test_layers_get_and_return_tuples():
    @skippable(stash=["skip"])
    class Swap(nn.Module):
        def forward(self, pair):
            yield stash("skip", pair[0])
            return pair[1], pair[0]

    @skippable(pop=["skip"])
    class Both(nn.Module):
        def forward(self, pair):
            skip = yield pop("skip")
            return *pair, skip

    assert nn.Sequential(Swap(), Both())((1, 2)) == (2, 1, 1)


def test_a_forward_without_commands_is_one():
    layer = skippable()(nn.ReLU)()
    assert layer(-ONE) == 0


def test_skips_pass_through_nested_sequentials():
    model = nn.Sequential(nn.Sequential(nn.ReLU(), Stash()), nn.Sequential(nn.Sequential(Pop())))
    assert model(ONE) == 3


def test_layers_called_one_by_one_pass_skips():
    x = ONE
    for layer in (Stash(), nn.ReLU(), Pop()):
        x = layer(x)
    assert x == 3


def test_a_layer_keeps_the_names_of_torchgpipe():
    layer = skippable(stash=["skip"])(nn.Linear)(2, 3)
    assert list(layer.state_dict()) == ["module.weight", "module.bias"]
    assert repr(layer) == "@skippable(Linear(in_features=2, out_features=3, bias=True))"
    assert (layer.stashable_names, layer.poppable_names) == ({"skip"}, frozenset())


def test_a_decorated_class_is_known_by_its_own_name():
    assert (Stash.__name__, Stash.__qualname__, Stash.__module__) == ("Stash", "Stash", __name__)
    assert "returns twice as much" in Stash.__doc__


# --- What a layer may not do ---

WRONG_COMMANDS = {
    "declared and not stashed": (does(stashed=["a", "b"]), "'a', 'b' must be stashed but have not"),
    "declared and not popped": (does(popped=["skip"]), "'skip' must be popped but have not"),
    "not declared as stashable": (does(stash("a", ONE)), "'a' has not been declared as stashable"),
    "not declared as poppable": (does(pop("a")), "'a' has not been declared as poppable"),
    "popped twice": (does(pop("skip"), pop("skip"), popped=["skip"]), "'skip' has already been popped"),
}


@pytest.mark.parametrize("case", WRONG_COMMANDS)
def test_a_layer_does_what_it_declares(case):
    layer, words = WRONG_COMMANDS[case]
    with skip_context(), pytest.raises(RuntimeError, match=f"^{words}$"):
        nn.Sequential(does(stash("skip", ONE), stashed=["skip"]), layer)(ONE)


def test_what_was_not_stashed_cannot_be_popped():
    with pytest.raises(RuntimeError, match="^'skip' has not been stashed$"):
        Pop()(ONE)


@pytest.mark.parametrize("command", ["skip", None, (1, 2)])
def test_only_commands_are_yielded(command):
    with pytest.raises(TypeError) as error:
        does(command)(ONE)
    assert str(error.value) == f"{command!r} is not a command from @skippable"


@pytest.mark.parametrize("option", ["stash", "pop"])
def test_a_string_is_no_list_of_names(option):
    with pytest.raises(TypeError, match=rf"^{option} must be a list of names, as in {option}=\['skip'\]"):
        skippable(**{option: "skip"})


def test_a_string_is_no_list_of_names_to_isolate():
    with pytest.raises(TypeError, match=r"^only must be a list of names, as in only=\['skip'\]"):
        Stash().isolate(Namespace(), only="skip")


# --- Where the values are ---

def test_a_failed_forward_leaves_nothing_to_the_next():
    model = nn.Sequential(Stash(), Fails(times=1), Pop())
    with pytest.raises(ArithmeticError):
        model(100 * ONE)
    assert model(ONE) == 3 and nothing_is_left()


def test_a_skippable_layer_that_fails_drops_what_was_stashed():
    with pytest.raises(RuntimeError):
        nn.Sequential(Stash(), does(pop("a"), popped=["a"]))(ONE)
    assert nothing_is_left()


def test_a_forward_in_a_context_of_its_own_sees_and_leaves_nothing():
    Stash()(ONE)
    with skip_context():
        with pytest.raises(RuntimeError, match="'skip' has not been stashed"):
            Pop()(ONE)
    with pytest.raises(ArithmeticError), skip_context():
        nn.Sequential(Stash(), Fails(times=1))(100 * ONE)
    assert Pop()(ONE) == 2 and nothing_is_left()


def test_threads_have_skips_of_their_own():
    outcomes = {}

    def work(name: int, ready: threading.Barrier) -> None:
        x = Stash()(torch.tensor(name))
        ready.wait(30)  # Both have stashed, and neither has popped.
        outcomes[name] = Pop()(x).item()

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=work, args=(name, barrier)) for name in (1, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == {1: 3, 10: 30}


# --- Namespaces ---

def test_namespaces_differ_and_their_copies_do_not():
    one, other = Namespace(), Namespace()
    assert one != other and one != None and (one < other or other < one)  # noqa: E711
    for same in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert same == one and hash(same) == hash(one)


def test_isolated_skips_of_one_name_do_not_meet():
    one, other = Namespace(), Namespace()
    model = nn.Sequential(Stash().isolate(one), Stash().isolate(other), Pop().isolate(one), Pop().isolate(other))
    verify_skippables(model)
    assert model(ONE) == 4 + 1 + 2


def test_some_names_may_be_isolated():
    namespace = Namespace()
    layer = declares(stashed=["a", "b"])
    assert layer.isolate(namespace, only=["b"]) is layer
    assert layer.stashable() == [(None, "a"), (namespace, "b")]


def test_a_copied_model_has_its_skips():
    namespace = Namespace()
    model = copy.deepcopy(nn.Sequential(Stash().isolate(namespace), Pop().isolate(namespace)))
    verify_skippables(model)
    assert model(ONE) == 3


# --- Layouts ---

UNMATCHED = {
    "not popped": ([declares(["a"])], ["no module declared 'a' as poppable but stashed"]),
    "not stashed": ([declares(popped=["a"])], ["'0' declared 'a' as poppable but it was not stashed"]),
    "popped before": ([declares(popped=["a"]), declares(["a"])],
                      ["'0' declared 'a' as poppable but it was not stashed",
                       "no module declared 'a' as poppable but stashed"]),
    "stashed again": ([declares(["a"]), declares(["a"]), declares(popped=["a"])],
                      ["'1' redeclared 'a' as stashable but not isolated by namespace"]),
    "popped again": ([declares(["a"]), declares(popped=["a"]), declares(popped=["a"])],
                     ["'2' redeclared 'a' as poppable but not isolated by namespace"]),
    "both in one": ([declares(["a"], ["a"])], ["'0' declared 'a' both as stashable and as poppable"]),
    "two pairs": ([declares(["a"]), declares(popped=["a"]), declares(["a"]), declares(popped=["a"])],
                  ["'2' redeclared 'a' as stashable but not isolated by namespace",
                   "'3' redeclared 'a' as poppable but not isolated by namespace"]),
    "in a nested one": ([declares(["a"]), nn.Sequential(nn.ReLU(), nn.Sequential(declares(["a"], ["b"])))],
                        ["'1.1.0' redeclared 'a' as stashable but not isolated by namespace",
                         "'1.1.0' declared 'b' as poppable but it was not stashed",
                         "no module declared 'a' as poppable but stashed"]),
}


@pytest.mark.parametrize("case", UNMATCHED)
def test_what_does_not_match_is_told_at_once(case):
    layers, wrong = UNMATCHED[case]
    with pytest.raises(TypeError) as error:
        verify_skippables(nn.Sequential(*layers))
    expected = "".join(f"\n* {line}" for line in wrong)
    assert str(error.value) == f"one or more pairs of stash and pop do not match:\n{expected}"


def test_a_layer_that_is_there_twice_stashes_twice():
    layer = declares(["a"])
    with pytest.raises(TypeError, match="'1' redeclared 'a' as stashable"):
        verify_skippables(nn.Sequential(layer, layer, declares(popped=["a"])))


def test_a_layer_may_pop_one_and_stash_another():
    verify_skippables(nn.Sequential(declares(["a"]), declares(["b"], ["a"]), declares(popped=["b"])))


def test_the_layers_of_each_skip_are_known():
    one, other = Namespace(), Namespace()
    model = nn.Sequential(declares(["a"]).isolate(one), nn.ReLU(), declares(["a", "b"]).isolate(other, only=["a"]),
                          nn.Sequential(declares(popped=["a"]).isolate(other), declares(popped=["b"])),
                          declares(popped=["a"]).isolate(one))
    assert skips_of(model) == [Skip("a", one, 0, 4), Skip("a", other, 2, 3), Skip("b", None, 2, 3)]


def test_unmatched_skips_have_no_layout():
    with pytest.raises(TypeError, match="do not match"):
        skips_of(nn.Sequential(declares(["a"])))


# --- Exported ---

@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_model_computes_the_same(nested, strict):
    model = unet(nested)
    verify_skippables(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of side effects: skips come and go.
        program = torch.export.export(model, (images(2),), dynamic_shapes=({0: torch.export.Dim("batch", max=64)},),
                                      strict=strict)
    assert nothing_is_left()
    results = []
    for each in (program.module(), model):
        output = each(images(5))
        output.square().sum().backward()
        results.append((output, {name: parameter.grad for name, parameter in each.named_parameters()}))
    torch.testing.assert_close(*results)


def test_a_skip_is_a_value_of_the_program():
    """Nothing is computed or copied for it: the one that pops reads what the other has made."""
    program = torch.export.export(nn.Sequential(Stash(), nn.ReLU(), Pop()), (torch.ones(2),))
    operators = [node.target.name() for node in program.graph.nodes if node.op == "call_function"]
    assert operators == ["aten::mul.Tensor", "aten::relu", "aten::add.Tensor"]
    added = next(node for node in program.graph.nodes if node.target is torch.ops.aten.add.Tensor)
    assert added.args[1].op == "placeholder"


def test_a_cluster_trains_it_and_sends_skips_past_the_stages_between(cluster, tmp_path):
    model, inputs = unet(), images(16)
    targets = torch.randn(16, 2, generator=torch.Generator().manual_seed(8))
    save_file({"x": inputs, "y": targets}, tmp_path / "data.safetensors")
    export(model, (inputs[:2],), tmp_path / "model.pt2")
    spec = {"name": "unet", "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"workers": 3, "chunks": 2},
            "train": {"dataset": {"path": "data.safetensors", "inputs": ["x"], "target": "y"}, "batch_size": 8,
                      "steps": 6, "loss": {"mse": {}}, "optimizer": {"sgd": {"lr": 0.02, "momentum": 0.9}}}}
    parts = parts_of(tmp_path, spec, cluster.address)
    balance = [parts // 3, parts // 3, parts - parts // 3 * 2]
    spec["pipeline"] = {"balance": balance, "chunks": 2, "checkpoint": "always"}
    path = write_spec(tmp_path, spec)
    edges = json.loads(gpipe("plan", path, "-o", "json", address=cluster.address).stdout)["plan"]["edges"]
    outermost = [(edge.get("from_stage", 0), edge["to_stage"]) for edge in edges if edge["value"] == "tanh"]
    assert outermost == [(0, 2)], edges
    out = cluster.run(path, tmp_path / "out")

    batches = [slice(first, first + 8) for first in (0, 8)] * 3
    losses = (nn.functional.mse_loss(model(inputs[rows]), targets[rows]) for rows in batches)
    expected, _ = optimise(torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9), losses)
    assert losses_of(out) == pytest.approx(expected, rel=RTOL)
    assert expected[-1] < 0.9 * expected[0]
    expect_model(out, model)
