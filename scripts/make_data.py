#!/usr/bin/env python3
"""Writes the data sets of the examples into a folder: make_data.py FOLDER.

digits_train.safetensors, digits_test.safetensors: scikit-learn's 1797 handwritten digits; image [N,1,8,8] float32 in
0..1, label [N] int64. regression.safetensors: x [N,32], y [N,1], a smooth function with noise.
"""

import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

TEST_SAMPLES = 360


def write_digits(folder: pathlib.Path) -> None:
    digits = load_digits()
    image = (digits.images / 16.0).astype(np.float32)[:, None]
    label = digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(label))
    for name, part in (("digits_test", order[:TEST_SAMPLES]), ("digits_train", order[TEST_SAMPLES:])):
        save_file({"image": np.ascontiguousarray(image[part]), "label": np.ascontiguousarray(label[part])},
                  folder / f"{name}.safetensors")


def write_regression(folder: pathlib.Path) -> None:
    random = np.random.default_rng(1)
    x = random.standard_normal((512, 32)).astype(np.float32)
    y = np.tanh(x @ random.standard_normal((32, 1)) / 4) + 0.05 * random.standard_normal((512, 1))
    save_file({"x": x, "y": y.astype(np.float32)}, folder / "regression.safetensors")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_digits(folder)
    write_regression(folder)


if __name__ == "__main__":
    main()
