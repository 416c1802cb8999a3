"""Losses of gpipe.GPipe that workers compute: what PyTorch makes of the whole mini-batch's outputs, without their
travelling."""

from __future__ import annotations

import copy
import functools
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from gpipe import ExportError, GPipe
from gpipe._gpipe.losses import Loss
from gpipe_models import batch, expect_equal, expect_equal_gradients, network

pytestmark = pytest.mark.filterwarnings("ignore:The given buffer is not writable")

IGNORED = -100
WEIGHT = torch.tensor([0.5, 2.0, 1.5])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def classes(*shape: int, ignored=IGNORED) -> torch.Tensor:
    """Of three. All of the second and third sample's are ignored, and some of the others'."""
    target = torch.randint(3, shape, generator=generator(1))
    target[1:3] = ignored
    target.view(-1)[-1] = ignored
    return target


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator(2))


def probabilities(*shape: int) -> torch.Tensor:
    return numbers(*shape).softmax(1)


# --- Put together out of micro-batches, without workers ---

def masked(output, target):
    """One number for each sample, and how many elements it has."""
    losses = functional.smooth_l1_loss(output, target, reduction="none")
    return (losses * (target > 0)).sum(1), (target > 0).sum(1)


def by_hand(output, target):
    return (output - target).square().mean()


def several(output, target):
    return functional.mse_loss(output, target), (output - target).abs().sum(), (output > 0).sum()


LOSSES = {
    "cross entropy": (nn.CrossEntropyLoss(), classes(7)),
    "weights": (nn.CrossEntropyLoss(WEIGHT), classes(7)),
    "weights and smoothing": (nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.1), classes(7)),
    "ignored class": (nn.CrossEntropyLoss(WEIGHT, ignore_index=2), classes(7, ignored=2)),
    "sum": (nn.CrossEntropyLoss(WEIGHT, reduction="sum"), classes(7)),
    "none": (nn.CrossEntropyLoss(WEIGHT, reduction="none"), classes(7)),
    "probabilities": (nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.1), probabilities(7, 3)),
    "nll": (nn.NLLLoss(WEIGHT), classes(7)),
    "mse": (nn.MSELoss(), numbers(7, 3)),
    "sum of squares": (nn.MSELoss(reduction="sum"), numbers(7, 3)),
    "bce": (nn.BCEWithLogitsLoss(weight=WEIGHT, pos_weight=WEIGHT), (numbers(7, 3) > 0).float()),
    "l1": (nn.L1Loss(), numbers(7, 3)),
    "smooth l1": (nn.SmoothL1Loss(beta=0.5), numbers(7, 3)),
    "huber": (nn.HuberLoss(), numbers(7, 3)),
    "kl": (nn.KLDivLoss(reduction="batchmean", log_target=True), numbers(7, 3)),
    "poisson": (nn.PoissonNLLLoss(), numbers(7, 3).exp()),
    "margin": (nn.MultiMarginLoss(), classes(7, ignored=0)),
    "a function": (functional.cross_entropy, classes(7)),
    "a partial function": (functools.partial(functional.cross_entropy, ignore_index=2), classes(7, ignored=2)),
    "by hand": (by_hand, numbers(7, 3)),
    "one for each sample": (masked, numbers(7, 3)),
    "several": (several, numbers(7, 3)),
}


def put_together(loss: Loss, output, target, chunks: int):
    parts, compositions = zip(*(loss.parts(*both) for both in zip(output.chunk(chunks), target.chunk(chunks))))
    return compositions[0].join([torch.cat(each) for each in zip(*parts)])


def value_of(returned):
    """A number to differentiate."""
    tensors = returned if isinstance(returned, tuple) else (returned,)
    return sum(tensor.sum() for tensor in tensors if tensor.requires_grad)


@pytest.mark.parametrize("chunks", [1, 3, 7])
@pytest.mark.parametrize("name", LOSSES)
def test_parts_of_micro_batches(name, chunks):
    compute, target = LOSSES[name]
    loss, outputs, found = Loss(compute), [numbers(7, 3).requires_grad_() for _ in range(2)], []
    loss.check(outputs[0], target)
    for output, run in zip(outputs, (compute, lambda *both: put_together(loss, *both, chunks))):
        found.append(run(output, target))
        value_of(found[-1]).backward()
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outputs[0].grad, outputs[1].grad, rtol=1e-5, atol=1e-7)


def test_a_mini_batch_of_which_nothing_counts():
    output, target = numbers(4, 3).requires_grad_(), torch.full((4,), IGNORED)
    found = put_together(Loss(nn.CrossEntropyLoss()), output, target, 2)
    assert found.isnan() and nn.CrossEntropyLoss()(output, target).isnan()
    assert found.requires_grad


def test_half_precision_counts_on():
    output = numbers(2, 3, 3000).bfloat16()
    target = torch.randint(3, (2, 3000), generator=generator(3))
    found = put_together(Loss(nn.CrossEntropyLoss()), output, target, 2)
    torch.testing.assert_close(found, nn.CrossEntropyLoss()(output.float(), target), rtol=1e-2, atol=0)
    assert Loss(nn.CrossEntropyLoss()).parts(output, target)[0][0][:, 1].tolist() == [3000, 3000]


# --- What is refused ---

def contrastive(output, target):
    return functional.cross_entropy(output @ output.T, torch.arange(output.shape[0]))


def centred(output, target):
    return (output - output.mean(0)).square().sum(1)


def scaled(output, target):
    return 2 * functional.mse_loss(output, target)


def pooled(output, target):
    return (output - target).abs().mean(0)


REFUSED = {
    "a number of one's own": (scaled, "returns a single number, and workers cannot tell what of it each sample has"),
    "samples that are compared": (contrastive, "must be made of its samples', each by itself: of 4 samples it is"),
    "a mean over samples": (centred, "must be made of its samples', each by itself: of 4 samples it is a tensor of"),
    "no samples": (pooled, r"returns a tensor of \(3,\), whose first dimension is not the 4 samples"),
    "broadcasting": (lambda output, target: functional.mse_loss(output[:, :1], target[:, 0]), "each by itself"),
    "weights of samples": (nn.BCEWithLogitsLoss(weight=torch.rand(4, 1)), "each by itself|of some of the samples"),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("case", REFUSED)
def test_a_loss_that_has_no_parts_is_refused(case):
    compute, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        Loss(compute).check(numbers(4, 3), numbers(4, 3).sigmoid())


def test_what_is_wrong_with_a_loss_is_said():
    with pytest.raises(TypeError, match="loss must be a module or function of outputs and targets, not a str"):
        GPipe(network(), [5], loss="cross_entropy")
    with pytest.raises(ValueError, match="the loss, a Linear, has parameters"):
        GPipe(network(), [5], loss=nn.Linear(3, 1))
    with pytest.raises(TypeError, match="expected Tensor, but got <class 'float'>"):
        Loss(lambda output, target: 1.0).check(numbers(4, 3), numbers(4, 3))


def test_what_is_of_the_whole_mini_batch_is_not_computed_with(sessions):
    """Also where the samples that are looked at do not tell."""
    def by_ones(output, target):
        return functional.cross_entropy(output, target, reduction="none") / (target > 1).sum().clamp(min=1)

    input, target = batch()
    with pytest.raises(ExportError, match="'gpipe_loss'.* the loss computes with a mean or a sum over all samples"):
        GPipe(network(), [2, 3], loss=by_ones).loss(input, target.clamp(max=1))


def test_what_is_wrong_with_a_call_is_said(sessions):
    model = GPipe(network(), [2, 3], loss=nn.CrossEntropyLoss())
    input, target = batch()
    with pytest.raises(RuntimeError, match="in training its outputs stay on the workers: call model.loss"):
        model(input)
    with pytest.raises(ValueError, match=r"inputs and targets must have as many samples .* \[7, 6\]"):
        model.loss(input, target[:6])
    with pytest.raises(TypeError, match="expected Tensor, but got <class 'list'>"):
        model.loss(input, [1, 2])
    with pytest.raises(ValueError, match="the target is a single number"):
        model.loss(input, torch.tensor(1))
    with pytest.raises(RuntimeError, match="0D or 1D target tensor expected|size|shape"):  # PyTorch's words.
        model.loss(input, target[:, None])
    with pytest.raises(RuntimeError, match="the model was given no loss"):
        GPipe(network(), [2, 3]).loss(input, target)
    assert not sessions
    model.loss(input, target).backward()
    assert len(sessions) == 1


# --- What surrounds it, without workers ---

def test_one_job_trains_and_evaluates(sessions):
    model, expected = GPipe(network(), [2, 3], loss=nn.CrossEntropyLoss()), network()
    input, target = batch()
    for _ in range(2):
        model.loss(input, target).backward()
        model.eval()
        torch.testing.assert_close(model(input), expected(input).detach())
        loss = functional.cross_entropy(expected(input), target).detach()
        torch.testing.assert_close(model.loss(input, target), loss)
        assert not model.loss(input, target).requires_grad
        model.train()
    assert sessions[0].log == ["forward", "backward", "predict", "predict", "predict"] * 2 and len(sessions) == 1
    with torch.no_grad():
        assert not model.loss(input, target).requires_grad
    assert sessions[0].log[-2:] == ["forward", "drop"]


def test_what_needs_no_workers_has_its_loss_here(sessions):
    input = numbers(4, 3).requires_grad_()
    loss = GPipe(nn.Sequential(nn.Identity(), nn.Flatten()), [1, 1], loss=nn.MSELoss()).loss(input, torch.ones(4, 3))
    torch.testing.assert_close(loss, (input - 1).square().mean())
    assert loss.requires_grad and not sessions


def test_copies_and_casts_have_the_loss(sessions):
    given = nn.CrossEntropyLoss(WEIGHT.clone())
    model, expected = GPipe(network(), [2, 3], loss=given), network().double()
    copied = copy.deepcopy(model).double()
    assert given.weight.dtype == torch.float32 and list(copied.state_dict()) == list(model.state_dict())
    input, target = batch()
    loss = nn.CrossEntropyLoss(WEIGHT.double())(expected(input.double()), target)
    torch.testing.assert_close(copied.loss(input.double(), target), loss)


# --- On workers ---

def words(seed=0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(3, 6), nn.Tanh(), nn.Linear(6, 3))


def next_word(logits, labels):
    """As language models compute it."""
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def pixels() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(4, 6, 1), nn.Tanh(), nn.Conv1d(6, 3, 1))


class Both(nn.Module):
    """Two outputs."""

    def forward(self, input):
        return input, input.argmax(1)


def two_outputs() -> nn.Sequential:
    return nn.Sequential(*network(), Both())


def of_the_first(outputs, target):
    return functional.mse_loss(outputs[0], target)


ON_WORKERS = {
    "cross entropy": (network, nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.1), numbers(7, 4), classes(7)),
    "pixels": (pixels, nn.CrossEntropyLoss(WEIGHT, ignore_index=2), numbers(7, 4, 5), classes(7, 5, ignored=2)),
    "words": (words, next_word, torch.randint(3, (7, 5), generator=generator(4)), classes(7, 5)),
    "sum": (network, nn.CrossEntropyLoss(reduction="sum"), numbers(7, 4), classes(7)),
    "mse": (network, nn.MSELoss(), numbers(7, 4), numbers(7, 3)),
    "bce": (network, nn.BCEWithLogitsLoss(pos_weight=WEIGHT), numbers(7, 4), (numbers(7, 3) > 0).float()),
    "one for each sample": (network, masked, numbers(7, 4), numbers(7, 3)),
    "several": (network, several, numbers(7, 4), numbers(7, 3)),
    "two outputs": (two_outputs, of_the_first, numbers(7, 4), numbers(7, 3)),
}


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("name", ON_WORKERS)
def test_as_pytorch(name):
    """Two losses, of mini-batches that chunks do not divide, before a step, and one after it."""
    make, compute, input, target = ON_WORKERS[name]
    found, models = [], (GPipe(make(), [2, len(make()) - 2], chunks=3, loss=compute), make())
    for model in models:
        optimizer, values = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), []
        for rows, steps in ((slice(0, 7), False), (slice(0, 5), True), (slice(2, 7), False)):
            leaf = input[rows].clone().requires_grad_(input.is_floating_point())
            loss = (model.loss(leaf, target[rows]) if model is models[0] else compute(model(leaf), target[rows]))
            value_of(loss).backward()
            values += [loss, leaf.grad]
            if steps:
                optimizer.step()
        found.append(values)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
    expect_equal(*models, rtol=1e-5, atol=1e-6)
    expect_equal_gradients(*models, rtol=1e-5, atol=1e-6)
    for model in models:
        model.eval()
    with torch.no_grad():
        torch.testing.assert_close(*(model(input) for model in models), rtol=1e-5, atol=1e-6)


def norms() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.0), nn.ReLU(inplace=True), nn.Linear(6, 3))


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("checkpoint", ["always", "except_last", "never"])
def test_checkpoints_and_deferred_batch_normalisation(checkpoint):
    models = GPipe(norms(), [2, 3], chunks=4, checkpoint=checkpoint, deferred_batch_norm=True,
                   loss=nn.CrossEntropyLoss()), norms()
    input, target = numbers(8, 4), torch.randint(3, (8,), generator=generator(5))
    loss = models[0].loss(input, target)
    parts = [models[1](part) for part in input.chunk(4)]  # Each is normalised by itself.
    expected = functional.cross_entropy(torch.cat(parts), target)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for each in (loss, expected):
        each.backward()
    expect_equal_gradients(*models, rtol=1e-4, atol=1e-5)
    whole = norms()[:2]
    whole(input)
    torch.testing.assert_close(models[0][1].running_var.clone(), whole[1].running_var, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("workers")
def test_evaluation_before_and_of_other_samples():
    model, expected = GPipe(network(), [2, 3], loss=nn.CrossEntropyLoss()), network()
    input, target = batch()
    for each in (input, torch.stack([input, input], 1)):
        model.eval()
        torch.testing.assert_close(model(each), expected(each).detach())
        model.train()
        for loss in (model.loss(input, target), functional.cross_entropy(expected(input), target)):
            loss.backward()
    expect_equal_gradients(model, expected)
    assert model._engine._openings == 4  # Jobs.


@pytest.mark.usefixtures("workers")
def test_outputs_do_not_travel(monkeypatch):
    torch.manual_seed(0)
    size, length, samples = 5000, 6, 8
    model = GPipe(nn.Sequential(nn.Embedding(size, 8), nn.Linear(8, size)), [1, 1], chunks=2, loss=next_word)
    ids = torch.randint(size, (samples, length))
    model.loss(ids, ids).backward()
    exchange, sent, taken = model._engine.mirror.session._exchange, [], []
    put, take = exchange.put, exchange.take
    monkeypatch.setattr(exchange, "put", lambda tensors: sent.extend(tensors.values()) or put(tensors))
    monkeypatch.setattr(exchange, "take", lambda ref: taken.append(ref.size) or take(ref))
    model.loss(ids, ids).backward()
    (text, labels, gradients) = sent
    assert text.nbytes == labels.nbytes == 8 * samples * length and gradients.shape == (samples, 2)
    assert len(taken) == 1 and taken[0] < 1000  # With the file's header.
    model.eval()
    assert model(ids).shape == (samples, length, size)
    assert sum(itertools.islice(taken, 1, None)) > 4 * samples * length * size


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_loss_is_tried_again_when_there_is_more_than_one_sample(sessions):
    """[N, 1] against [N] is each with each, of which one sample shows nothing."""
    model = GPipe(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)), [1, 2], loss=nn.MSELoss())
    assert model.loss(numbers(1, 4), numbers(1)).item() >= 0
    with pytest.raises(ValueError, match="made of its samples', each by itself"):
        model.loss(numbers(7, 4), numbers(7))


def test_a_loss_that_is_right_is_tried_again_once(sessions):
    model = GPipe(network(), [2, 3], loss=nn.CrossEntropyLoss())
    for size in (1, 1, 7, 5, 1):
        input, target = batch(size=size)
        torch.testing.assert_close(model.loss(input, target), functional.cross_entropy(network()(input), target))
    assert len(sessions) == 2
