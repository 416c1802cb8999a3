"""Rounds that a client asks for (RoundService), against PyTorch in one process."""

import grpc
import pytest
import torch
from api import Api
from cluster import DEVICE, gpipe, write_spec
from rounds import Exchange, Rounds, end_of
from torch import nn

VALUES, GRADIENTS, OPTIMIZER = (f"STATE_KIND_{kind}" for kind in ("VALUES", "GRADIENTS", "OPTIMIZER"))
RTOL = 1e-5 if DEVICE == "cpu" else 1e-4


def layers() -> list[dict]:
    return [{"linear": {"in_features": 12, "out_features": 20}}, {"tanh": {}}, {"linear": {"in_features": 20, "out_features": 16}},
            {"relu": {}}, {"linear": {"in_features": 16, "out_features": 5}}]


def reference() -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 5))


def spec_of(exchange, **client) -> dict:
    return {"name": "asked", "model": {"sequential": layers()},
            "pipeline": {"balance": [2, 2, 1], "chunks": 4, "checkpoint": "except_last"},
            "train": {"dataset": {"client": {"inputs": [{"name": "input", "dtype": "float32", "shape": [12]}],
                                             "exchange": str(exchange), **client}},
                      "batch_size": 16, "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}}}


@pytest.fixture
def exchange():
    with Exchange() as folder:
        yield folder


@pytest.fixture
def opened(cluster, tmp_path, exchange):
    """Opens a job's rounds, with a model of the same weights beside them."""
    calls = []

    def make(change=lambda spec: None, **client):
        spec = spec_of(exchange, **client)
        change(spec)
        job = cluster.submit(write_spec(tmp_path, spec))
        calls.append(Rounds(Api(cluster.address), job, exchange))
        torch.manual_seed(1)
        model = reference()
        calls[-1].do("SET_STATE", dict(model.state_dict()), state=VALUES)
        return job, calls[-1], model
    yield make
    for call in calls:
        call.cancel()


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=RTOL, atol=RTOL * float(expected.abs().max()) + 1e-7)


def check_state(rounds: Rounds, model: nn.Module, kind=VALUES):
    found = rounds.do("GET_STATE", state=kind)
    expected = {name: p.grad for name, p in model.named_parameters()} if kind == GRADIENTS else model.state_dict()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        close(found[name], tensor)


def test_a_training_loop_of_a_client_trains_as_pytorch(cluster, opened):
    job, rounds, model = opened()
    assert [output["name"] for output in rounds.outputs] == ["output"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step, size in enumerate((16, 16, 7, 2, 16)):  # The programs of 7 and 2 samples come while the job runs.
        x, y = torch.randn(size, 12), torch.randn(size, 5)
        output = model(x)
        forward = rounds.ask("FORWARD", {"input": x}, batch_size=size)
        close(rounds.made(forward)["output"], output.detach())
        optimizer.zero_grad()
        output.retain_grad()
        nn.functional.mse_loss(output, y).backward()
        rounds.ask("ZERO_GRADIENTS")
        assert rounds.do("BACKWARD", {"output": output.grad}, forward=forward) == {}
        check_state(rounds, model, GRADIENTS)
        lr = 0.1 / (step + 1)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        rounds.ask("UPDATE", learning_rate=lr)
        check_state(rounds, model)
    rounds.close()
    assert cluster.job(job)["state"] == "STATE_SUCCEEDED"


def test_several_forwards_are_open_at_once_and_gradients_add_up(opened):
    _, rounds, model = opened(input_gradients=True)
    inputs = [torch.randn(size, 12, requires_grad=True) for size in (16, 8, 5)]
    numbers = [rounds.ask("FORWARD", {"input": x.detach()}, batch_size=len(x)) for x in inputs]
    dropped = rounds.ask("FORWARD", {"input": torch.randn(16, 12)}, batch_size=16)
    rounds.ask("DROP", forward=dropped)
    for x, number in reversed(list(zip(inputs, numbers))):
        output = model(x)
        close(rounds.made(number)["output"], output.detach())
        gradient = torch.randn_like(output)
        output.backward(gradient)
        close(rounds.do("BACKWARD", {"output": gradient}, forward=number)["input"], x.grad)
    check_state(rounds, model, GRADIENTS)


@pytest.mark.parametrize("rule", [{"sgd": {"lr": 0.1}}, {"adamw": {"lr": 0.1}}], ids=["sgd", "adamw"])
def test_a_forward_from_before_an_update_does_not_go_back(cluster, opened, rule):
    def change(spec):
        spec["train"]["optimizer"], spec["pipeline"]["checkpoint"] = rule, "never"
    job, rounds, _ = opened(change)
    x, gradient = torch.randn(16, 12), torch.randn(16, 5)
    for _ in range(3):  # On a GPU the last one is replayed.
        rounds.do("BACKWARD", {"output": gradient}, forward=rounds.ask("FORWARD", {"input": x}, batch_size=16))
    before = rounds.ask("FORWARD", {"input": x}, batch_size=16)
    after = rounds.ask("FORWARD", {"input": x}, batch_size=16)
    rounds.do("BACKWARD", {"output": gradient}, forward=after)
    rounds.ask("UPDATE", learning_rate=0.1)
    rounds.ask("BACKWARD", {"output": gradient}, forward=before)
    code, details = end_of(rounds.answers)
    assert code == grpc.StatusCode.ABORTED
    assert "modified by an inplace operation" in details or "changed since the forward pass" in details
    assert cluster.wait(job)["state"] == "STATE_FAILED"


def test_predictions_and_what_they_leave(opened):
    _, rounds, model = opened()
    x = torch.randn(9, 12)
    close(rounds.do("PREDICT", {"input": x}, batch_size=9)["output"], model(x).detach())
    assert rounds.do("GET_STATE", state=GRADIENTS) == {}


def test_gradients_that_a_client_sets_are_what_the_update_takes(opened):
    _, rounds, model = opened()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    rounds.ask("SET_STATE", {name: p.grad for name, p in model.named_parameters()}, state=GRADIENTS)
    rounds.ask("UPDATE")
    optimizer.step()
    check_state(rounds, model)


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, torch.Tensor]:
    """By the names of the cluster."""
    return {f"{name}/{slot}": tensor.long() if slot == "step" else tensor
            for name, parameter in model.named_parameters() for slot, tensor in optimizer.state[parameter].items()}


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_client_gets_the_state_of_the_optimizer_and_gives_it_to_another_job(opened, kind):
    settings = {"sgd": {"lr": 0.1, "momentum": 0.9}, "adam": {"lr": 0.1}}[kind]

    def choose(spec):
        spec["train"]["optimizer"] = {kind: settings}

    def step(rounds, model, optimizer):
        """Only the first layer has gradients."""
        first = dict(list(model.named_parameters())[:2])
        for parameter in first.values():
            parameter.grad = torch.randn_like(parameter)
        rounds.ask("SET_STATE", {name: p.grad for name, p in first.items()}, state=GRADIENTS)
        rounds.ask("UPDATE")
        optimizer.step()

    _, rounds, model = opened(choose)
    optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[kind](model.parameters(), **settings)
    assert rounds.do("GET_STATE", state=OPTIMIZER) == {}
    for _ in range(2):
        step(rounds, model, optimizer)
    state, expected = rounds.do("GET_STATE", state=OPTIMIZER), optimizer_state(optimizer, model)
    assert state.keys() == expected.keys() and len(state) == 2 * len(optimizer.state[next(model.parameters())])
    for name, tensor in expected.items():
        close(state[name], tensor)
    values = rounds.do("GET_STATE", state=VALUES)
    rounds.close()

    _, rounds, _ = opened(choose)
    rounds.do("SET_STATE", values, state=VALUES)
    rounds.do("SET_STATE", state, state=OPTIMIZER)
    step(rounds, model, optimizer)
    check_state(rounds, model)
    rounds.do("SET_STATE", {}, state=OPTIMIZER)  # It is set whole.
    assert rounds.do("GET_STATE", state=OPTIMIZER) == {}


def test_a_client_that_goes_away_cancels_its_job(cluster, opened):
    job, rounds, _ = opened()
    rounds.cancel()
    assert cluster.wait(job)["state"] == "STATE_CANCELLED"
    cluster.wait_idle(3)


def test_a_job_that_is_cancelled_ends_the_call(cluster, opened):
    job, rounds, _ = opened()
    Api(cluster.address).CancelJob(id=job)
    assert end_of(rounds.answers)[0] == grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("ask, field", [
    (lambda r: r.ask("TRAIN"), "round.kind"), (lambda r: r.ask("FORWARD", {"input": torch.ones(1, 12)}), "round.batch_size"),
    (lambda r: r.ask("BACKWARD", {"output": torch.ones(1, 5)}, forward=99), "round.forward"),
    (lambda r: r.ask("FORWARD", batch_size=4), "round.data"),
    (lambda r: r.ask("GET_STATE"), "round.state")], ids=["kind", "batch_size", "forward", "no data", "state"])
def test_what_makes_no_sense_ends_the_call(cluster, opened, ask, field):
    job, rounds, _ = opened()
    ask(rounds)
    code, details = end_of(rounds.answers)
    assert code == grpc.StatusCode.INVALID_ARGUMENT and field in details
    assert cluster.wait(job)["state"] == "STATE_CANCELLED"


def test_a_tensor_of_another_size_fails_the_job_with_its_name(cluster, opened):
    job, rounds, _ = opened()
    rounds.ask("FORWARD", {"input": torch.randn(3, 12)}, batch_size=16)
    code, details = end_of(rounds.answers)
    assert code == grpc.StatusCode.ABORTED and "the client's input 'input' has 3 samples, not 16" in details
    assert cluster.wait(job)["state"] == "STATE_FAILED"


def test_one_client_a_job(cluster, opened, exchange):
    job, _, _ = opened()
    with pytest.raises(grpc.RpcError) as refused:
        Rounds(Api(cluster.address), job, exchange)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def test_a_job_with_a_timeline_has_no_client(cluster, tmp_path, exchange):
    spec = spec_of(exchange)
    spec["train"] |= {"dataset": {"random": {"samples": 16, "input_shape": [12], "classes": 5}}, "steps": 100000,
                      "loss": {"cross_entropy": {}}}
    job = cluster.submit(write_spec(tmp_path, spec))
    with pytest.raises(grpc.RpcError) as refused:
        Rounds(Api(cluster.address), job, exchange)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    Api(cluster.address).CancelJob(id=job)
    cluster.wait_idle(3)


def test_gpipe_run_has_no_program_that_asks_for_rounds(tmp_path, exchange):
    refused = gpipe("run", write_spec(tmp_path, spec_of(exchange)), check=False)
    assert refused.returncode == 2 and "train.dataset.client" in refused.stderr and "asks for none" in refused.stderr
