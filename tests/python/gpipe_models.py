"""What tests of gpipe.GPipe share: a small network, its training, and comparisons with PyTorch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from gpipe import GPipe


def network(seed=0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def pair(make=network, balance=(2, 3), **options) -> tuple[GPipe, nn.Sequential]:
    """A model, and the same in PyTorch."""
    return GPipe(make(), balance, **options), make()


def batch(step=0, size=7):
    generator = torch.Generator().manual_seed(100 + step)
    return torch.randn(size, 4, generator=generator), torch.randint(3, (size,), generator=generator)


def backward(model: nn.Module, step=0) -> torch.Tensor:
    input, target = batch(step)
    loss = functional.cross_entropy(model(input), target)
    loss.backward()
    return loss.detach()


def train(model: nn.Module, optimizer, steps=3, before_step=lambda: None) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        backward(model, step)
        before_step()
        optimizer.step()


def expect_equal(model: GPipe, expected: nn.Module, rtol=1e-6, atol=1e-7) -> None:
    """Parameters and buffers."""
    found = {name.split(".", 2)[2]: tensor for name, tensor in model.state_dict().items()}
    assert found.keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=rtol, atol=atol, msg=lambda text: f"{name}: {text}")


def expect_equal_gradients(model: GPipe, expected: nn.Module, rtol=1e-6, atol=1e-7) -> None:
    """Of all parameters."""
    for found, parameter in zip(model.parameters(), expected.parameters()):
        if parameter.grad is None:
            assert found.grad is None
        else:
            torch.testing.assert_close(found.grad.detach(), parameter.grad, rtol=rtol, atol=atol)
