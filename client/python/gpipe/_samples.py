"""What PyTorch's users have for data, as the files of a job."""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from gpipe.data import DataError, TensorWriter, rows_of, write_samples

# A Dataset, a DataLoader, tensors or NumPy's arrays, or whatever else gives samples.
Data = Any
ARRAYS = (torch.Tensor, np.ndarray)
Parameter = inspect.Parameter


@dataclasses.dataclass
class DataFile:
    """What was written: the tensors that are the model's inputs, in its order, the target, and what a DataLoader
    says."""

    path: pathlib.Path
    inputs: list[str]
    target: str | None = None
    batch_size: int | None = None
    shuffle: bool = False
    drop_last: bool = False

    def dataset(self, unbatched: Sequence[str]) -> dict[str, Any]:
        """As a spec has it."""
        dataset: dict[str, Any] = {"path": self.path.name, "inputs": self.inputs}
        if self.target is not None:
            dataset["target"] = self.target
        return dataset | ({"unbatched": list(unbatched)} if unbatched else {})

    def examples(self, model: nn.Module, unbatched: Sequence[str]) -> dict[str, torch.Tensor]:
        """Two samples, to export the model with."""
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        examples = {}
        with safetensors.safe_open(self.path, "pt") as file:  # type: ignore[no-untyped-call]
            for name in self.inputs:
                rows = file.get_tensor(name) if name in unbatched else file.get_slice(name)[:2]
                if len(rows) == 1 and name not in unbatched:
                    rows = torch.cat([rows, rows])
                examples[name] = rows.to(device)
        return examples


class SampleNames:
    """Which tensor of a sample is what: samples are tuples in the order of forward()'s parameters, with the target
    behind them, or mappings with the parameters' names."""

    def __init__(self, model: nn.Module, target: str | None, has_target: bool):
        parameters = inspect.signature(model.forward).parameters.values()
        variable = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        self._parameters = [p.name for p in parameters if p.kind not in variable]
        self._takes_all = any(p.kind == Parameter.VAR_KEYWORD for p in parameters)
        self._has_target, self._given_target = has_target, target
        self.inputs: list[str] = []
        self.target: str | None = None

    def named(self, sample: Any) -> dict[str, Any]:
        """The sample's tensors by name. DataError where they do not fit the model."""
        if not isinstance(sample, Mapping):
            values = list(sample) if isinstance(sample, (tuple, list)) else [sample]
            sample = self._in_order(values)
        if not self.inputs:
            self._choose(list(sample))
        return {name: sample[name] for name in [*self.inputs, *([self.target] if self.target else [])]}

    def _in_order(self, values: list[Any]) -> dict[str, Any]:
        inputs, target = (values[:-1], values[-1:]) if self._has_target else (values, [])
        if self._has_target and not inputs:
            raise DataError("a sample has one tensor, and needs the target behind the model's inputs")
        if len(inputs) > len(self._parameters) and self._has_target:
            raise DataError(f"a sample has {len(inputs)} tensors before its target, and forward() takes "
                            f"{', '.join(self._parameters)}")
        name = self._given_target or ("target" if "target" not in self._parameters else "gpipe.target")
        return dict(zip(self._parameters, inputs)) | {name: value for value in target}

    def _choose(self, names: list[str]) -> None:
        others = [name for name in names if name not in self._parameters]
        if self._has_target:
            self.target = self._given_target or (others[0] if len(others) == 1 else None)
            if self.target is None or self.target not in names:
                raise DataError(f"samples have {', '.join(names)}, and forward() takes {', '.join(self._parameters)}: "
                                "say with target= which is the target")
        known = [name for name in self._parameters if name in names]
        self.inputs = [name for name in known + (others if self._takes_all else []) if name != self.target]
        if not self.inputs:
            raise DataError(f"samples have {', '.join(names)}, and forward() takes {', '.join(self._parameters)}")


def write(data: Data, names: SampleNames, path: pathlib.Path) -> DataFile:
    """Writes one file of it. Only what is in memory anyway is there at once. DataError says what does not fit."""
    file = DataFile(path, [])
    if isinstance(data, DataLoader):
        file.batch_size, file.drop_last = data.batch_size, data.drop_last
        file.shuffle = isinstance(data.sampler, RandomSampler)
        if data.collate_fn is not default_collate:
            _write_batches(data, names, path)
        else:
            _write_rest(_unshuffled(data), names, path)
    else:
        _write_rest(data, names, path)
    file.inputs, file.target = names.inputs, names.target
    return file


def _unshuffled(loader: DataLoader[Any]) -> Any:
    """Its samples in the order of the data set, which the cluster shuffles itself, or of a sampler of another kind."""
    if isinstance(loader.dataset, IterableDataset) or isinstance(loader.sampler, (RandomSampler, SequentialSampler)):
        return loader.dataset
    return (loader.dataset[index] for index in loader.sampler)


def _write_rest(data: Data, names: SampleNames, path: pathlib.Path) -> None:
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, ARRAYS):
        data = (data,)
    values = data.values() if isinstance(data, Mapping) else data if isinstance(data, (tuple, list)) else ()
    if values and all(isinstance(value, ARRAYS) for value in values):
        # One that is there twice, or is a part of another, needs memory of its own.
        tensors = {name: torch.as_tensor(array).detach().cpu().contiguous().clone()
                   for name, array in names.named(data).items()}
        safetensors.torch.save_file(tensors, path)
    else:
        write_samples((names.named(sample) for sample in _samples(data)), path)


def _samples(data: Data) -> Iterable[Any]:
    """Data sets may know where they end by their length alone."""
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (Mapping, IterableDataset)):
        return (data[index] for index in range(len(data)))
    if not isinstance(data, Iterable):
        raise DataError(f"a {type(data).__name__} gives no samples")
    return data


def _write_batches(batches: Iterator[Any] | DataLoader[Any], names: SampleNames, path: pathlib.Path) -> None:
    """What a collate_fn has made."""
    with TensorWriter(path) as writer:
        for batch in batches:
            for name, rows in names.named(batch).items():
                writer.append(name, rows_of(rows))
