"""Makes the data files of a job.

    python -m gpipe.data convert train.csv -o train.safetensors --tensor input=age,height,weight --tensor target=label

or, from Python, whatever gives samples (a torch Dataset, a Hugging Face dataset, a generator):

    gpipe.data.write_samples(({"input": x, "target": y} for x, y in dataset), "train.safetensors")
    gpipe.data.write_tokens((tokenizer.encode(text) for text in texts), "train.bin")

Samples pass through one by one, so that a data set may be larger than memory. Needs numpy, and pyarrow for CSV and
Parquet.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

TYPES = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16",
         "int8": "I8", "uint8": "U8", "bool": "BOOL"}
ROWS = 65536  # Of an array at a time.

Array = npt.NDArray[Any]


class DataError(ValueError):
    """What is wrong with the data, in words for its owner."""


class TensorWriter:
    """Collects rows of tensors and writes one safetensors file of them at the end, or nothing after an error."""

    def __init__(self, path: os.PathLike[str] | str):
        self.path = pathlib.Path(path)
        self.folder = tempfile.TemporaryDirectory(prefix=f".{self.path.name}.", dir=self.path.parent)
        self.files: dict[str, Any] = {}
        self.kinds: dict[str, tuple[str, tuple[int, ...]]] = {}  # Type and shape of a sample.
        self.rows: dict[str, int] = {}
        self.metadata: dict[str, str] = {}

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        try:
            for file in self.files.values():
                file.close()
            if error is None:
                self._join()
        finally:
            self.folder.cleanup()

    def append(self, name: str, rows: Array) -> None:
        """Adds rows; the first dimension counts them."""
        kind = (str(rows.dtype), rows.shape[1:])
        if kind[0] not in TYPES:
            raise DataError(f"'{name}' has the type {rows.dtype}, which a tensor of a job cannot have")
        if self.kinds.setdefault(name, kind) != kind:
            raise DataError(f"'{name}' was {self.kinds[name]} in the samples before, and is {kind}")
        if name not in self.files:
            self.files[name] = open(pathlib.Path(self.folder.name) / str(len(self.files)), "w+b")
            self.rows[name] = 0
        self.files[name].write(np.ascontiguousarray(rows).data)
        self.rows[name] += len(rows)

    def _join(self) -> None:
        if len(set(self.rows.values())) > 1:
            raise DataError(f"tensors of unequal length: {self.rows}")
        if not self.rows:
            raise DataError("there are no samples")
        header: dict[str, Any] = {"__metadata__": self.metadata} if self.metadata else {}
        offset = 0
        for name, (dtype, shape) in self.kinds.items():
            size = self.rows[name] * int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            header[name] = {"dtype": TYPES[dtype], "shape": [self.rows[name], *shape],
                            "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        joined = pathlib.Path(self.folder.name) / "joined"
        with open(joined, "wb") as output:
            output.write(len(text).to_bytes(8, "little") + text)
            for name in self.kinds:
                with open(self.files[name].name, "rb") as file:
                    shutil.copyfileobj(file, output, 1 << 20)
                os.remove(self.files[name].name)
        os.replace(joined, self.path)


def rows_of(value: Any) -> Array:
    """A tensor, an array, or numbers, as an array; Python's numbers as torch takes them."""
    array = np.asarray(value.numpy(force=True) if hasattr(value, "numpy") else value)
    return array.astype(np.float32) if array.dtype == np.float64 and not hasattr(value, "dtype") else array


def write_samples(samples: Iterable[Mapping[str, Any]], path: os.PathLike[str] | str) -> None:
    """Writes samples, each a mapping from tensor names to tensors, arrays or numbers of one shape, as one data set."""
    with TensorWriter(path) as writer:
        for sample in samples:
            for name, value in sample.items():
                writer.append(name, rows_of(value)[None])


def write_tokens(texts: Iterable[Iterable[int]], path: os.PathLike[str] | str, dtype: str = "uint16") -> None:
    """Writes texts, each a list of token ids, one behind the other as nanoGPT does."""
    largest = np.iinfo(dtype).max
    target = pathlib.Path(path)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with open(partial, "wb") as output:
            for text in texts:
                ids = np.asarray(list(text), np.int64)
                if ids.size and not 0 <= ids.min() <= ids.max() <= largest:
                    wrong = ids.max() if ids.min() >= 0 else ids.min()
                    raise DataError(f"a token is {wrong}, which {dtype} cannot hold")
                output.write(ids.astype(dtype).tobytes())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


# --- Files ---

Columns = dict[str, Any]  # Name -> pyarrow array or NumPy array, all of one length.


def arrow(module: str) -> Any:
    import importlib
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError("CSV and Parquet need pyarrow: pip install pyarrow") from error


def csv_batches(path: pathlib.Path) -> Iterator[Columns]:
    with arrow("pyarrow.csv").open_csv(path) as reader:
        for batch in reader:
            yield dict(zip(batch.schema.names, batch.columns))


def parquet_batches(path: pathlib.Path) -> Iterator[Columns]:
    for batch in arrow("pyarrow.parquet").ParquetFile(path).iter_batches():
        yield dict(zip(batch.schema.names, batch.columns))


def numpy_batches(path: pathlib.Path) -> Iterator[Columns]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            yield {name: arrays[name] for name in arrays.files}
        return
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    for first in range(0, len(array), ROWS):
        yield {path.stem: array[first:first + ROWS]}


READERS = {".csv": csv_batches, ".parquet": parquet_batches, ".npy": numpy_batches, ".npz": numpy_batches}


class Classes:
    """Numbers for the values of columns of text, in the order in which they first appear."""

    def __init__(self, columns: Iterable[str]):
        self.known: dict[str, dict[str, int]] = {column: {} for column in columns}

    def number(self, column: str, values: Any) -> Array:
        known = self.known[column]
        return np.asarray([known.setdefault(str(value), len(known)) for value in values.to_pylist()], np.int64)


def to_array(column: str, values: Any, classes: Classes) -> Array:
    """A column as rows of numbers: whole ones int64, others float32, unless it came from NumPy."""
    if isinstance(values, np.ndarray):
        return values
    if values.null_count:
        raise DataError(f"column '{column}' has empty values")
    if column in classes.known:
        return classes.number(column, values)
    types = arrow("pyarrow").types
    if types.is_list(values.type) or types.is_large_list(values.type) or types.is_fixed_size_list(values.type):
        rows = [to_array(column, row.values, classes) for row in values]
        if len({row.shape for row in rows}) > 1:
            raise DataError(f"column '{column}' has lists of unequal length")
        return np.stack(rows)
    kinds = ((types.is_boolean, np.bool_), (types.is_integer, np.int64), (types.is_floating, np.float32))
    for is_kind, dtype in kinds:
        if is_kind(values.type):
            return np.asarray(values.to_numpy(zero_copy_only=False), dtype)
    raise DataError(f"column '{column}' holds {values.type}, not numbers; --classes {column} would number its values")


def make_tensor(name: str, columns: list[str], batch: Columns, classes: Classes, dtype: str | None) -> Array:
    """One column as it is, or several side by side."""
    for column in columns:
        if column not in batch:
            raise DataError(f"there is no column '{column}' for '{name}'; there are: {', '.join(batch)}")
    parts = [to_array(column, batch[column], classes) for column in columns]
    tensor = parts[0] if len(parts) == 1 else np.stack(parts, axis=1)
    if dtype is None and tensor.dtype == np.float64 and len(parts) > 1:
        dtype = "float32"  # Whole numbers beside others.
    return tensor.astype(dtype) if dtype else tensor


def batches_of(path: pathlib.Path) -> Iterator[Columns]:
    reader = READERS.get(path.suffix)
    if reader is None:
        raise DataError(f"it is none of {', '.join(READERS)}")
    return reader(path)


def convert(inputs: list[str], output: str, tensors: dict[str, list[str]], types: dict[str, str],
            class_columns: list[str]) -> dict[str, int]:
    """Writes the columns of the files as tensors; all columns, where `tensors` names none. Returns rows by tensor."""
    classes = Classes(class_columns)
    with TensorWriter(output) as writer:
        for name in inputs:
            try:
                for batch in batches_of(pathlib.Path(name)):
                    for tensor, columns in (tensors or {column: [column] for column in batch}).items():
                        writer.append(tensor, make_tensor(tensor, columns, batch, classes, types.get(tensor)))
            except (OSError, ValueError) as error:  # pyarrow's errors are among them.
                raise DataError(f"{name}: {error}") from error
        for column, known in classes.known.items():
            writer.metadata[f"classes.{column}"] = json.dumps(list(known))
    return writer.rows


# --- Command line ---


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=os.environ.get("GPIPE_DATA_PROGRAM", "gpipe.data"),
                                     description="Makes the data files of jobs.")
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "convert", help="CSV, Parquet and NumPy files to one safetensors file",
        description="Writes CSV, Parquet and NumPy files (.csv, .parquet, .npy, .npz), one after the other, as one "
                    "safetensors file. Whole numbers become int64, others float32; a column of lists has a row each.")
    command.add_argument("inputs", nargs="+", metavar="IN")
    command.add_argument("-o", "--output", required=True, metavar="OUT.safetensors")
    command.add_argument("--tensor", action="append", default=[], type=pair, metavar="NAME=COLUMN,...",
                         help="a tensor of these columns, side by side; default: each column is one")
    command.add_argument("--type", action="append", default=[], type=pair, metavar="NAME=TYPE",
                         help=f"the tensor's type: {', '.join(TYPES)}")
    command.add_argument("--classes", action="append", default=[], metavar="COLUMN",
                         help="number the values of a column, in the order in which they appear")
    options = parser.parse_args(arguments)
    for name, dtype in options.type:
        if dtype not in TYPES:
            parser.error(f"--type {name}={dtype}: it is none of {', '.join(TYPES)}")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    tensors = {name: columns.split(",") for name, columns in options.tensor}
    try:
        rows = convert(options.inputs, options.output, tensors, dict(options.type), options.classes)
    except (DataError, OSError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    with contextlib.suppress(BrokenPipeError):
        print(f"{options.output}: {max(rows.values())} samples of {', '.join(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
