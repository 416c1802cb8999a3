"""gpipe.balance: cuts by measured time and memory, of a model that is left alone."""

from __future__ import annotations

import copy
import itertools
import random
import time

import pytest
import torch
from torch import nn

from cluster import DEVICE
from gpipe.balance import balance_by_size, balance_by_time
from gpipe.balance._partition import partition
from gpipe.balance._profile import profile_sizes
from gpipe.skip import Namespace, pop, skippable, stash

KIB = torch.zeros(256)  # Of floats.


def by_time(partitions: int, *layers: nn.Module, sample=torch.ones(4), timeout: float = 0.3) -> list[int]:
    return balance_by_time(partitions, nn.Sequential(*layers), sample, timeout=timeout, device=DEVICE)


def by_size(partitions: int, *layers: nn.Module, input=torch.ones(4), **options) -> list[int]:
    return balance_by_size(partitions, nn.Sequential(*layers), input, device=DEVICE, **options)


def kib_of(*layers: nn.Module, input: torch.Tensor, chunks: int = 1, param_scale: float = 0) -> list[float]:
    sizes = profile_sizes(nn.Sequential(*layers), input, chunks, param_scale, torch.device(DEVICE))
    return [size / 1024 for size in sizes]


# --- The cut ---

def cuts(layers: int, blocks: int):
    for ends in itertools.combinations(range(1, layers), blocks - 1):
        yield [end - begin for begin, end in zip((0, *ends), (*ends, layers))]


def blocks_of(costs: list[int], counts: list[int]) -> list[int]:
    rest = iter(costs)
    return [sum(itertools.islice(rest, count)) for count in counts]


@pytest.mark.parametrize("highest", [1, 3, 1000])
def test_no_cut_is_better(highest):
    """Of all cuts with the least largest block, one with the most even blocks, and then numbers of layers."""
    def badness(costs: list[int], counts: list[int]) -> tuple[int, int, int]:
        blocks = blocks_of(costs, counts)
        return max(blocks), sum(block**2 for block in blocks), sum(count**2 for count in counts)

    chosen = random.Random(5)
    for layers, blocks in itertools.combinations(range(9, 0, -1), 2):
        costs = [chosen.randint(0, highest) for _ in range(layers)]
        found = partition(costs, blocks)
        assert len(found) == blocks and sum(found) == layers and min(found) > 0
        assert badness(costs, found) == min(badness(costs, counts) for counts in cuts(layers, blocks)), (costs, found)


@pytest.mark.parametrize("costs, balance", [
    ([1] * 7, [2, 2, 2, 1]), ([1] * 15, [2] * 7 + [1]), ([1] * 32, [6, 6, 5, 5, 5, 5]), ([0, 0], [1, 1]), ([7], [1]),
    ([1, 2, 3, 4, 5, 6], [4, 2]), ([300, *[100] * 24, 900], [7, 9, 9, 1]),
], ids=str)
def test_layers_of_equal_cost_are_spread(costs, balance):
    assert partition(costs, len(balance)) == balance


class Unreached(nn.Module):
    def forward(self, input):
        raise AssertionError("was run")


@pytest.mark.parametrize("balanced", [by_time, by_size])
@pytest.mark.parametrize("partitions, words", [
    (0, r"partitions must be a positive integer \(0 < 1\)"), (-1, r"partitions must be a positive integer \(-1 < 1\)"),
    (2, r"sequence is shorter than intended partitions \(1 < 2\)")])
def test_impossible_numbers_of_partitions_are_refused_before_anything_runs(balanced, partitions, words):
    with pytest.raises(ValueError, match=f"^{words}$"):
        balanced(partitions, Unreached())


# --- By time ---

class Takes(nn.Module):
    """A hundredth of a second for each of `forward` and of `backward`; the first pass takes `first` more."""

    def __init__(self, forward: int = 0, backward: int = 0, first: int = 0):
        super().__init__()
        self.hundredths, self.backward = forward, backward
        self.first = Once(first)

    def forward(self, input):
        time.sleep((self.hundredths + self.first.take()) / 100)
        return SlowBackward.apply(input, self.backward)


class Once:
    """Is shared by all copies of a layer."""

    def __init__(self, value: int):
        self.value = value

    def __deepcopy__(self, memo):
        return self

    def take(self) -> int:
        value, self.value = self.value, 0
        return value


class SlowBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input, hundredths):
        ctx.hundredths = hundredths
        return input.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(ctx.hundredths / 100)
        return gradient, None


def test_layers_are_balanced_by_the_time_of_their_forward():
    assert by_time(2, *map(Takes, [1, 2, 3, 4, 5, 6])) == [4, 2]


def test_the_backward_counts():
    sample = torch.ones(4, requires_grad=True)
    assert by_time(2, *(Takes(backward=time) for time in [6, 5, 4, 3, 2, 1]), sample=sample) == [2, 4]


def test_without_gradients_there_is_no_backward():
    assert by_time(2, Takes(backward=30), Takes(forward=5), Takes(forward=5)) == [2, 1]


def test_the_first_pass_warms_up():
    assert by_time(2, Takes(1, first=40), Takes(5), Takes(10), timeout=0) == [2, 1]


def test_each_pass_begins_with_the_sample():
    layers = nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(128, 10)
    assert len(by_time(2, *layers, sample=torch.rand(10, 3, 8, 8), timeout=0.05)) == 2


def test_passes_go_on_until_the_timeout():
    begin = time.monotonic()
    by_time(1, nn.ReLU(), timeout=0.2)
    assert time.monotonic() - begin >= 0.2


def test_gradients_that_are_there_stop_it():
    model = nn.Sequential(nn.Linear(4, 4))
    model(torch.ones(4)).sum().backward()
    with pytest.raises(ValueError, match="^some parameter already has gradient$"):
        balance_by_time(1, model, torch.ones(4), device=DEVICE)


# --- By size ---

class Keeps(nn.Module):
    """So many products, of which the backward needs each factor."""

    def __init__(self, times: int):
        super().__init__()
        self.times = times

    def forward(self, input):
        for _ in range(self.times):
            input = input * torch.rand_like(input, requires_grad=True)
        return input


def test_layers_are_balanced_by_what_their_backward_needs():
    assert by_size(2, *map(Keeps, [1, 2, 3, 4, 5, 6]), input=torch.rand(10, 100)) == [4, 2]
    assert by_size(2, *map(Keeps, [6, 5, 4, 3, 2, 1]), input=torch.rand(10, 100)) == [2, 4]


def test_layers_are_balanced_by_their_parameters():
    growing = [nn.Linear(i + 1, i + 2) for i in range(6)]
    assert by_size(2, *growing, input=torch.rand(7, 1), param_scale=100) == [4, 2]
    shrinking = [nn.Linear(i + 2, i + 1) for i in reversed(range(6))]
    assert by_size(2, *shrinking, input=torch.rand(1, 7), param_scale=100) == [2, 4]


def test_param_scale_weighs_parameters_against_the_rest():
    layers = [nn.Sequential(Keeps(7 - size), nn.Linear(1, 20 * size), nn.Linear(20 * size, 1)) for size in range(1, 7)]
    assert by_size(2, *layers, input=torch.rand(1, 1), param_scale=0) == [2, 4]
    assert by_size(2, *layers, input=torch.rand(1, 1), param_scale=100) == [4, 2]


@pytest.mark.parametrize("chunks, samples", [(1, 10), (2, 5), (4, 3), (10, 1), (20, 1)])
def test_the_size_is_that_of_the_largest_micro_batch(chunks, samples):
    assert kib_of(Keeps(1), input=KIB.repeat(10, 1), chunks=chunks) == [2 * samples]


def test_a_parameter_that_is_used_twice_counts_once():
    linear = nn.Linear(16, 16, bias=False)  # A KiB, and half of one for the second output.
    assert kib_of(nn.Sequential(linear, linear), input=torch.rand(1, 16), param_scale=3) == [3 + 2 * 0.5]


def test_what_is_gone_after_the_forward_does_not_count():
    class Large(nn.Module):
        def forward(self, input):
            return input + input.repeat(1000, 1).sum(0)

    layers = Large(), nn.Identity(), nn.Flatten(0), nn.ReLU(inplace=True)
    assert kib_of(*layers, input=KIB[None]) == [1, 0, 0, 0]


def test_other_views_of_the_same_memory_do_not_count():
    class Again(nn.Module):
        def forward(self, input):
            return torch.empty(0, device=input.device).set_(input.untyped_storage())[1:]

    assert kib_of(Again(), input=KIB[None]) == [0]


def test_batch_norm_has_more_than_one_sample():
    assert by_size(2, nn.Linear(4, 4), nn.BatchNorm1d(4), input=torch.rand(8, 4), chunks=4) == [1, 1]


def test_chunks_are_at_least_one():
    with pytest.raises(ValueError, match="^number of chunks must be positive integer$"):
        by_size(1, nn.ReLU(), chunks=0)


# --- Both ---

SAMPLE = {by_time: "sample", by_size: "input"}
both = pytest.mark.parametrize("balanced", SAMPLE)


class Twin(nn.Module):
    def forward(self, input):
        return input * 2, input.detach()


class Add(nn.Module):
    def forward(self, pair):
        return pair[0] + pair[1]


@both
def test_tuples_pass_between_layers(balanced):
    assert balanced(2, Add(), Twin(), Add(), **{SAMPLE[balanced]: (torch.ones(4, requires_grad=True), torch.ones(4))})


@both
@pytest.mark.parametrize("value", ["text", [torch.ones(4)], (torch.ones(4), None)], ids=str)
def test_only_tensors_pass_between_layers(balanced, value):
    class Returns(nn.Module):
        def forward(self, input):
            return value

    with pytest.raises(TypeError, match=r"^expected Tensor, but got <class '(str|list|NoneType)'>$"):
        balanced(1, Returns())
    with pytest.raises(TypeError, match="expected Tensor, but got"):
        balanced(1, Unreached(), **{SAMPLE[balanced]: value})


@both
def test_the_model_and_the_sample_are_left_as_they_are(balanced):
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[1].eval()
    sample = torch.linspace(-1, 1, 32).view(8, 4)
    modes, state = [layer.training for layer in model], copy.deepcopy(model.state_dict())
    before, generator = sample.clone(), torch.get_rng_state()
    balanced(2, *model, **{SAMPLE[balanced]: sample})
    assert [layer.training for layer in model] == modes and torch.equal(sample, before)
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


def test_gradients_are_left_as_they_are():
    layer = nn.Linear(4, 4)
    layer.weight.grad = torch.ones(4, 4)
    by_size(1, layer)
    assert torch.equal(layer.weight.grad, torch.ones(4, 4)) and layer.bias.grad is None


@both
def test_layers_are_in_training_mode(balanced):
    class Trains(nn.Module):
        def forward(self, input):
            assert self.training and torch.is_grad_enabled()
            return input

    with torch.no_grad():
        assert balanced(1, Trains().eval()) == [1]


def test_the_backward_counts_where_gradients_are_off():
    with torch.no_grad():
        assert by_time(2, Takes(backward=20), Takes(5), Takes(5), sample=torch.ones(4, requires_grad=True)) == [1, 2]


@both
def test_layers_may_write_to_what_they_get(balanced):
    sample = torch.ones(4, requires_grad=True)
    assert balanced(2, nn.ReLU(inplace=True), nn.ReLU(inplace=True), **{SAMPLE[balanced]: sample}) == [1, 1]


@skippable(stash=["skip", "nothing"])
class Stash(nn.Module):
    """Nothing but the skip has a gradient."""

    def __init__(self, hundredths: int = 0):
        super().__init__()
        self.linear, self.hundredths = nn.Linear(4, 256), hundredths

    def forward(self, input):
        yield stash("nothing", None)
        yield stash("skip", SlowBackward.apply(self.linear(input), self.hundredths).exp())
        return input


@skippable(pop=["skip", "nothing"])
class Pop(nn.Module):
    def forward(self, input):
        skip = yield pop("skip")
        nothing = yield pop("nothing")
        assert nothing is None
        return torch.relu_(skip).exp()


@both
def test_skips_pass_between_layers(balanced):
    one, other = Namespace(), Namespace()
    layers = Stash().isolate(one), Stash().isolate(other), nn.ReLU(), Pop().isolate(other), Pop().isolate(one)
    assert sum(balanced(2, *layers, **{SAMPLE[balanced]: torch.ones(2, 4)})) == 5


def test_the_backward_of_a_skip_is_its_stashers():
    layers = Stash(hundredths=20), Takes(5), Takes(5), Pop()
    assert by_time(2, *layers, sample=torch.ones(2, 4)) == [1, 3]


def test_the_memory_of_a_skip_is_its_stashers():
    # Pop() writes to it, and makes as much again.
    assert kib_of(Stash(), nn.Identity(), Pop(), input=torch.ones(1, 4)) == [1, 0, 1]


@pytest.mark.parametrize("there, device", [(True, "cuda"), (False, "cpu")])
def test_a_gpu_is_used_where_there_is_one(monkeypatch, there, device):
    used = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr("gpipe.balance.profile_sizes", lambda *arguments: used.append(arguments[-1].type) or [1])
    assert balance_by_size(1, nn.Sequential(nn.ReLU()), torch.ones(4)) == [1] and used == [device]
