"""The state of an optimizer of gpipe.GPipe's parameters, without workers (stand_in.py): PyTorch's, wherever it is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gpipe import Error, GPipe
from gpipe_models import backward, expect_equal, pair, train

pytestmark = pytest.mark.usefixtures("sessions")

OPTIMIZERS = {
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, betas=(0.8, 0.9)),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=torch.tensor(0.01), weight_decay=0.1),
}


def test_an_optimizer_that_has_state_goes_on_from_it(sessions):
    model, expected = pair()
    first = torch.optim.Adam(expected.parameters())
    train(expected, first)
    model.load_state_dict({f"partitions.{i}.{name}": tensor for i, names in enumerate((("0.",), ("2.", "4.")))
                           for name, tensor in expected.state_dict().items() if name.startswith(names)})
    resumed = torch.optim.Adam(model.parameters())
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    train(model, resumed)
    train(expected, first)
    expect_equal(model, expected)
    assert sessions[0].log.count("update") == 3 and not resumed.state


def expect_same_state(found, expected):
    found, expected = found.state_dict()["state"], expected.state_dict()["state"]
    assert found.keys() == expected.keys()
    for number, slots in expected.items():
        assert found[number].keys() == slots.keys()
        for slot, tensor in slots.items():
            torch.testing.assert_close(found[number][slot], tensor)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_is_in_the_state_dict_and_stays_on_workers(sessions, name):
    models = pair()
    optimizers = [OPTIMIZERS[name](model.parameters()) for model in models]
    for step in range(2):
        for model, optimizer in zip(models, optimizers):
            train(model, optimizer)
        expect_same_state(*optimizers)
    assert sessions[0].log.count("get_optimizer") == 2 and not any("set_optimizer" in line for line in sessions[0].log)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_follows_to_a_new_job(sessions, name):
    """Samples of another size, settings that change, a model that was closed."""
    models = [GPipe(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), [1, 2]),
              nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))]
    models[1].load_state_dict({name.split(".", 2)[2]: tensor for name, tensor in models[0].state_dict().items()})
    for model in models:
        optimizer = OPTIMIZERS[name](model.parameters())
        for step, words in enumerate((5, 5, 7, 7, 5, 5)):
            if step == 3:
                optimizer.param_groups[0]["weight_decay"] = 0.2
            if step == 5 and isinstance(model, GPipe):
                model.close()
            optimizer.zero_grad()
            generator = torch.Generator().manual_seed(step)
            model(torch.randn(2, words, 4, generator=generator)).square().mean().backward()
            optimizer.step()
    assert len(sessions) == 5  # Settings that change cost one, too.
    expect_equal(*models)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_that_makes_its_steps_here_takes_its_state_along(sessions, name):
    models = pair()
    for model in models:
        optimizer = OPTIMIZERS[name](model.parameters())
        train(model, optimizer)
        optimizer.param_groups[0]["maximize"] = True
        if isinstance(model, GPipe):
            with pytest.warns(UserWarning, match="makes its steps in this process"):
                train(model, optimizer)
        else:
            train(model, optimizer)
        optimizer.param_groups[0]["maximize"] = False
        train(model, optimizer)
    expect_equal(*models)
    assert sessions[0].log.count("update") == 6


def test_the_state_of_one_optimizer_is_not_that_of_the_next(sessions):
    models = pair()
    for model in models:
        first, second = (OPTIMIZERS["adam"](model.parameters()) for _ in range(2))
        for optimizer in (first, second, first, second):
            train(model, optimizer)
        second.load_state_dict(OPTIMIZERS["adam"](model.parameters()).state_dict())  # Which has none.
        train(model, second)
    expect_equal(*models)
    assert len(sessions) == 1


def test_a_layer_that_is_replaced_begins_without_state(sessions):
    models = pair()
    for model in models:
        optimizer = OPTIMIZERS["adam"](model.parameters())
        train(model, optimizer)
        torch.manual_seed(3)
        new = nn.Linear(4, 6)
        (model.partitions[0] if isinstance(model, GPipe) else model)[0] = new
        optimizer.add_param_group({"params": list(new.parameters()), **OPTIMIZERS["adam"](new.parameters()).defaults})
        train(model, optimizer)
    expect_equal(*models)
    assert len(sessions) == 1


def test_parameters_that_are_not_trained_keep_their_state_here(sessions):
    models = pair()
    saved = OPTIMIZERS["adam"](models[1].parameters())
    train(models[1], saved)
    saved = copy.deepcopy(saved.state_dict())
    optimizers = []
    for model in models:
        optimizers.append(OPTIMIZERS["adam"](model.parameters()))
        optimizers[-1].load_state_dict(copy.deepcopy(saved))
        model.load_state_dict(model.state_dict() if model is models[1] else {
            name: models[1].state_dict()[name.split(".", 2)[2]] for name in model.state_dict()})
        model[0].requires_grad_(False)
    for trains in (False, True):
        for model, optimizer in zip(models, optimizers):
            model[0].requires_grad_(trains)
            train(model, optimizer)
        expect_same_state(*optimizers)
    expect_equal(*models)


def test_what_is_set_here_is_newer(sessions):
    models = pair()
    for model in models:
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        train(model, optimizer)
        for close in (False, True):
            optimizer.state[model[0].weight] = {"momentum_buffer": torch.ones(6, 4)}
            if close and isinstance(model, GPipe):
                model.close()
            train(model, optimizer)
    expect_equal(*models)


def test_nothing_is_lost_when_it_cannot_be_sent(sessions, monkeypatch):
    models = pair()
    for model in models:
        optimizer = OPTIMIZERS["adam"](model.parameters())
        train(model, optimizer)
        saved = copy.deepcopy(optimizer.state_dict())
        optimizer = OPTIMIZERS["adam"](model.parameters())
        optimizer.load_state_dict(saved)
        if isinstance(model, GPipe):
            with monkeypatch.context() as patch:
                patch.setattr(sessions[0], "set_state", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
                with pytest.raises(OSError, match="no space left"):
                    optimizer.step()
        train(model, optimizer)
    expect_equal(*models)


def test_a_slot_without_a_value_is_none(sessions):
    models = pair()
    optimizers = [OPTIMIZERS["momentum"](model.parameters()) for model in models]
    for model, optimizer in zip(models, optimizers):
        optimizer.state[model[0].weight] = {"momentum_buffer": None}
        train(model, optimizer)
    expect_same_state(*optimizers)
    expect_equal(*models)


def test_state_that_is_lost_with_the_workers_is_told(sessions):
    model, expected = pair()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    for ends in (lambda: model.close(), lambda: backward(model)):
        train(model, optimizer)
        model.state_dict(), [parameter.grad.sum() for parameter in model.parameters()]
        sessions[-1].fail()
        with pytest.warns(UserWarning, match="workers were lost, and with them the state of Adam, which begins anew"):
            ends()


def test_state_that_has_gone_with_its_model_is_no_empty_state(sessions):
    model, _ = pair()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    train(model, optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    del model
    with pytest.raises(Error, match="the state of Adam was on workers, and the model whose workers they were is gone"):
        optimizer.state_dict()
    optimizer.load_state_dict(saved)
    assert len(optimizer.state_dict()["state"]) == 6


def test_a_layer_that_is_in_no_group_any_more(sessions):
    models = pair()
    optimizers = []
    for model in models:
        optimizers.append(OPTIMIZERS["adam"](model.parameters()))
        train(model, optimizers[-1])
        old = list(model[0].parameters())
        (model.partitions[0] if isinstance(model, GPipe) else model)[0] = nn.Linear(4, 6)
        optimizers[-1].param_groups[0]["params"] = list(model.parameters())[2:]
        for parameter in old:
            optimizers[-1].state.pop(parameter, None)
    expect_same_state(*optimizers)


@pytest.mark.parametrize("state, words", [
    ({"step": torch.tensor(1.0)}, "its state has step, and the cluster's exp_avg, exp_avg_sq, step"),
    ({"step": torch.tensor(1.0), "exp_avg": torch.ones(3, 3), "exp_avg_sq": torch.ones(3, 3)},
     "its exp_avg has another shape than the parameter")])
def test_state_that_workers_cannot_have_is_used_here(sessions, state, words):
    """With PyTorch's own error."""
    model, _ = pair()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    optimizer.state[model[0].weight] = state
    optimizer.state["note"] = 3  # Which nobody looks at.
    with pytest.raises((KeyError, RuntimeError)), pytest.warns(UserWarning, match=words):
        train(model, optimizer)
