"""Adapters on a frozen model, called by keyword through a wrapper, as PEFT makes them: on the cluster, against PyTorch."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cluster import gpipe, losses_of, write_spec
from exported import RTOL, expect_model
from gpipe import export
from reference import optimise

VOCABULARY, WIDTH, TOKENS, SAMPLES, BATCH, STEPS, RANK = 23, 16, 6, 8, 8, 4, 4
ADAPTED = ("query", "value")


@dataclasses.dataclass
class Output:
    loss: torch.Tensor | None
    logits: torch.Tensor


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x, mask):
        h = self.norm(x)
        attended = nn.functional.scaled_dot_product_attention(self.query(h), self.key(h), self.value(h), attn_mask=mask)
        return x + self.out(attended)


class Language(nn.Module):
    """A causal language model with the interface of Hugging Face's, and a tied head."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
        causal = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
        mask = causal & (attention_mask[:, None, :] > 0)
        x = self.tokens(input_ids)
        for block in self.blocks:
            x = block(x, mask)
        logits = self.head(x)
        loss = None if labels is None else nn.functional.cross_entropy(logits.transpose(1, 2), labels)
        return Output(loss, logits)


class LoraLinear(nn.Module):
    """As peft.tuners.lora.Linear."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base_layer = base
        self.lora_A, self.lora_B = nn.Linear(WIDTH, RANK, bias=False), nn.Linear(RANK, WIDTH, bias=False)

    def forward(self, x, *args, **kwargs):
        return self.base_layer(x, *args, **kwargs) + self.lora_B(self.lora_A(x)) * 2


class Adapted(nn.Module):
    """As peft.PeftModel: the model's parameters are frozen, and all arguments are passed on."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base_model = base.requires_grad_(False)
        for block in base.blocks:
            for name in ADAPTED:
                setattr(block, name, LoraLinear(getattr(block, name)))

    def forward(self, *args, **kwargs):
        return self.base_model(*args, **kwargs)


def make_job(folder, **pipeline) -> tuple[nn.Module, dict[str, torch.Tensor], dict]:
    torch.manual_seed(1)
    model = Adapted(Language())
    data = {"input_ids": torch.randint(VOCABULARY, (SAMPLES, TOKENS)),
            "attention_mask": (torch.arange(TOKENS) < torch.randint(2, TOKENS + 1, (SAMPLES, 1))).long(),
            "labels": torch.randint(VOCABULARY, (SAMPLES, TOKENS))}
    save_file(data, folder / "data.safetensors")
    export(model, {name: tensor[:3] for name, tensor in data.items()}, folder / "model.pt2")
    dataset = {"path": "data.safetensors", "inputs": list(data)}
    return model, data, {
        "name": "lora", "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"chunks": 2, **pipeline},
        "train": {"dataset": dataset, "batch_size": BATCH, "steps": STEPS, "grad_clip_norm": 0.5, "checkpoint_every": 2,
                  "loss": {"model_output": {"output": "loss"}},
                  "optimizer": {"adamw": {"lr": 0.01, "weight_decay": 0.1}}}}


def is_adapter(name: str) -> bool:
    return ".lora_" in name


@pytest.mark.parametrize("pipeline", [
    {"workers": 1}, {"workers": 2}, {"workers": 3, "checkpoint": "never"},
    # Before the first adapter there is nothing to train; what comes behind the last one passes gradients on.
    {"split": ["base_model.blocks.0", "base_model.blocks.2.out"]}], ids=str)
def test_adapters_are_trained_and_the_model_stays_bit_for_bit(cluster, tmp_path, pipeline):
    model, data, spec = make_job(tmp_path, **pipeline)
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    job = cluster.submit(write_spec(tmp_path, spec))
    assert cluster.wait(job)["state"] == "STATE_SUCCEEDED"
    out = cluster.pull(job, tmp_path / "out")

    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
    expected, _ = optimise(optimizer, (model(**data).loss for _ in range(STEPS)), 0.5)
    assert losses_of(out) == pytest.approx(expected, rel=RTOL)
    expect_model(out, model)
    trained, checkpoint = load_file(out / "model.safetensors"), out / "checkpoints" / "2"
    for name, tensor in initial.items():
        assert torch.equal(trained[name], tensor) != is_adapter(name), name
    state = load_file(checkpoint / "optimizer.safetensors")
    assert {name.partition("/")[0] for name in state} == {name for name in initial if is_adapter(name)}


def test_frozen_parameters_are_counted_and_not_as_trained(cluster, tmp_path):
    model, _, spec = make_job(tmp_path, workers=2)
    plan = gpipe("plan", write_spec(tmp_path, spec), "-o", "json", address=cluster.address).stdout
    layers = json.loads(plan)["plan"]["layers"]
    parameters = dict(model.named_parameters())
    seen = set()
    for layer in layers:
        own = [parameters[tensor["name"]] for tensor in layer.get("tensors", []) if tensor["name"] in parameters]
        seen |= {tensor["name"] for tensor in layer.get("tensors", [])}
        assert int(layer.get("parameter_count", 0)) == sum(p.numel() for p in own)
        assert int(layer.get("parameter_bytes", 0)) == sum(p.nbytes for p in own)
        assert int(layer.get("trainable_count", 0)) == sum(p.numel() for p in own if p.requires_grad)
    assert seen >= set(parameters)


def test_adapters_go_on_from_a_checkpoint_on_other_workers(cluster, tmp_path):
    model, data, spec = make_job(tmp_path, workers=2)
    half = cluster.submit(write_spec(tmp_path, {**spec, "train": {**spec["train"], "steps": 2}}))
    assert cluster.wait(half)["state"] == "STATE_SUCCEEDED"
    spec["pipeline"]["workers"] = 3
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out", "--resume", half)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.1)
    expected, _ = optimise(optimizer, (model(**data).loss for _ in range(STEPS)), 0.5)
    assert losses_of(out) == pytest.approx(expected[2:], rel=RTOL)
    expect_model(out, model)


def test_inputs_of_a_wrapper_are_known_by_their_keywords(cluster, tmp_path):
    model, data, spec = make_job(tmp_path)
    del spec["train"]
    export(model, {name: data[name][:3] for name in ("attention_mask", "input_ids")}, tmp_path / "model.pt2")
    spec |= {"pipeline": {"workers": 2}, "infer": {"inputs": "data.safetensors", "batch_size": 3}}
    found = load_file(cluster.run(write_spec(tmp_path, spec), tmp_path / "out") / "outputs.safetensors")
    assert list(found) == ["logits"]
    with torch.no_grad():
        expected = model.eval()(input_ids=data["input_ids"], attention_mask=data["attention_mask"]).logits
    torch.testing.assert_close(found["logits"], expected, rtol=RTOL, atol=RTOL)


class Decayed(nn.Module):
    """Writes to a parameter that is not trained."""

    def __init__(self):
        super().__init__()
        self.scale, self.layer = nn.Parameter(torch.ones(WIDTH), requires_grad=False), nn.Linear(WIDTH, 3)
        self.first = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        x = torch.tanh(self.first(x))
        self.scale.mul_(0.9)
        return self.layer(x * self.scale)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_frozen_parameter_that_is_written_to_is_written_once_a_mini_batch(cluster, tmp_path, workers):
    torch.manual_seed(1)
    model, x, y = Decayed(), torch.randn(SAMPLES, WIDTH), torch.randint(3, (SAMPLES,))
    save_file({"x": x, "y": y}, tmp_path / "data.safetensors")
    export(model, (x[:3],), tmp_path / "model.pt2")
    spec = {"name": "decayed", "model": {"exported": {"path": "model.pt2"}}, "pipeline": {"chunks": 4, "workers": workers},
            "train": {"dataset": {"path": "data.safetensors", "inputs": ["x"], "target": "y"}, "batch_size": BATCH,
                      "steps": STEPS, "loss": {"cross_entropy": {}}, "optimizer": {"sgd": {"lr": 0.1}}}}
    out = cluster.run(write_spec(tmp_path, spec), tmp_path / "out")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses, _ = optimise(optimizer, (nn.functional.cross_entropy(model(x), y) for _ in range(STEPS)))
    assert losses_of(out) == pytest.approx(losses, rel=RTOL)
    expect_model(out, model)


@pytest.mark.parametrize("freeze", [[], ["base_model."]], ids=["exported", "freeze"])
def test_where_nothing_is_trained_the_job_is_refused(cluster, tmp_path, freeze):
    model, data, spec = make_job(tmp_path, workers=1)
    if not freeze:  # As PeftModel.from_pretrained() leaves an adapter.
        export(model.requires_grad_(False), {name: data[name][:3] for name in data}, tmp_path / "model.pt2")
    spec["train"]["freeze"] = freeze
    said = cluster.refusal(write_spec(tmp_path, spec))
    assert "model.exported.path: there is nothing to train: each of its parameters was exported with" in said
    assert ("or is frozen by train.freeze" in said) == bool(freeze) and "is_trainable=True" in said
