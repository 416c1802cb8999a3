"""Known architectures in small configurations, for architectures.py and architectures_cluster.py.

Those of timm, torchvision, transformers and peft need these packages (seen with timm 1.0.31, torchvision 0.26.0,
transformers 5.24.0 and peft 0.21.2); nothing is downloaded: weights are random. Dropout is off in all but RANDOM, as random numbers are
seeded by node here, and by nothing but their order in PyTorch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from corners import CORNERS

BATCH = 3

Case = tuple[nn.Module, dict[str, torch.Tensor]]


# --- timm and torchvision ---

def timm_model(name: str, size: int = 32, **options: Any) -> Case:
    import timm
    return timm.create_model(name, num_classes=7, **options), {"x": torch.randn(BATCH, 3, size, size)}


def torchvision_model(name: str, size: int = 64, **options: Any) -> Case:
    import torchvision
    return getattr(torchvision.models, name)(num_classes=7, **options), {"x": torch.randn(BATCH, 3, size, size)}


def densenet() -> Case:
    from timm.models.densenet import DenseNet
    return DenseNet(growth_rate=8, block_config=(2, 3, 2), num_classes=7), {"x": torch.randn(BATCH, 3, 64, 64)}


def swin() -> Case:
    return timm_model("swin_tiny_patch4_window7_224", 64, img_size=64, window_size=4, embed_dim=16, depths=(2, 2),
                      num_heads=(2, 4), drop_path_rate=0.0)


def vit() -> Case:
    return timm_model("vit_tiny_patch16_224", 32, img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=4)


def convnext() -> Case:
    return timm_model("convnext_atto", 64, depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))


# --- transformers ---

VOCABULARY, LENGTH = 61, 12


def ids() -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (BATCH, LENGTH))


def mask() -> torch.Tensor:
    return (torch.arange(LENGTH) < torch.tensor([[LENGTH], [9], [5]])).long()


def transformer(config: str, model: str, inputs: Callable[[], dict[str, torch.Tensor]], **options: Any) -> Case:
    import transformers
    transformers.logging.set_verbosity_error()
    options = {"vocab_size": VOCABULARY, "use_cache": False, "bos_token_id": 1, "eos_token_id": 2,
               "pad_token_id": 0} | options
    return getattr(transformers, model)(getattr(transformers, config)(**options)), inputs()


def causal() -> dict[str, torch.Tensor]:
    return {"input_ids": ids(), "attention_mask": mask()}


def encoder_decoder() -> dict[str, torch.Tensor]:
    return {"input_ids": ids(), "attention_mask": mask(), "decoder_input_ids": ids()}


def gpt2() -> Case:
    return transformer("GPT2Config", "GPT2LMHeadModel", causal, n_layer=3, n_embd=32, n_head=4, n_positions=32,
                       resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)


def gpt2_loss() -> Case:
    """The model computes its own loss."""
    model, inputs = gpt2()
    return model, inputs | {"labels": inputs["input_ids"].clone()}


def bert() -> Case:
    return transformer("BertConfig", "BertForMaskedLM", causal, hidden_size=32, num_hidden_layers=3,
                       num_attention_heads=4, intermediate_size=64, max_position_embeddings=32,
                       hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def t5() -> Case:
    return transformer("T5Config", "T5ForConditionalGeneration", encoder_decoder, d_model=32, d_kv=8, d_ff=64,
                       num_layers=2, num_decoder_layers=2, num_heads=4, dropout_rate=0.0, tie_word_embeddings=True)


def bart() -> Case:
    return transformer("BartConfig", "BartForConditionalGeneration", encoder_decoder, d_model=32, encoder_layers=2,
                       decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
                       decoder_ffn_dim=64, max_position_embeddings=32, dropout=0.0, decoder_start_token_id=2)


ROTARY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
          "num_key_value_heads": 2, "max_position_embeddings": 32}


def llama() -> Case:
    return transformer("LlamaConfig", "LlamaForCausalLM", causal, **ROTARY)


def lora(base: Callable[[], Case], *adapted: str) -> Case:
    """PeftModel.forward() is (*args, **kwargs): what it is called with is the base model's."""
    import peft
    model, inputs = base()
    return peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=list(adapted))), inputs


def qwen2() -> Case:
    return transformer("Qwen2Config", "Qwen2ForCausalLM", causal, **ROTARY, tie_word_embeddings=True)


def mixtral(experts: str = "batched_mm") -> Case:
    return transformer("MixtralConfig", "MixtralForCausalLM", causal, **ROTARY, num_local_experts=4,
                       num_experts_per_tok=2, experts_implementation=experts)


def gemma2() -> Case:
    return transformer("Gemma2Config", "Gemma2ForCausalLM", causal, **ROTARY, head_dim=8, sliding_window=4,
                       layer_types=["sliding_attention", "full_attention", "sliding_attention"])


def gpt_neox() -> Case:
    return transformer("GPTNeoXConfig", "GPTNeoXForCausalLM", causal, hidden_size=32, intermediate_size=64,
                       num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=32, hidden_dropout=0.0)


def whisper() -> Case:
    def inputs() -> dict[str, torch.Tensor]:
        return {"input_features": torch.randn(BATCH, 8, 24), "decoder_input_ids": ids()}
    return transformer("WhisperConfig", "WhisperForConditionalGeneration", inputs, d_model=32, encoder_layers=2,
                       decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
                       decoder_ffn_dim=64, num_mel_bins=8, max_source_positions=12, max_target_positions=16,
                       dropout=0.0, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None)


# --- Written by hand ---

def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
                         nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class UNet(nn.Module):
    def __init__(self, widths: tuple[int, ...] = (6, 12, 24)):
        super().__init__()
        self.down = nn.ModuleList(block(a, b) for a, b in zip((3, *widths), widths))
        pairs = list(zip(widths, widths[1:]))[::-1]
        self.widen = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(block(2 * a, a) for a, _ in pairs)
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, image):
        skips, x = [], image
        for i, down in enumerate(self.down):
            x = down(x if i == 0 else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for widen, up, skip in zip(self.widen, self.up, skips[-2::-1]):
            x = up(torch.cat([skip, widen(x)], 1))
        return {"mask": self.head(x)}


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 12)
        self.lstm = nn.LSTM(12, 16, num_layers=2, batch_first=True)
        self.gru = nn.GRU(16, 8, bidirectional=True, batch_first=True)
        self.head = nn.Linear(16, VOCABULARY)

    def forward(self, tokens):
        return self.head(self.gru(self.lstm(self.embedding(tokens))[0])[0])


class Joined(nn.Module):
    """Three inputs, two outputs, one of which is an input of a later layer too; a layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.text = nn.EmbeddingBag(VOCABULARY, 16)
        self.numbers = nn.Linear(5, 16)
        self.shared = nn.Linear(16, 16)
        self.value, self.classes = nn.Linear(16, 1), nn.Linear(17, 6)

    def forward(self, image, tokens, numbers):
        x = torch.tanh(self.shared(self.image(image))) + self.text(tokens) * self.numbers(numbers)
        value = self.value(torch.relu(self.shared(x)))
        return self.classes(torch.cat([x, value], 1)), value.squeeze(1)


def joined() -> Case:
    return Joined(), {"image": torch.randn(BATCH, 3, 8, 8), "tokens": ids(), "numbers": torch.randn(BATCH, 5)}


def mlp(dropout: float = 0.0) -> Case:
    layers = [layer for _ in range(4) for layer in (nn.Linear(10, 10), nn.GELU(), nn.Dropout(dropout))]
    return nn.Sequential(*layers, nn.Linear(10, 3)), {"input": torch.randn(BATCH, 10)}


CASES: dict[str, Callable[[], Case]] = {
    "timm resnet10t": lambda: timm_model("resnet10t", 64),
    "torchvision resnet18": lambda: torchvision_model("resnet18"),
    "timm efficientnet_b0": lambda: timm_model("efficientnet_b0", 64, drop_rate=0.0, drop_path_rate=0.0),
    "timm convnext": convnext,
    "timm densenet": densenet,
    "timm vit": vit,
    "timm swin": swin,
    "timm mobilenetv3_small_050": lambda: timm_model("mobilenetv3_small_050", 64, drop_rate=0.0),
    "timm regnetx_002": lambda: timm_model("regnetx_002", 64),
    "timm mixer": lambda: timm_model("mixer_s32_224", 64, img_size=64),
    "torchvision googlenet": lambda: torchvision_model("googlenet", aux_logits=False, init_weights=False, dropout=0.0),
    "torchvision googlenet, aux": lambda: torchvision_model("googlenet", 96, aux_logits=True, init_weights=False,
                                                            dropout=0.0, dropout_aux=0.0),
    "U-Net": lambda: (UNet(), {"image": torch.randn(BATCH, 3, 16, 16)}),
    "gpt2 (tied)": gpt2,
    "gpt2 with its loss": gpt2_loss,
    "gpt_neox": gpt_neox,
    "bert (tied)": bert,
    "t5 (tied)": t5,
    "bart (tied)": bart,
    "llama": llama,
    "llama with LoRA": lambda: lora(llama, "q_proj", "v_proj"),
    "gpt2 with its loss and LoRA (tied)": lambda: lora(gpt2_loss, "c_attn"),
    "qwen2 (tied)": qwen2,
    "gemma2": gemma2,
    "mixtral batched_mm": mixtral,
    "whisper": whisper,
    "lstm and gru": lambda: (Lstm(), {"tokens": ids()}),
    "mlp with dropout(0)": mlp,
    "mlp with dropout(0.4)": lambda: mlp(0.4),
    "three inputs, two outputs": joined,
} | {f"corner: {name}": case for name, case in CORNERS.items()}

# Eager PyTorch draws other random numbers: their cuts are compared with the whole, bit for bit.
RANDOM = {"mlp with dropout(0.4)"}


def make(name: str, steps: int) -> tuple[nn.Module, list[dict[str, Any]]]:
    """A model, and new inputs for each step. The same ones in each call."""
    torch.manual_seed(1)
    model, inputs = CASES[name]()
    return model, [inputs] + [CASES[name]()[1] for _ in range(steps - 1)]


# --- Names, as exported programs have them ---

def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its place: keys of dicts and fields, positions in tuples and lists."""
    if dataclasses.is_dataclass(values) and not isinstance(values, dict):
        values = {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    elif isinstance(values, tuple) and type(values) is not tuple:  # Named, as those of torch.return_types are.
        values = dict(zip(type(values).__match_args__, values))
    if not isinstance(values, (dict, list, tuple)):
        yield path, values
        return
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield from leaves(value, f"{path}.{key}" if path else str(key))


def named_inputs(inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name.replace(".", "_"): value for name, value in leaves(inputs) if isinstance(value, torch.Tensor)}


def named_outputs(outputs: Any) -> dict[str, torch.Tensor]:
    """A place that is only a position is no name."""
    found = {}
    for i, (name, value) in enumerate(leaves(outputs)):
        number = f"output_{i}" if i else "output"
        if isinstance(value, torch.Tensor):
            found[number if not name or name.isdigit() else name] = value
    return found
