#!/usr/bin/env python3
"""What `gpipe plan` foretells of a step, beside what the workers then measure: GPT-2 (12 layers, tied) and T5 (4 + 4
layers, tied) from transformers, on K workers of one thread, cut by measurement.

    bench/forecast.py [--workers 3] [--runs 3] [--drawings FOLDER]

A run is a new cluster with a profile of its own. Needs transformers.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import common

sys.path.insert(0, str(common.ROOT / "client" / "python"))

VOCABULARY, TOKENS, WIDTH, CHUNKS = 1000, 64, 128, 8


def gpt2():
    import transformers
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_positions=TOKENS, n_embd=WIDTH, n_layer=12, n_head=4,
                                     resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False, bos_token_id=0,
                                     eos_token_id=0)
    return transformers.GPT2LMHeadModel(config), ["input_ids"]


def t5():
    import transformers
    config = transformers.T5Config(vocab_size=VOCABULARY, d_model=WIDTH, d_kv=32, d_ff=256, num_layers=4,
                                   num_decoder_layers=4, num_heads=4, dropout_rate=0, decoder_start_token_id=0,
                                   use_cache=False)
    return transformers.T5ForConditionalGeneration(config), ["input_ids", "decoder_input_ids"]


def write_job(folder: pathlib.Path, name: str, make, workers: int, checkpoint: str) -> pathlib.Path:
    import torch
    from safetensors.torch import save_file
    from gpipe import export

    class Logits(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, decoder_input_ids=None):
            decoder = {} if decoder_input_ids is None else {"decoder_input_ids": decoder_input_ids}
            return {"logits": self.model(input_ids=input_ids, **decoder, use_cache=False).logits}

    torch.manual_seed(0)
    model, inputs = make()
    ids = {input: torch.randint(VOCABULARY, (common.BATCH, TOKENS)) for input in inputs}
    if not (folder / f"{name}.pt2").exists():
        export(Logits(model), tuple(tensor[:2] for tensor in ids.values()), folder / f"{name}.pt2")
    save_file({**ids, "labels": torch.randint(VOCABULARY, (common.BATCH, TOKENS))}, folder / f"{name}.safetensors")
    return common.write_spec(folder, {
        "name": f"{name}-{checkpoint}",
        "model": {"exported": {"path": f"{name}.pt2"}},
        "pipeline": {"workers": workers, "chunks": CHUNKS, "checkpoint": checkpoint},
        "train": {"dataset": {"path": f"{name}.safetensors", "inputs": inputs, "target": "labels"},
                  "batch_size": common.BATCH, "steps": 12, "loss": {"cross_entropy": {"class_dim": -1}},
                  "optimizer": {"sgd": {"lr": 0.01}}}})


def one_run(spec: pathlib.Path) -> tuple[float, float]:
    """Predicted and measured seconds of a step."""
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([str(common.BIN / "gpipe"), "run", str(spec), "--threads", "1", "--output", out, "-q"],
                       check=True, stdin=subprocess.DEVNULL)
        steps = common.read_jsonl(pathlib.Path(out) / "metrics.jsonl")[1:]
        forecast = json.loads((pathlib.Path(out) / "job.json").read_text())["forecast"]
    return forecast["step_seconds"], statistics.median(step["step_seconds"] for step in steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--drawings", type=pathlib.Path)
    options = parser.parse_args()
    print(f"machine: {common.machine()}")
    with tempfile.TemporaryDirectory() as name:
        for model, make in (("gpt2", gpt2), ("t5", t5)):
            for checkpoint in ("always", "never"):
                spec = write_job(pathlib.Path(name), model, make, options.workers, checkpoint)
                for predicted, measured in (one_run(spec) for _ in range(options.runs)):
                    print(f"{spec.stem}: predicted {predicted * 1e3:.1f} ms, measured {measured * 1e3:.1f} ms, "
                          f"{predicted / measured:.2f} of it", flush=True)
            if options.drawings:
                common.gpipe("plan", spec, "--svg", options.drawings / f"plan_{model}.svg")


if __name__ == "__main__":
    main()
