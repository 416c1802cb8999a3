"""Parameters and buffers of gpipe.GPipe, without workers (stand_in.py): fetched when they are looked at, sent when they
are written, and what is left when a session ends."""

from __future__ import annotations

import copy
import io
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional

from gpipe import Error, GPipe
from gpipe._gpipe.proxies import Mirrored
from gpipe_models import backward, batch, expect_equal, expect_equal_gradients, network, pair, train

pytestmark = pytest.mark.usefixtures("sessions")


# --- Values ---

def clip_values(model):
    for parameter in model.parameters():
        parameter.data.clamp_(-0.2, 0.2)


def step_by_hand(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad


def draw_again(model):
    torch.manual_seed(1)
    nn.init.normal_(model[0].weight)


def through_numpy(model):
    model[0].bias.data.numpy()[:] = 0.5


def replace(model):
    torch.manual_seed(1)
    model[0].bias = nn.Parameter(torch.randn(6))


@pytest.mark.parametrize("change", [clip_values, step_by_hand, draw_again, through_numpy, replace])
def test_values_that_are_written_here_are_those_of_the_next_pass(sessions, change):
    models = pair()
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train(model, optimizer, 1)
        change(model)
        train(model, optimizer if change is not replace else torch.optim.SGD(model.parameters(), lr=0.1), 2)
    expect_equal(*models)


def test_only_what_was_written_is_sent(sessions):
    model, _ = pair()
    backward(model)
    with torch.no_grad():
        model[0].bias.add_(1)
    backward(model)
    backward(model)
    assert [line for line in sessions[0].log if line.startswith("set")] == ["set_state 0.bias"]


def test_a_module_of_the_model_computes_here_with_the_newest_values(sessions):
    model, expected = pair()
    for each in (model, expected):
        train(each, torch.optim.SGD(each.parameters(), lr=0.1))
    input = batch()[0]
    with torch.no_grad():
        torch.testing.assert_close(model[0](input), expected[0](input))
    assert sessions[0].log[-1] == "get_state"


def test_what_describes_a_parameter_fetches_nothing(sessions):
    model, _ = pair()
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), 1)
    asked = len(sessions[0].log)
    for parameter in model.parameters():
        assert isinstance(parameter, nn.Parameter) and parameter.is_leaf and parameter.requires_grad
        assert len(parameter.shape) == parameter.dim() and parameter.numel() == parameter.shape.numel()
        assert parameter.dtype == torch.float32 and parameter.device.type == "cpu" and len(parameter) > 0
    assert len(sessions[0].log) == asked


def test_buffers_are_fetched_too(sessions):
    def made():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))

    models = pair(made, (1, 2))
    for model in models:
        backward(model)
    torch.testing.assert_close(models[0][1].running_mean.clone(), models[1][1].running_mean)
    expect_equal(*models)


def test_a_state_dict_goes_there_and_back(sessions):
    model, expected = pair()
    assert list(model.state_dict()) == ["partitions.0.0.weight", "partitions.0.0.bias", "partitions.1.2.weight",
                                        "partitions.1.2.bias", "partitions.1.4.weight", "partitions.1.4.bias"]
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), 1)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), 1)
    fetched = sessions[-1].log.count("get_state")
    model.load_state_dict(kept)
    assert sessions[-1].log.count("get_state") == fetched  # All of it is written anyway.
    other = GPipe(network(1), [2, 3])
    other.load_state_dict(kept)
    torch.testing.assert_close(model(batch()[0]), other(batch()[0]))


@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)),
                                 lambda model: torch.load(saved(model), weights_only=False)])
def test_a_copy_has_workers_of_its_own(sessions, how):
    model, expected = pair()
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    train(expected, torch.optim.SGD(expected.parameters(), lr=0.1))
    copied = how(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    expect_equal(copied, expected)
    train(copied, torch.optim.SGD(copied.parameters(), lr=0.1))
    expect_equal(copied, model_of(model))
    assert type(copy.deepcopy(model[0].weight)) is nn.Parameter
    assert type(pickle.loads(pickle.dumps(model[0].weight))) is nn.Parameter


def saved(model) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file


def model_of(model: GPipe) -> nn.Sequential:
    plain = network()
    plain.load_state_dict({name.split(".", 2)[2]: tensor for name, tensor in model.state_dict().items()})
    return plain


def test_another_form_is_exported_again(sessions):
    model, expected = pair()
    changes = [lambda each: each, lambda each: each.double(), lambda each: each[0].requires_grad_(False),
               lambda each: each[2].eval(), lambda each: each.double().float()]
    for change in changes:
        for each in (model, expected):
            change(each)
            each.zero_grad()
            input, target = batch()
            functional.cross_entropy(each(input.to(each[0].weight.dtype)), target).backward()
        expect_equal_gradients(model, expected)
    assert len(sessions) == 4  # A frozen parameter is none.


# --- The end ---

def test_close_fetches_everything(sessions):
    models = pair()
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train(model, optimizer)
        backward(model)
    models[0].close()
    assert sessions[0].ended
    expect_equal(*models)
    expect_equal_gradients(*models)
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.step()
        train(model, optimizer)
    expect_equal(*models)


def test_a_model_that_nobody_has_ends_its_session(sessions):
    model, _ = pair()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer)
    weight, gone = model[0].weight, weakref.ref(model)
    del model
    assert gone() is None and sessions[0].ended
    with pytest.raises(Error, match="the newest value of '0.weight' was on workers, and the model whose workers they"):
        weight.sum()
    assert weight.shape == (6, 4)


def test_lost_workers(sessions):
    model, expected = pair()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer)
    kept = copy.deepcopy(model.state_dict())
    train(model, optimizer)
    sessions[0].fail()
    for use in (lambda: backward(model), lambda: model.state_dict(), lambda: backward(model)):
        with pytest.raises(Error, match="w1 was killed by signal 9"):
            use()
    assert len(sessions) == 1
    model.load_state_dict(kept)
    with pytest.warns(UserWarning, match="workers were lost, and with them the state of SGD"):
        train(model, optimizer)
    for part in range(2):
        train(expected, torch.optim.SGD(expected.parameters(), lr=0.1))
    expect_equal(model, expected)


def test_two_models_of_the_same_modules(sessions):
    """As a cell of a notebook makes them that is run again."""
    net, expected = network(), network()
    for _ in range(2):
        model = GPipe(net, [2, 3])
        train(model, torch.optim.SGD(model.parameters(), lr=0.1))
        train(expected, torch.optim.SGD(expected.parameters(), lr=0.1))
    expect_equal(model, expected)


def test_released_tensors_are_plain():
    model, _ = pair()
    old = model[0]
    backward(model)
    model.partitions[0][0] = nn.Linear(4, 6)
    backward(model)
    assert not isinstance(old.weight, Mirrored) and isinstance(model[0].weight, Mirrored)


def three_of_one_size():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))


def swap(model):
    model[0].weight, model[2].weight = model[2].weight, model[0].weight


def rotate(model):
    model[0].weight, model[2].weight, model[4].weight = model[2].weight, model[4].weight, model[0].weight


def drop_one(model):
    model[0].weight, model[2].weight = model[2].weight, nn.Parameter(torch.full((4, 4), 0.25))


@pytest.mark.parametrize("change", [swap, rotate, drop_one])
def test_tensors_that_get_other_names_keep_their_values_and_their_gradients(sessions, change):
    models = pair(three_of_one_size, (2, 3))
    for model in models:
        backward(model)
        change(model)
        backward(model, 1)
    expect_equal_gradients(*models)
    for model in models:
        train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    expect_equal(*models)


def test_a_state_dict_of_another_cut_changes_what_it_names_and_nothing_else(sessions):
    model, expected = pair()
    for one in (model, expected):
        train(one, torch.optim.SGD(one.parameters(), lr=0.1), 1)
    other = GPipe(network(1), [3, 2]).state_dict()
    assert "partitions.0.2.weight" in model.load_state_dict(other, strict=False).unexpected_keys
    loaded = network(1).state_dict()
    expected.load_state_dict({name: loaded[name] for name in loaded if not name.startswith("2.")}, strict=False)
    for one in (model, expected):
        train(one, torch.optim.SGD(one.parameters(), lr=0.1), 1)
    expect_equal(model, expected)
