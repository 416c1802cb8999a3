"""The models of the benchmarks of exported programs, with made-up data: logits out, cross entropy as the loss."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Callable

import torch
from torch import nn

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "client" / "python")]

from gpipe import export  # noqa: E402
from gpt2 import Gpt2, Gpt2Config  # noqa: E402
from resnet18 import ResNet18  # noqa: E402


@dataclasses.dataclass
class Case:
    make: Callable[[], nn.Module]
    inputs: Callable[[int], torch.Tensor]  # Of so many samples.
    target_shape: tuple[int, ...]
    classes: int
    class_dim: int = 1

    def data(self, samples: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        return {"x": self.inputs(samples), "y": torch.randint(self.classes, (samples, *self.target_shape))}

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output.movedim(self.class_dim, 1), target)

    def model(self) -> nn.Module:
        torch.manual_seed(1)
        return self.make()

    def write(self, folder: pathlib.Path, name: str, samples: int) -> None:
        """folder/NAME.pt2 and folder/NAME.safetensors."""
        from safetensors.torch import save_file
        data = self.data(samples)
        export(self.model(), (data["x"][:2],), folder / f"{name}.pt2")
        save_file(data, folder / f"{name}.safetensors")


def image_case() -> Case:
    return Case(ResNet18, lambda samples: torch.randn(samples, 3, 224, 224), (), 1000)


def language_case(tokens: int, **options) -> Case:
    config = Gpt2Config(tokens=tokens, **options)
    return Case(lambda: Gpt2(config), lambda samples: torch.randint(config.vocabulary, (samples, tokens)), (tokens,),
                config.vocabulary, class_dim=-1)


def small_convnet() -> nn.Module:
    """Layers of very different cost."""
    layers = []
    for inputs, outputs in itertools.pairwise((3, 32, 64, 128)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 512), nn.ReLU(), nn.Linear(512, 10))


CASES = {
    "resnet18": image_case(),
    "gpt2": language_case(128, layers=4),
    "gpt2-narrow": language_case(128, layers=4, width=256, heads=4, vocabulary=1024),
    "gpt2-small": language_case(32, layers=2, width=128, heads=4, vocabulary=256),
    "convnet": Case(small_convnet, lambda samples: torch.randn(samples, 3, 32, 32), (), 10),
    # As large as the transformer of bench/pipeline_bound.py; the head is not tied, as pipeline() of torch.distributed
    # does not keep ties.
    "gpt2-long": language_case(32, layers=12, width=256, heads=4, vocabulary=512, tied=False),
}
