"""Passes and gradients of gpipe.GPipe, without workers (stand_in.py): when something is asked for, fetched or sent."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from gpipe import GPipe
from gpipe_models import backward, batch, expect_equal, expect_equal_gradients, network, pair, train

pytestmark = pytest.mark.usefixtures("sessions")


# --- Gradients ---

def test_gradients_are_fetched_when_they_are_looked_at(sessions):
    models = pair()
    for model in models:
        backward(model)
    assert all(parameter.grad is not None for parameter in models[0].parameters())
    assert sessions[0].log == ["forward", "backward"]
    expect_equal_gradients(*models)
    assert sessions[0].log == ["forward", "backward", "get_gradients"]
    gradient = models[0][0].weight.grad
    for model in models:
        backward(model, 1)
    assert models[0][0].weight.grad is gradient
    expect_equal_gradients(*models)


def clip(model):
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)


def clip_through_data(model):
    for parameter in model.parameters():
        parameter.grad.data.clamp_(-0.01, 0.01)


def assign(model):
    for parameter in model.parameters():
        parameter.grad = parameter.grad * 0.5


def zero_in_place(model):
    model.zero_grad(set_to_none=False)
    backward(model, 5)


def zero_one(model):
    model[0].weight.grad = None
    backward(model, 5)


def cancel_one(model):
    """The step leaves it alone, with its momentum."""
    model[2].weight.grad = None


def penalise(model):
    (0.1 * sum(parameter.square().sum() for parameter in model.parameters())).backward()


@pytest.mark.parametrize("change", [clip, clip_through_data, assign, zero_in_place, zero_one, cancel_one,
                                    penalise])
def test_gradients_that_are_changed_here_are_what_a_step_takes(sessions, change):
    models = pair()
    for model in models:
        train(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), before_step=lambda: change(model))
    expect_equal(*models)
    assert sessions[0].log.count("update") == 3


def test_a_gradient_that_somebody_holds_outlives_its_zeroing():
    models = pair()
    for model in models:
        backward(model)
        held = [parameter.grad for parameter in model.parameters()]
        model.zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())
        backward(model, 1)
        for parameter, gradient in zip(model.parameters(), held):
            parameter.grad.add_(gradient)
    expect_equal_gradients(*models)


def test_no_gradient_where_pytorch_has_none(sessions):
    def made():
        net = network()
        net[0].bias.requires_grad_(False)
        return net

    models = pair(made)
    assert all(parameter.grad is None for parameter in models[0].parameters())
    for model in models:
        backward(model)
    expect_equal_gradients(*models)
    assert models[0][0].bias.grad is None


def test_torch_autograd_grad_leaves_the_parameters_alone(sessions):
    for accumulated in (False, True):
        models = pair()
        found = []
        for model in models:
            if accumulated:
                backward(model)
            input = batch()[0].requires_grad_()
            found.append(torch.autograd.grad(model(input).sum(), input)[0])
        torch.testing.assert_close(*found)
        expect_equal_gradients(*models)


def test_parameters_are_frozen_and_thawed_within_a_loop(sessions):
    """As generators and discriminators are, in turn."""
    models = pair()
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(6):
            model.requires_grad_(step % 3 != 0)
            model[2].weight.requires_grad_(step % 2 == 0)
            input = batch(step)[0].requires_grad_()
            model(input).square().sum().backward()
            if step % 2:
                optimizer.step()
            if step % 4 == 3:
                optimizer.zero_grad()
        model.requires_grad_()
    expect_equal(*models)
    expect_equal_gradients(*models)
    assert len(sessions) == 2  # Of which the second one was opened for the parameters, or for the optimizer.


def test_gradients_of_inputs(sessions):
    gradients, models = [], pair()
    for model in models:
        plain, input = batch()[0], batch(1)[0].requires_grad_()
        model(plain).sum().backward()
        (model(input * 2) ** 2).sum().backward()
        gradients.append(input.grad)
    torch.testing.assert_close(*gradients)
    # The first session was opened without them.
    assert [session.ended for session in sessions] == [True, False]


# --- Passes ---

def test_several_forwards_before_a_backward(sessions):
    models = pair()
    for model in models:
        first, second, third = (model(batch(step)[0]) for step in range(3))
        (first.sum() + (second * third).sum()).backward()
    assert sessions[0].log == ["forward"] * 3 + ["backward"] * 3
    expect_equal_gradients(*models)


def test_what_is_not_differentiated_is_dropped(sessions):
    model, expected = pair()
    output = model(batch()[0])
    del output
    assert sessions[0].log == ["forward", "drop"]
    with torch.no_grad():
        assert not model(batch()[0]).requires_grad
    assert sessions[0].log == ["forward", "drop"] * 2
    loss = model(batch()[0]).sum()
    loss.backward()
    del loss
    gc.collect()
    assert sessions[0].log[4:] == ["forward", "backward"]


@pytest.mark.parametrize("retain", [False, True])
def test_a_second_backward_is_refused(retain):
    model, _ = pair()
    output = model(batch()[0]).sum()
    output.backward(retain_graph=retain)
    with pytest.raises(RuntimeError, match="[Tt]rying to backward through the (graph|model) a second time"):
        output.backward()


def test_a_model_without_parameters_to_train_requires_no_gradient():
    model, _ = pair()
    model.requires_grad_(False)
    assert not model(batch()[0]).requires_grad
    assert model(batch()[0].requires_grad_()).requires_grad


def test_evaluation(sessions):
    def made():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=0.5), nn.Dropout(0.5), nn.Linear(6, 3))

    # Whatever comes first, there is one job.
    model, expected = GPipe(made(), [2, 2]), made()
    model.eval(), expected.eval()
    with pytest.raises(AssertionError, match="no evaluation"):  # The workers' business.
        model(batch()[0])
    assert sessions[0].log == ["predict"]
    model.train()
    backward(model)
    assert len(sessions) == 1


def test_kinds_of_values(sessions):
    class Cross(nn.Module):
        def forward(self, both):
            return both[0] * both[1], both[0].argmax(1)

    both = (torch.randn(3, 4, requires_grad=True), torch.randn(3, 4))
    model = GPipe(nn.Sequential(Cross(), PairOfLayers()), [1, 1])
    output, index = model(both)
    assert output.requires_grad and not index.requires_grad and index.dtype == torch.int64
    output.sum().backward()
    assert both[0].grad is not None


class PairOfLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, both):
        return self.layer(both[0]), both[1]


class Interrupted(Exception):
    """Stands for a Ctrl-C, which a test would not survive everywhere."""


def test_a_backward_that_nobody_waited_for_leaves_nothing(sessions, monkeypatch):
    """Workers have added to the gradients all the same."""
    model, expected = pair()
    model(batch()[0])
    whole = sessions[0].backward

    def cut_off(*args):
        whole(*args)
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(sessions[0], "backward", cut_off)
        with pytest.raises(Interrupted):
            backward(model)
    for one in (model, expected):
        one.zero_grad()
        backward(one, 1)
    expect_equal_gradients(model, expected)


def test_a_gradient_that_was_seen_is_old_after_a_backward_that_nobody_waited_for(sessions, monkeypatch):
    model, expected = pair()
    backward(model)
    assert model[0].weight.grad.norm() > 0
    whole = sessions[0].backward
    monkeypatch.setattr(sessions[0], "backward", lambda *args: [whole(*args), 1 / 0])
    with pytest.raises(ZeroDivisionError):
        backward(model, 1)
    for step in (0, 1):
        backward(expected, step)
    expect_equal_gradients(model, expected)
