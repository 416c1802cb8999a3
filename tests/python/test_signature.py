"""gpipe.export: models that are called by keyword, wrappers that pass everything on, and what models return. PyTorch
only."""

from __future__ import annotations

import collections
import dataclasses
import inspect
from typing import NamedTuple

import pytest
import torch
import torch.utils._pytree as pytree
from torch import nn

from gpipe import ExportError, export

VOCABULARY, WIDTH = 11, 6


class Language(nn.Module):
    """Called as the models of Hugging Face are; what it does not know is passed over."""

    def __init__(self):
        super().__init__()
        self.tokens, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, input_ids=None, attention_mask=None, labels=None, use_cache=None, **kwargs):
        x = self.tokens(input_ids)
        if attention_mask is not None:
            x = x * attention_mask[:, :, None]
        if "scale" in kwargs:
            x = x * kwargs["scale"][:, None, None]
        logits = self.head(x)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits.transpose(1, 2), labels), "logits": logits}


class Wrapper(nn.Module):
    """As PeftModel."""

    def __init__(self):
        super().__init__()
        self.base_model = Language()

    def forward(self, *args, **kwargs):
        return self.base_model(*args, **kwargs)


def tokens() -> torch.Tensor:
    return torch.randint(VOCABULARY, (3, 4))


def by_name(*names: str) -> dict[str, torch.Tensor]:
    made = {"input_ids": tokens, "labels": tokens, "attention_mask": lambda: torch.ones(3, 4), "scale": lambda: torch.rand(3)}
    return {name: made[name]() for name in names}


def loaded(path) -> nn.Module:
    return torch.export.load(path).module()


@pytest.mark.parametrize("make", [Language, Wrapper])
@pytest.mark.parametrize("names", [("input_ids", "labels"), ("input_ids", "attention_mask", "labels", "scale")], ids=len)
def test_inputs_have_the_names_of_the_keywords(tmp_path, make, names):
    model, path = make(), tmp_path / "m.pt2"
    program = export(model, by_name(*names), path)
    assert program.graph_signature.user_inputs == names
    given = {name: torch.cat([value, value]) for name, value in by_name(*names).items()}  # Another batch size.
    found, expected = loaded(path)(**given), model(**given)
    assert list(found) == list(expected) == ["loss", "logits"]
    torch.testing.assert_close(found, expected)


def test_a_wrapper_may_have_positions_names_constants_and_shapes(tmp_path):
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=64)
    shapes = {"args": ({0: batch, 1: length},), "labels": {0: batch, 1: length}, "use_cache": None}
    model, path = Wrapper(), tmp_path / "m.pt2"
    given = {"labels": tokens(), "use_cache": False}
    export(model, (tokens(),), path, example_kwargs=given, dynamic_shapes=shapes)
    assert loaded(path)(torch.zeros(5, 9, dtype=torch.long), labels=torch.zeros(5, 9, dtype=torch.long),
                        use_cache=False)["logits"].shape == (5, 9, VOCABULARY)


def test_one_tensor_for_two_inputs_is_two_inputs(tmp_path):
    model, path, ids = Language(), tmp_path / "m.pt2", tokens()
    export(model, {"input_ids": ids, "labels": ids}, path)
    given = by_name("input_ids", "labels")
    torch.testing.assert_close(loaded(path)(**given), model(**given))


@pytest.mark.parametrize("make", [Language, Wrapper])
def test_a_name_that_nothing_uses_is_refused(tmp_path, make):
    inputs = by_name("input_ids", "labels")
    inputs["label"] = inputs.pop("labels")
    with pytest.raises(ExportError, match="nothing uses the input 'label'" if make is Language else "label"):
        export(make(), inputs, tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())


def test_the_models_call_is_left_as_it_was(tmp_path):
    model = Wrapper()
    export(model, by_name("input_ids"), tmp_path / "m.pt2")
    assert "forward" not in vars(model) and not model._forward_hooks
    assert list(inspect.signature(model.forward).parameters) == ["args", "kwargs"]


def test_a_constant_does_not_keep_other_batch_sizes_from_being_compared(tmp_path):
    class Odd(nn.Module):
        """Does something else where it is not being exported, for more samples than the example has."""

        def forward(self, x, scale):
            return x * (scale if torch.compiler.is_exporting() or len(x) < 4 else -scale)

    with pytest.raises(ExportError, match="outputs differ"):
        export(Odd(), (torch.randn(3, 2), 2.0), tmp_path / "m.pt2")


# --- Outputs ---

Pair = collections.namedtuple("Pair", ["logits", "hidden"])


class Typed(NamedTuple):
    logits: torch.Tensor
    hidden: list[torch.Tensor]


@dataclasses.dataclass
class Fields:
    logits: torch.Tensor
    hidden: torch.Tensor | None = None


class ModelOutput(collections.OrderedDict):
    """As Hugging Face's: a dict with its keys as attributes."""

    def __getattr__(self, name):
        return self[name]


class Registered:
    """Known to PyTorch by its user."""

    def __init__(self, logits, hidden):
        self.logits, self.hidden = logits, hidden


pytree.register_pytree_node(
    Registered, lambda r: ([r.logits, r.hidden], None), lambda values, _: Registered(*values),
    flatten_with_keys_fn=lambda r: ([(pytree.GetAttrKey("logits"), r.logits), (pytree.GetAttrKey("hidden"), r.hidden)], None))


class Returns(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(WIDTH, WIDTH), function

    def forward(self, x):
        return self.function(self.layer(x))


@pytest.mark.parametrize("function, names", [
    (lambda y: Pair(y, y * 2), ["logits", "hidden"]),
    (lambda y: Typed(y, [y * 2, y * 3]), ["logits", "hidden.0", "hidden.1"]),
    (lambda y: Fields(y, y * 2), ["logits", "hidden"]),
    (lambda y: Fields(y), ["logits", "hidden"]),
    (lambda y: ModelOutput(logits=y, hidden=(y * 2,)), ["logits", "hidden.0"]),
    (lambda y: Registered(y, y * 2), ["logits", "hidden"]),
    (lambda y: torch.max(y, dim=1), ["values", "indices"]),
    (lambda y: {"best": torch.topk(y, 2), "logits": y}, ["best.values", "best.indices", "logits"]),
    (lambda y: [y, (y * 2, Pair(y, y * 3))], ["0", "1.0", "1.1.logits", "1.1.hidden"]),
], ids=["namedtuple", "NamedTuple", "dataclass", "dataclass with None", "ModelOutput", "registered", "max", "topk", "nested"])
def test_outputs_have_the_names_of_their_fields(tmp_path, function, names):
    model, x = Returns(function), torch.randn(3, WIDTH)
    export(model, (x,), tmp_path / "m.pt2")
    found = pytree.tree_flatten_with_path(loaded(tmp_path / "m.pt2")(x))[0]
    assert [".".join(str(getattr(key, "key", getattr(key, "idx", None))) for key in path) for path, _ in found] == names
    if names[0] == "values":
        torch.testing.assert_close(found[0][1], model.layer(x).max(1).values)


def test_hooks_see_what_forward_returns(tmp_path):
    model = Returns(lambda y: Fields(y, y * 2))
    model.register_forward_hook(lambda _, __, returned: Fields(returned.hidden, returned.logits))
    x = torch.randn(3, WIDTH)
    export(model, (x,), tmp_path / "m.pt2")
    torch.testing.assert_close(loaded(tmp_path / "m.pt2")(x)["logits"], model.layer(x) * 2)


def test_an_output_that_is_nothing_of_pytorchs_is_refused_with_its_place(tmp_path):
    with pytest.raises(ExportError, match=r"returns a range at cache.0, which .*\(use_cache=False\)"):
        export(Returns(lambda y: {"logits": y, "cache": [range(3)]}), (torch.randn(3, WIDTH),), tmp_path / "m.pt2")
