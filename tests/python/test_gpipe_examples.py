"""gpipe.GPipe with the networks of torchgpipe's examples, on workers: what they compute and learn is what PyTorch does.

PyTorch has one thread here, as each worker has, so that sums within an operator have one order. One step is compared:
these networks are deep, have random weights and normalise few values, so that in the next one ReLUs flip by a last bit
of the weights, in PyTorch alone, too."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn
from torch.nn import functional

from gpipe import GPipe
from gpipe.balance import balance_by_time
from torchgpipe_models import amoebanet_d, resnet101, unet

pytestmark = [pytest.mark.usefixtures("workers", "one_thread"),
              pytest.mark.filterwarnings("ignore:The given buffer is not writable")]

LR = 0.1
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seeded(make) -> nn.Sequential:
    torch.manual_seed(0)
    return make()


def photos(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, size, size, generator=generator), torch.randint(2, (8,), generator=generator)


def learn(model: nn.Module, size: int, chunks: int) -> tuple[Tensors, Tensors]:
    """Outputs before and after a step of SGD, with what has become of the model; and gradients."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    input, target = photos(size)
    output = in_chunks(model, input.requires_grad_(), chunks)
    functional.cross_entropy(output, target).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    optimizer.step()
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        after = model.eval()(input)
    return {"output": output.detach(), "after": after, **in_order(values)}, {"input": input.grad, **in_order(gradients)}


def in_chunks(model: nn.Module, input: torch.Tensor, chunks: int) -> torch.Tensor:
    """Batch normalisation sees one micro-batch at a time."""
    return model(input) if isinstance(model, GPipe) else torch.cat([model(part) for part in input.chunk(chunks)])


def in_order(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """By names without partitions."""
    return {name.split(".", 2)[2] if name.startswith("partitions.") else name: tensor
            for name, tensor in tensors.items()}


def expect_pytorch(make, size: int, balance: list[int], chunks: int, checkpoint: str = "except_last") -> None:
    """Within 1e-5 of a tensor's maximum, and 1e-6 of the largest gradient, as some gradients are sums of nearly
    nothing."""
    values, gradients = learn(GPipe(seeded(make), balance, chunks=chunks, checkpoint=checkpoint), size, chunks)
    expected_values, expected_gradients = learn(seeded(make), size, chunks)
    slack = 1e-6 * max(gradient.abs().max().item() for gradient in expected_gradients.values())
    expect_close(gradients, expected_gradients, slack)
    expect_close(values, expected_values, LR * slack)


def expect_close(found: Tensors, expected: Tensors, slack: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5 * tensor.abs().max().item() + slack,
                                   msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize("checkpoint", ["always", "except_last", "never"])
def test_u_net(checkpoint):
    """Each skip goes to another stage, two of them past the one between."""
    expect_pytorch(unet, 16, [2, 2, 5], 3, checkpoint)


def test_resnet_101_cut_by_time():
    """Wherever that is, also at a ReLU that writes to what another stage has made, or within a block, whose skip then
    goes to the next stage."""
    def make():
        return resnet101(inplace=True)

    balance = balance_by_time(3, seeded(make), photos(64)[0], timeout=0.2)
    expect_pytorch(make, 64, balance, chunks=2)


# Stages begin at the layer that keeps its input for the next cell; at what a cell does first, and at the concatenation
# of its states, which come in a tuple; and at its operations, past whose stage a skip goes.
CUTS = [([14, 8], 2, "always"), ([11, 6, 5], 4, "except_last"), ([12, 3, 7], 3, "never")]


@pytest.mark.parametrize("balance,chunks,checkpoint", CUTS)
def test_amoebanet_d(balance, chunks, checkpoint):
    """A concatenation's gradient is in PyTorch a part of a larger tensor, and in the stage before it a tensor of its
    own, which batch normalisation adds up in another order."""
    expect_pytorch(amoebanet_d, 32, balance, chunks, checkpoint)
