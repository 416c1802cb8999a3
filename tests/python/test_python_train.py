"""gpipe.train and gpipe.infer: what a model is afterwards, and what it computes, is what PyTorch makes of the same
data."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from cluster import BIN, ROOT
from gpipe import Client, InvalidSpecError, infer, train, v1
from gpipe._task import loss_spec, optimizer_spec
from gpipe.data import DataError
from python_client import Net, net_data

SAMPLES, BATCH = 40, 8


@pytest.fixture(scope="module")
def client(cluster):
    with Client(cluster.address) as connected:
        yield connected


def made() -> Net:
    torch.manual_seed(3)
    return Net()


def trained_here(model: Net, data, make_optimizer, loss=functional.cross_entropy, epochs=1, order=None) -> Net:
    optimizer = make_optimizer(model.parameters())
    for _ in range(epochs):
        for batch in zip(*(tensor.split(BATCH) for tensor in data)):
            optimizer.zero_grad()
            *inputs, target = batch
            loss(model(*inputs), target).backward()
            optimizer.step()
    return model


def expect_same(model: nn.Module, expected: nn.Module, tolerance=2e-5) -> None:
    for (name, found), other in zip(model.state_dict().items(), expected.state_dict().values()):
        torch.testing.assert_close(found, other, rtol=tolerance, atol=tolerance,
                                   msg=lambda text, name=name: f"{name}: {text}")


class Samples(Dataset):
    """One by one, as tuples or by name."""

    def __init__(self, data, names=None):
        self.data, self.names = data, names

    def __len__(self):
        return len(self.data[0])

    def __getitem__(self, index):
        sample = tuple(tensor[index] for tensor in self.data)
        return dict(zip(self.names, sample)) if self.names else sample


class Stream(IterableDataset):
    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return zip(*self.data)


def stacked(samples) -> tuple:
    return tuple(map(torch.stack, zip(*samples)))


def forms_of(data) -> dict:
    named = Samples(data, ("ids", "scale", "label"))
    return {
        "tensors": data,
        "tensors by name": dict(zip(("scale", "label", "ids"), (data[1], data[2], data[0]))),
        "arrays": tuple(tensor.numpy() for tensor in data),
        "TensorDataset": TensorDataset(*data),
        "Dataset": Samples(data),
        "Dataset by name": named,
        "DataLoader": DataLoader(Samples(data), batch_size=BATCH),
        "DataLoader by name": DataLoader(named, batch_size=BATCH, num_workers=0),
        "collate_fn": DataLoader(Samples(data), batch_size=BATCH, collate_fn=stacked),
        "IterableDataset": DataLoader(Stream(data), batch_size=BATCH),
        "generator": (sample for sample in zip(*data)),
        "sampler": DataLoader(Samples(data), batch_size=BATCH, sampler=list(range(SAMPLES))),
    }


@pytest.mark.parametrize("form", forms_of(net_data(2)))
def test_a_model_is_trained_on_every_form_of_data(client, form):
    data = net_data(SAMPLES)
    model = made()
    expected = trained_here(copy.deepcopy(model), data, functools.partial(torch.optim.SGD, lr=0.1))
    returned = train(model, forms_of(data)[form], loss="cross_entropy", optimizer="sgd", lr=0.1, batch_size=BATCH,
                     cluster=client, workers=2)
    assert returned is model and model.training
    expect_same(model, expected)


OPTIMIZERS = {
    "adamw": functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.05, betas=(0.8, 0.99)),
    "adam": functools.partial(torch.optim.Adam, lr=0.01),
    "sgd": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("given", ["made", "maker"])
def test_torchs_own_losses_and_optimizers(client, name, given):
    data, make = net_data(SAMPLES), OPTIMIZERS[name]
    model = made()
    loss = nn.CrossEntropyLoss(label_smoothing=0.1, ignore_index=2)
    expected = trained_here(copy.deepcopy(model), data, make, loss, epochs=2)
    # A mini-batch in one piece: the mean over targets that count is not that of its parts.
    train(model, data, loss=loss, optimizer=make(model.parameters()) if given == "made" else make, batch_size=BATCH,
          epochs=2, chunks=1, cluster=client, workers=2)
    expect_same(model, expected, 5e-4 if name == "adam" else 1e-4)


def test_a_private_cluster_for_one_call(monkeypatch, capsys):
    monkeypatch.setenv("GPIPE_BIN_DIR", str(BIN))
    monkeypatch.delenv("GPIPE_ORCHESTRATOR", raising=False)
    data, model = net_data(SAMPLES), made()
    expected = trained_here(copy.deepcopy(model), data, functools.partial(torch.optim.SGD, lr=0.1))
    seen = []
    train(model, data, optimizer="sgd", lr=0.1, batch_size=BATCH, on_update=seen.append, progress=True)
    expect_same(model, expected)
    assert any(isinstance(update, v1.StepMetrics) for update in seen)
    assert "5/5" in capsys.readouterr().err


class OwnLoss(Net):
    def forward(self, ids, scale, labels):
        logits = super().forward(ids, scale)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def test_a_model_with_its_own_loss_evaluation_and_more_options(client):
    data = net_data(SAMPLES)
    torch.manual_seed(3)
    model = OwnLoss()
    expected = trained_here(copy.deepcopy(model), (*data, data[2]), functools.partial(torch.optim.SGD, lr=0.1),
                            lambda output, _: output["loss"])
    seen = []
    train(model, dict(zip(("ids", "scale", "labels"), data)), loss="model_output", optimizer="sgd", lr=0.1,
          batch_size=BATCH, evaluate=dict(zip(("ids", "scale", "labels"), data)), evaluate_every=2,
          grad_clip_norm=100.0, seed=7, cluster=client, workers=2, pipeline={"checkpoint": "never"}, name="own",
          on_update=seen.append)
    expect_same(model, expected)
    assert [update.step for update in seen if isinstance(update, v1.EvaluationMetrics)] == [2, 4, 5]
    job = next(update for update in reversed(seen) if isinstance(update, v1.Job))
    assert job.id.startswith("own-") and job.spec.train.grad_clip_norm == 100 and job.spec.train.seed == 7


def test_a_loader_says_how_the_data_is_gone_through(client):
    seen = []
    loader = DataLoader(Samples(net_data(SAMPLES)), batch_size=16, shuffle=True, drop_last=True)
    train(made(), loader, epochs=2, cluster=client, workers=2, on_update=seen.append)
    task = next(update for update in seen if isinstance(update, v1.Job)).spec.train
    assert (task.batch_size, task.shuffle, task.drop_last, task.epochs) == (16, True, True, 2)


@pytest.mark.parametrize("form", ["tensors", "loader"])
def test_inference_is_what_eval_computes(client, form):
    ids, scale, target = net_data(SAMPLES)
    model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    data = ids.float() if form == "tensors" else DataLoader(Samples((ids.float(), target)), batch_size=7)
    found = infer(model, data, cluster=client, workers=2)
    assert model.training
    torch.testing.assert_close(found, model.eval()(ids.float()).detach())


def test_outputs_of_several_names(client):
    ids, scale, target = net_data(SAMPLES)
    torch.manual_seed(3)

    class Two(Net):
        def forward(self, ids, scale):
            logits = super().forward(ids, scale)
            return {"logits": logits, "best": logits.argmax(1)}

    model = Two()
    expected = model.eval()(ids, scale)
    found = infer(model, {"ids": ids, "scale": scale}, batch_size=9, cluster=client, workers=2)
    assert set(found) == {"logits", "best"} and torch.equal(found["best"], expected["best"])
    alone = infer(model, (ids, scale), outputs=["best"], cluster=client, workers=2)
    assert torch.equal(alone, expected["best"])


def test_what_interrupts_the_call_cancels_the_job(client):
    model, seen = made(), []

    def interrupt(update) -> None:
        seen.append(update)
        if isinstance(update, v1.StepMetrics) and update.step > 3:
            raise KeyboardInterrupt

    before = copy.deepcopy(model)
    with pytest.raises(KeyboardInterrupt):
        train(model, net_data(SAMPLES), batch_size=BATCH, steps=1_000_000, cluster=client, workers=2,
              on_update=interrupt)
    job = client.job(next(update.id for update in seen if isinstance(update, v1.Job)))
    assert job.wait(check=False, timeout=30).state == "CANCELLED"
    expect_same(model, before, 0)


class TwoMore(Net):
    def forward(self, ids, scale, mask):
        return super().forward(ids, scale)


WRONG = {
    "loss name": (dict(loss="huber"), ValueError, "loss must be one of cross_entropy"),
    "loss module": (dict(loss=nn.L1Loss()), ValueError, "no loss L1Loss, but .*model_output"),
    "loss option": (dict(loss=nn.CrossEntropyLoss(reduction="sum")), ValueError, "another reduction than mean"),
    "optimizer": (dict(optimizer=torch.optim.RMSprop), ValueError, "no optimizer RMSprop, but sgd, adam and adamw"),
    "optimizer option": (dict(optimizer=functools.partial(torch.optim.Adam, amsgrad=True)), ValueError, "amsgrad=True"),
    "sgd without lr": (dict(optimizer="sgd"), ValueError, "sgd needs an lr"),
    "field": (dict(grad_clip=1.0), InvalidSpecError, "train.grad_clip: is not a field here"),
    "target": (dict(data=dict(zip(("ids", "scale", "a", "b"), (*net_data(8), net_data(8)[2])))), DataError,
               "say with target="),
    "too many": (dict(data=(*net_data(8), net_data(8)[2])), DataError, "3 tensors before its target, and forward"),
    "no samples": (dict(data=3), DataError, "an? int gives no samples"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_the_cluster_has_not_got_is_said_before_anything_starts(client, case):
    options, error, words = WRONG[case]
    jobs = len(client.jobs())
    with pytest.raises(error, match=words):
        train(made(), options.pop("data", net_data(SAMPLES)), **options, cluster=client)
    assert len(client.jobs()) == jobs


def test_options_become_fields_of_the_spec():
    model = made()
    assert loss_spec(functional.mse_loss) == {"mse": {}}
    assert loss_spec({"mse": {"output": "y"}}) == {"mse": {"output": "y"}}
    groups = [{"params": [parameter]} for parameter in model.parameters()]
    assert optimizer_spec(torch.optim.SGD(groups, lr=0.5), None, model)["sgd"]["lr"] == 0.5
    with pytest.raises(ValueError, match="same options for all parameters"):
        optimizer_spec(torch.optim.SGD([{**groups[0], "lr": 1.0}, *groups[1:]], lr=0.5), None, model)
    with pytest.raises(ValueError, match="must have all parameters"):
        optimizer_spec(torch.optim.SGD(groups[1:], lr=0.5), None, model)


def test_without_torch_and_without_grpc_the_rest_is_there(tmp_path):
    """A GPU machine has torch and no gRPC; a client's machine need not have torch."""
    def run(missing: str, program: str) -> None:
        text = f"import sys\nfor name in {missing.split()}: sys.modules[name] = None\n{program}"
        subprocess.run([sys.executable, "-c", text], check=True, cwd=tmp_path, timeout=120,
                       env=dict(os.environ, PYTHONPATH=str(ROOT / "client" / "python")))

    run("grpc google.protobuf yaml", "import gpipe, torch; from gpipe.data import write_tokens\n"
        "gpipe.export(torch.nn.Linear(2, 2), (torch.randn(3, 2),), 'm.pt2')\n"
        "assert gpipe.ExportError and gpipe.empty_weights")
    run("torch", "import gpipe\n"
        "assert gpipe.Client and gpipe.Cluster and gpipe.AsyncClient and gpipe.v1.JobSpec and dir(gpipe)")
    run("numpy", "import gpipe")
