"""gpipe.GPipe with layers that write to what they compute with, with outputs by two names, and with parameters that
several workers have: what is computed again, and what is added up, is PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gpipe import GPipe
from gpipe_models import expect_equal, expect_equal_gradients

pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


class Drifting(nn.Module):
    """Has another factor in each forward pass of training, as spectral norm's estimate has."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("factor", torch.ones(4))

    def forward(self, input):
        output = torch.tanh(self.linear(input) * self.factor.clone())
        if self.training:
            self.factor.mul_(1.5)
        return output


class Twice(nn.Module):
    def forward(self, input):
        return input, input


def inputs(step: int, size: int = 6) -> torch.Tensor:
    return torch.randn(size, 4, generator=torch.Generator().manual_seed(step))


def drifting() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Drifting(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.mark.parametrize("first", [0, 1])
def test_each_forward_is_computed_again_from_what_it_saw(first):
    """With two of them open, in either order of their backward passes."""
    expected = drifting()
    model = GPipe(drifting(), [2, 2], chunks=1, checkpoint="always")
    for step in range(3):
        for one in (model, expected):
            outputs = [one(inputs(2 * step + i)) for i in range(2)]
            for i in (first, 1 - first):
                outputs[i].square().sum().backward()
        expect_equal_gradients(model, expected, **CLOSE)
    expect_equal(model, expected, **CLOSE)


def embedding() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(6, 4, max_norm=0.5), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.mark.parametrize("checkpoint", ["always", "except_last", "never"])
def test_parameters_that_a_forward_writes_to_are_trained_on(checkpoint):
    expected = embedding()
    model = GPipe(embedding(), [2, 2], chunks=2, checkpoint=checkpoint)
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.5) for one in (model, expected)]
    for step in range(4):
        words = torch.randint(6, (6, 3), generator=torch.Generator().manual_seed(step))
        for one, optimizer in zip((model, expected), optimizers):
            optimizer.zero_grad()
            one(words).square().mean().backward()
            optimizer.step()
    expect_equal(model, expected, **CLOSE)


def test_an_output_by_two_names_gets_both_gradients():
    def made():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), Twice())

    expected = made()
    model = GPipe(made(), [2, 2], chunks=2)
    for one in (model, expected):
        first, second = one(inputs(0))
        (first.sum() + second.square().sum()).backward()
        first, second = one(inputs(1))
        second.sum().backward()
    expect_equal_gradients(model, expected, **CLOSE)


def tie(model):
    model[4].weight = model[0].weight


def test_gradients_of_a_parameter_that_two_workers_have_are_there_once():
    """Also where they were clipped here, and where more is added to them after a step."""
    def made():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))

    expected = made()
    model = GPipe(made(), [2, 3], chunks=2)
    for one in (model, expected):
        tie(one)
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        for step in range(4):
            one(inputs(step)).square().sum().backward()  # Nothing is zeroed.
            if step == 1:
                nn.utils.clip_grad_norm_(one.parameters(), 0.5)
            optimizer.step()
    expect_equal_gradients(model, expected, **CLOSE)
    for found, parameter in zip(model.parameters(), expected.parameters()):
        torch.testing.assert_close(found.detach(), parameter.detach(), **CLOSE)
