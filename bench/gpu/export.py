#!/usr/bin/env python3
"""Writes a size of the table for all of its rows: FOLDER/model.pt2 without weights, FOLDER/weights/, and the data of
each number of micro-batches.

    bench/gpu/export.py --size small --chunks 8 32 --out FOLDER
"""

import argparse
import dataclasses
import pathlib

from safetensors.torch import save_file

import model
from decoder import export, write_weights


def write_program(shape: model.Shape, path: pathlib.Path) -> None:
    """Compared with PyTorch in a copy of two narrow layers."""
    narrow = dataclasses.replace(shape, width=64, heads=4, inner=128, layers=2, vocabulary=256,
                                 tokens=min(shape.tokens, 64))
    check = (model.Decoder(narrow), model.data_of(narrow, 2)[:1])
    export(model.empty_model(shape), model.data_of(shape, 2)[:1], path, weights=False, check=check)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=model.SIZES, required=True)
    parser.add_argument("--chunks", type=int, nargs="+", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    shape = model.SIZES[options.size]
    options.out.mkdir(parents=True, exist_ok=True)
    write_program(shape, options.out / "model.pt2")
    write_weights(model.empty_model(shape), options.out / "weights")
    for chunks in options.chunks:
        tokens, labels = model.data_of(shape, chunks * model.MICRO_BATCH[options.size])
        save_file({"tokens": tokens, "labels": labels}, options.out / f"data{chunks}.safetensors")


if __name__ == "__main__":
    main()
