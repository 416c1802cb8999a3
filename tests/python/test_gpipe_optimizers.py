"""Optimizers of gpipe.GPipe's parameters, without workers (stand_in.py): whose steps are made there, and whose here."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from gpipe import GPipe
from gpipe_models import backward, expect_equal, expect_equal_gradients, pair, train

pytestmark = pytest.mark.usefixtures("sessions")


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, betas=(0.8, 0.9)),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=torch.tensor(0.01), weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_made_on_workers_and_nothing_is_fetched(sessions, name):
    model, expected = pair()
    train(model, OPTIMIZERS[name](model.parameters()))
    train(expected, OPTIMIZERS[name](expected.parameters()))
    (session,) = sessions
    assert session.log == (["forward", "backward", "update", "zero_gradients"] * 3)[:-1]
    expect_equal(model, expected)
    assert session.log[-1] == "get_state"
    model.state_dict()
    assert session.log.count("get_state") == 1


def test_schedulers_set_the_learning_rate_also_to_zero(sessions):
    models = pair()
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step * 0.5)
        for step in range(3):
            train(model, optimizer, 1)
            scheduler.step()
    expect_equal(*models)
    assert len(sessions) == 1


LOCAL = {
    "another optimizer": (lambda model: torch.optim.RMSprop(model.parameters(), lr=0.01), "has no optimizer RMSprop"),
    "an option": (lambda model: torch.optim.Adam(model.parameters(), amsgrad=True), "has amsgrad=True"),
    "two groups": (lambda model: torch.optim.SGD([
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2]}], lr=0.1), "same options for all parameters"),
    "some parameters": (lambda model: torch.optim.SGD([*model[0].parameters()], lr=0.1), "not got all of the model's"),
    "momentum that is scheduled": (lambda model: torch.optim.lr_scheduler.OneCycleLR(
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5), 1.0, 10).optimizer, "has max_momentum="),
}


@pytest.mark.parametrize("case", LOCAL)
def test_other_steps_are_made_here(sessions, case):
    make, words = LOCAL[case]
    model, expected = pair()
    with pytest.warns(UserWarning, match=words) as warned:
        train(model, make(model))
    assert len(warned) == 1
    train(expected, make(expected))
    expect_equal(model, expected)
    assert "update" not in sessions[0].log


def test_an_optimizer_that_comes_late_costs_a_second_job(sessions):
    models = pair()
    for model in models:
        backward(model, 0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        backward(model, 1)
        optimizer.step()
        train(model, optimizer)
    assert [session.ended for session in sessions] == [True, False]
    expect_equal(*models)


def test_a_new_optimizer_begins_anew(sessions):
    models = pair()
    for model in models:
        train(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
        train(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    expect_equal(*models)
    assert len(sessions) == 1


def test_closures():
    models = pair()
    for model in models:
        for optimizer in (torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.LBFGS(model.parameters(), lr=0.1)):
            def closure():
                optimizer.zero_grad()
                return backward(model)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                losses = [float(optimizer.step(closure)) for _ in range(2)]
            assert losses[1] < losses[0]
    expect_equal(*models)


def test_one_optimizer_of_two_models_and_of_a_module_here(sessions):
    losses = []
    for pipelined in (True, False):
        torch.manual_seed(0)
        first, second, head = nn.Sequential(nn.Linear(4, 6)), nn.Sequential(nn.Linear(6, 4)), nn.Linear(4, 3)
        if pipelined:
            first, second = GPipe(first, [1]), GPipe(second, [1])
        whole = nn.Sequential(first, nn.Tanh(), second, head)
        optimizer = torch.optim.AdamW(whole.parameters(), lr=0.01)
        for step in range(3):
            optimizer.zero_grad()
            losses.append(backward(whole, step))
            optimizer.step()
    torch.testing.assert_close(losses[:3], losses[3:])
    assert all(session.log.count("update") == 3 for session in sessions[-2:])


def test_the_model_makes_an_optimizer_that_workers_have():
    model, expected = pair()
    train(model, model.optimizer(torch.optim.AdamW, lr=0.01))
    train(expected, torch.optim.AdamW(expected.parameters(), lr=0.01))
    expect_equal(model, expected)
    with pytest.raises(ValueError, match="no optimizer RMSprop"):
        model.optimizer(torch.optim.RMSprop)


def test_gradients_that_are_set_before_the_first_pass(sessions):
    models = pair()
    for model in models:
        optimizer = torch.optim.Adam(model.parameters())
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        train(model, optimizer)
    expect_equal(*models)
    assert sessions[0].log.count("update") == 3


def test_a_step_that_fails_hides_no_gradient(sessions):
    models = pair()
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        backward(model)
        hook = optimizer.register_step_post_hook(lambda *_: 1 / 0) if model is models[1] else (
            optimizer.register_step_pre_hook(lambda *_: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            optimizer.step()
        hook.remove()
        assert model[0].weight.grad is not None
        optimizer.zero_grad()
        assert model[0].weight.grad is None
        backward(model, 1)
    expect_equal_gradients(*models)
