"""gpipe.GPipe on workers: a program that was written for torchgpipe, or for the model itself, computes what PyTorch
does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from gpipe import GPipe
from gpipe.skip import pop, skippable, stash
from gpipe_models import backward, batch, expect_equal, expect_equal_gradients, network, pair, train

pytestmark = [pytest.mark.usefixtures("workers"), pytest.mark.filterwarnings("ignore:The given buffer is not writable")]

MODES = ("always", "except_last", "never")


def digits(seed=0) -> nn.Sequential:
    """The network of the specification."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, 10))


# --- As PyTorch ---

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1),
}


def test_with_only_the_import_changed():
    torch.manual_seed(1)
    input, target = torch.randn(64, 1024), torch.randint(10, (64,))
    model = GPipe(digits(), balance=[2, 3], devices=list(range(2)), chunks=8)
    expected, outputs = digits(), []
    for each in (model, expected):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        outputs.append(each(input))
        functional.cross_entropy(outputs[-1], target).backward()
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)
    expect_equal_gradients(model, expected, rtol=1e-4, atol=1e-7)
    for each in (model, expected):
        torch.optim.SGD(each.parameters(), lr=0.1).step()
    expect_equal(model, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_after_some_steps(name):
    model, expected = pair(chunks=3)
    for each in (model, expected):
        train(each, OPTIMIZERS[name](each.parameters()), steps=10)
    expect_equal(model, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_an_optimizer_goes_wherever_training_goes_on(name):
    """To samples of another length, which are a new job, and to another program, through what it saves."""
    model, expected = pair(chunks=2)
    optimizers = [OPTIMIZERS[name](each.parameters()) for each in (model, expected)]

    def step(number, length):
        for each, optimizer in zip((model, expected), optimizers):
            generator = torch.Generator().manual_seed(number)
            optimizer.zero_grad()
            each(torch.randn(6, length, 4, generator=generator)).square().mean().backward()
            optimizer.step()
    for number, length in enumerate((3, 3, 5, 3)):
        step(number, length)
    saved = copy.deepcopy((model.state_dict(), optimizers[0].state_dict()))
    model, _ = pair(make=lambda: network(seed=1), chunks=2)
    optimizers[0] = OPTIMIZERS[name](model.parameters())
    model.load_state_dict(saved[0])
    optimizers[0].load_state_dict(saved[1])
    for number in range(4, 6):
        step(number, 3)
    expect_equal(model, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("checkpoint", MODES)
@pytest.mark.parametrize("chunks", range(1, 9))
def test_any_number_of_chunks(chunks, checkpoint):
    """Of seven samples: also as many as there are, and one more."""
    model, expected = pair(chunks=chunks, checkpoint=checkpoint)
    for step in range(2):
        torch.testing.assert_close(backward(model, step), backward(expected, step))
    expect_equal_gradients(model, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("balance", [[5], [1, 4], [2, 2, 1], [1, 1, 1, 1, 1]])
def test_any_balance(balance):
    model, expected = pair(balance=balance, chunks=2)
    for each in (model, expected):
        train(each, torch.optim.SGD(each.parameters(), lr=0.1))
    expect_equal(model, expected, rtol=1e-5, atol=1e-6)


def test_mini_batches_of_any_size():
    model, expected = pair(chunks=4)
    for size in (5, 8, 1, 3, 8, 64):
        input, _ = batch(size, size)
        outputs = [each(input) for each in (model, expected)]
        torch.testing.assert_close(*outputs)
        for output in outputs:
            output.square().sum().backward()
    expect_equal_gradients(model, expected, rtol=1e-5, atol=1e-6)


def test_gradients_of_inputs():
    class Cross(nn.Module):
        def forward(self, both):
            return both[0] * both[1].tanh(), both[1]

    class Join(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, both):
            return self.layer(both[0]) + both[1], both[0].argmax(1)

    def made():
        torch.manual_seed(0)
        return nn.Sequential(Cross(), Join())

    results = []
    for model in (GPipe(made(), [1, 1], chunks=2), made()):
        first, second = (batch(step)[0].requires_grad_() for step in range(2))
        output, index = model((first, second))
        assert output.requires_grad and not index.requires_grad
        output.sum().backward()
        results.append([output.detach(), index, first.grad, second.grad, model[1].layer.weight.grad.clone()])
    for found, expected in zip(*results):
        torch.testing.assert_close(found, expected)


def test_several_forwards_before_a_backward():
    models = pair(chunks=3)
    for model in models:
        outputs = [model(batch(step)[0]) for step in range(4)]
        outputs[1].sum().backward()
        (outputs[0] * outputs[3]).sum().backward()
        del outputs
    expect_equal_gradients(*models, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("checkpoint", MODES)
def test_dropout_is_the_same_when_it_is_computed_again(checkpoint):
    net = nn.Sequential(nn.Linear(16, 32), nn.Dropout(0.5), nn.Linear(32, 32, bias=False))
    with torch.no_grad():
        net[2].weight.copy_(torch.eye(32))  # The output is what the dropout lets through.
    model = GPipe(net, [2, 1], chunks=4, checkpoint=checkpoint)
    input, weight = torch.randn(10, 16), torch.randn(10, 32)
    output = model(input)
    (output * weight).sum().backward()
    passed = (output != 0).float()
    assert 0.3 < passed.mean() < 0.7
    torch.testing.assert_close(model[2].weight.grad.clone(), weight.T @ output.detach())
    torch.testing.assert_close(model[0].weight.grad.clone(), (2 * weight * passed).T @ input)
    assert not torch.equal(model(input), output)


def test_a_seed_gives_the_same_dropout_again():
    outputs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
        with torch.no_grad():
            net[0].bias.fill_(10)
        outputs.append(GPipe(net, [1, 1])(torch.ones(8, 4)) == 0)
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])


def batch_norms() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 6),
                         nn.BatchNorm1d(6, momentum=0.2), nn.Linear(6, 3))


@pytest.mark.parametrize("checkpoint", MODES)
def test_batch_normalisation_sees_one_micro_batch_at_a_time(checkpoint):
    model, expected = pair(batch_norms, (3, 3), chunks=2, checkpoint=checkpoint)
    for step in range(3):
        input, _ = batch(step, 8)
        output = torch.cat([expected(part) for part in input.chunk(2)])
        torch.testing.assert_close(model(input), output, rtol=1e-4, atol=1e-5)
    expect_equal(model, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("checkpoint", MODES)
def test_deferred_batch_normalisation(checkpoint):
    model, expected = pair(batch_norms, (3, 3), chunks=4, checkpoint=checkpoint, deferred_batch_norm=True)
    for step in range(3):
        input, _ = batch(step, 8)
        model(input).sum().backward()
        expected[:2](input)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(model[1], name).clone(), getattr(expected[1], name), rtol=1e-4, atol=1e-4)


def test_evaluation():
    models = pair(lambda: nn.Sequential(*batch_norms(), nn.Dropout(0.5)), (3, 4), chunks=3)
    for _ in range(2):
        for model in models:
            model.eval()
        with torch.no_grad():
            torch.testing.assert_close(*(model(batch()[0]) for model in models), rtol=1e-4, atol=1e-5)
        assert not models[0](batch()[0]).requires_grad
        models[0].train(), models[1].train()
        models[0](batch()[0])
        models[1].load_state_dict({name.split(".", 2)[2]: tensor for name, tensor in models[0].state_dict().items()})


def test_without_gradients_in_training():
    models = pair(chunks=2)
    with torch.no_grad():
        torch.testing.assert_close(*(model(batch()[0]) for model in models))
    backward(models[0]), backward(models[1])
    expect_equal_gradients(*models, rtol=1e-5, atol=1e-6)


def test_casts():
    model, expected = pair()
    for each in (model.double(), expected.double()):
        each(batch()[0].double()).sum().backward()
    expect_equal_gradients(model, expected)


@pytest.mark.parametrize("change", ["clip", "penalty", "values", "optimizer"])
def test_what_is_done_here_is_done_there(change):
    models = pair(chunks=2)
    for model in models:
        make = torch.optim.RMSprop if change == "optimizer" else torch.optim.SGD
        optimizer = make(model.parameters(), lr=0.05)
        for step in range(3):
            optimizer.zero_grad()
            backward(model, step)
            if change == "penalty":
                sum(parameter.abs().sum() for parameter in model.parameters()).backward()
            if change == "clip":
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            if change == "values":
                with torch.no_grad():
                    model[0].weight.clamp_(-0.1, 0.1)
    expect_equal(*models, rtol=1e-5, atol=1e-6)


def test_gradients_of_torch_autograd_grad():
    models, found = pair(chunks=2), []
    for model in models:
        backward(model)
        input = batch(1)[0].requires_grad_()
        found.append(torch.autograd.grad(model(input).sum(), input)[0])
        backward(model, 2)
    torch.testing.assert_close(*found)
    expect_equal_gradients(*models, rtol=1e-5, atol=1e-6)


def test_a_tied_weight_within_a_child():
    def made():
        torch.manual_seed(0)
        child = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        child[1].weight = child[0].weight
        return nn.Sequential(child, nn.Linear(4, 3))

    models = pair(made, (1, 1), chunks=2)
    for model in models:
        train(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
        with torch.no_grad():
            model[0][1].weight.mul_(0.5)
        train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    expect_equal(*models, rtol=1e-5, atol=1e-6)


@skippable(stash=["skip"])
class Stashes(nn.Conv2d):
    def forward(self, input):
        yield stash("skip", input)
        return super().forward(input)


@skippable(pop=["skip"])
class Pops(nn.Conv2d):
    def forward(self, input):
        skip = yield pop("skip")
        return super().forward(input) + skip


class Residual(nn.Module):
    """Writes to its input, as blocks do that begin with their activation."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 3, 3, padding=1), nn.GroupNorm(1, 3))

    def forward(self, input):
        return input + self.inner(input)


NETWORKS = {
    "skips": lambda: nn.Sequential(Stashes(3, 3, 1), nn.Conv2d(3, 3, 1), Pops(3, 3, 1)),
    "residuals": lambda: nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), Residual(), Residual()),
    "attention": lambda: nn.Sequential(nn.Flatten(2), *(nn.TransformerEncoderLayer(64, 4, 32, 0.0, batch_first=True)
                                                        for _ in range(2))),
}


@pytest.mark.parametrize("checkpoint", MODES)
@pytest.mark.parametrize("balance", [[3], [1, 2], [2, 1], [1, 1, 1]])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, balance, checkpoint):
    def made():
        torch.manual_seed(0)
        return NETWORKS[name]()

    models, gradients = pair(made, balance, chunks=3, checkpoint=checkpoint), []
    for model in models:
        input = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
        model(input * 2).norm().backward()
        gradients.append(input.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    expect_equal_gradients(*models, rtol=1e-4, atol=1e-5)


# --- As torchgpipe ---

class Partitions(nn.Module):
    """What torchgpipe's GPipe is to a state_dict()."""

    def __init__(self, *partitions: nn.Module):
        super().__init__()
        self.partitions = nn.ModuleList(partitions)


def test_a_state_dict_is_that_of_torchgpipe():
    model = GPipe(network(), [2, 3])
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    other = network(1)
    like = Partitions(nn.Sequential(*other[:2]), nn.Sequential())
    for name, child in list(other.named_children())[2:]:
        like.partitions[1].add_module(name, child)
    like.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(batch()[0]), model(batch()[0]))
    with torch.no_grad():
        other[0].weight.mul_(2)
    model.load_state_dict(like.state_dict())
    torch.testing.assert_close(other(batch()[0]), model(batch()[0]))
