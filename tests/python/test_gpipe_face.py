"""gpipe.GPipe without workers (stand_in.py): what it exports and asks for, when something is fetched or sent, and that
parameters, gradients and optimizers are as PyTorch has them."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional

from gpipe import Error, GPipe
from gpipe._gpipe import engine
from gpipe._gpipe.proxies import Mirrored
from stand_in import StandInLauncher


@pytest.fixture(autouse=True)
def sessions(monkeypatch):
    """Those that were begun, of all models of the test."""
    monkeypatch.setattr(engine, "Launcher", StandInLauncher)
    monkeypatch.setattr(StandInLauncher, "sessions", [])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        yield StandInLauncher.sessions


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


def expect_equal(model: GPipe, expected: nn.Module) -> None:
    found = {name.split(".", 2)[2]: tensor for name, tensor in model.state_dict().items()}
    assert found.keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-7, msg=lambda text: f"{name}: {text}")


def expect_equal_gradients(model: GPipe, expected: nn.Module) -> None:
    for found, parameter in zip(model.parameters(), expected.parameters()):
        if parameter.grad is None:
            assert found.grad is None
        else:
            torch.testing.assert_close(found.grad.detach(), parameter.grad, rtol=1e-6, atol=1e-7)


# --- Optimizers ---

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


def test_an_optimizer_that_has_state_goes_on_from_it(sessions):
    model, expected = pair()
    first = torch.optim.Adam(expected.parameters())
    train(expected, first)
    model.load_state_dict({f"partitions.{i}.{name}": tensor for i, names in enumerate((("0.",), ("2.", "4.")))
                           for name, tensor in expected.state_dict().items() if name.startswith(names)})
    resumed = torch.optim.Adam(model.parameters())
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    with pytest.warns(UserWarning, match="has state from steps that were made here, or that was loaded"):
        train(model, resumed)
    train(expected, first)
    expect_equal(model, expected)


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


def test_a_new_optimizer_begins_anew_and_other_settings_are_told(sessions):
    models = pair()
    for model in models:
        train(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
        train(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    expect_equal(*models)
    optimizer = torch.optim.SGD(models[0].parameters(), lr=0.1, momentum=0.9)
    train(models[0], optimizer)
    optimizer.param_groups[0]["momentum"] = 0.5
    with pytest.warns(UserWarning, match="the optimizer has other settings: the model begins a new job, with an optim"):
        train(models[0], optimizer)


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


def test_the_state_of_an_optimizer_on_workers_is_not_saved_silently():
    model, _ = pair()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer)
    with pytest.warns(UserWarning, match="the state of Adam is on workers"):
        optimizer.state_dict()


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


def penalise(model):
    (0.1 * sum(parameter.square().sum() for parameter in model.parameters())).backward()


@pytest.mark.parametrize("change", [clip, clip_through_data, assign, zero_in_place, zero_one, penalise])
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
    assert [line for line in sessions[0].log if line.startswith("set")] == ["set 0.bias"]


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
    assert len(sessions) == 5


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
    with pytest.warns(UserWarning, match="workers were lost: the model begins a new job"):
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
