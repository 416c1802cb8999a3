"""The networks of torchgpipe's examples, narrow and for small images: U-Net, ResNet-101 and AmoebaNet-D, as Sequentials
whose skips have a namespace each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

from gpipe.skip import Namespace, pop, skippable, stash

Layers = Iterator[nn.Module]


def flat(layers: Iterable[nn.Module]) -> nn.Sequential:
    """Without Sequentials in it, as a cut goes between its children only."""
    return nn.Sequential(*(leaf for layer in layers for leaf in _leaves(layer)))


def _leaves(layer: nn.Module) -> Layers:
    if isinstance(layer, nn.Sequential):
        for child in layer:
            yield from _leaves(child)
    else:
        yield layer


@skippable(stash=["kept"])
class Keep(nn.Module):
    def forward(self, input):
        yield stash("kept", input)
        return input


def convolution(inputs: int, outputs: int, size: int | tuple[int, int] = 1, stride=1) -> nn.Conv2d:
    """Of the same size as its input, or of a part of it."""
    height, width = (size, size) if isinstance(size, int) else size
    return nn.Conv2d(inputs, outputs, (height, width), stride, (height // 2, width // 2), bias=False)


class Head(nn.Module):
    def __init__(self, inputs: int, classes: int):
        super().__init__()
        self.linear = nn.Linear(inputs, classes)

    def forward(self, input):
        return self.linear(input.mean((2, 3)))


# --- U-Net ---

@skippable(stash=["skip"])
class Down(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, input):
        output = torch.tanh(self.convolution(input))
        yield stash("skip", output)
        return nn.functional.avg_pool2d(output, 2)


@skippable(pop=["skip"])
class Up(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        self.convolution = nn.Conv2d(2 * outputs, outputs, 3, padding=1)

    def forward(self, input):
        skip = yield pop("skip")
        return torch.tanh(self.convolution(torch.cat([self.up(input), skip], 1)))


def unet(nested: bool = False) -> nn.Sequential:
    """All skips have one name, in a namespace for each depth."""
    torch.manual_seed(4)
    widths = (3, 4, 6, 8)
    pairs = [(inputs, outputs, Namespace()) for inputs, outputs in zip(widths, widths[1:])]
    down = [Down(inputs, outputs).isolate(namespace) for inputs, outputs, namespace in pairs]
    up = [Up(inputs, outputs).isolate(namespace)
          for (_, outputs, namespace), inputs in zip(reversed(pairs), (10, 8, 6))]
    layers = [*down, nn.Conv2d(8, 10, 1), *up, nn.Flatten(), nn.Linear(4 * 16 * 16, 2)]
    return nn.Sequential(nn.Sequential(*layers[:4]), nn.Sequential(*layers[4:])) if nested else nn.Sequential(*layers)


def images(samples: int) -> torch.Tensor:
    return torch.randn(samples, 3, 16, 16, generator=torch.Generator().manual_seed(6))


# --- ResNet-101 ---

BLOCKS, EXPANSION = (3, 4, 23, 3), 4


@skippable(pop=["kept"])
class Add(nn.Module):
    def __init__(self, shortcut: nn.Module):
        super().__init__()
        self.shortcut = shortcut

    def forward(self, input):
        kept = yield pop("kept")
        return input + self.shortcut(kept)


def bottleneck(inputs: int, width: int, stride: int, inplace: bool) -> nn.Sequential:
    outputs, namespace, shortcut = EXPANSION * width, Namespace(), nn.Identity()
    if stride > 1 or inputs != outputs:
        shortcut = nn.Sequential(convolution(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs))
    return nn.Sequential(
        Keep().isolate(namespace),
        convolution(inputs, width), nn.BatchNorm2d(width), nn.ReLU(inplace),
        convolution(width, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(inplace),
        convolution(width, outputs), nn.BatchNorm2d(outputs),
        Add(shortcut).isolate(namespace), nn.ReLU(inplace))


def resnet101(width=4, classes=10, inplace=False) -> nn.Sequential:
    """368 children; the longest way through it has 101 layers with weights."""
    layers: list[nn.Module] = [convolution(3, width, 7, 2), nn.BatchNorm2d(width), nn.ReLU(inplace),
                               nn.MaxPool2d(3, 2, 1)]
    inputs = width
    for group, blocks in enumerate(BLOCKS):
        for block in range(blocks):
            stride = 2 if group > 0 and block == 0 else 1
            layers.append(bottleneck(inputs, width << group, stride, inplace))
            inputs = EXPANSION * width << group
    return flat([*layers, Head(inputs, classes)])


# --- AmoebaNet-D ---

def relu_conv_bn(inputs: int, outputs: int, size: int | tuple[int, int] = 1, stride=1) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), convolution(inputs, outputs, size, stride), nn.BatchNorm2d(outputs))


class Halve(nn.Module):
    """Half of the outputs see the even rows and columns of the image, the others the odd ones."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, input):
        input = input.relu()
        return self.norm(torch.cat([self.even(input), self.odd(input[:, :, 1:, 1:])], 1))


def narrow(width: int, stride: int, *sizes: int | tuple[int, int]) -> nn.Sequential:
    """In a quarter of the channels."""
    inner = width // 4
    between = [relu_conv_bn(inner, inner, size, stride if i == 0 else 1) for i, size in enumerate(sizes)]
    return nn.Sequential(relu_conv_bn(width, inner), *between, relu_conv_bn(inner, width))


OPERATIONS = {
    "none": lambda width, stride: nn.Identity() if stride == 1 else Halve(width, width),
    "average 3x3": lambda width, stride: nn.AvgPool2d(3, stride, 1, count_include_pad=False),
    "max 3x3": lambda width, stride: nn.MaxPool2d(3, stride, 1),
    "max 2x2": lambda width, stride: nn.MaxPool2d(2, stride),
    "1x1": lambda width, stride: relu_conv_bn(width, width, 1, stride),
    "3x3": lambda width, stride: narrow(width, stride, 3),
    "1x7 7x1": lambda width, stride: narrow(width, stride, (1, 7), (7, 1)),
}
# Each pair makes a state of two earlier ones, of which 0 and 1 are what the cell gets. The states that the cell's
# output is made of follow.
NORMAL = ([((1, "1x1"), (1, "max 3x3")), ((1, "none"), (0, "1x7 7x1")), ((0, "1x1"), (0, "1x7 7x1")),
           ((2, "max 3x3"), (2, "none")), ((1, "average 3x3"), (5, "1x1"))], [0, 3, 4, 6])
REDUCTION = ([((0, "max 2x2"), (0, "max 3x3")), ((2, "none"), (1, "3x3")), ((2, "1x7 7x1"), (2, "max 3x3")),
              ((3, "none"), (1, "max 2x2")), ((2, "average 3x3"), (3, "1x1"))], [4, 5, 6])


class Twice(nn.Module):
    """The first cell has no cell before the one before it."""

    def __init__(self, one: nn.Module, other: nn.Module):
        super().__init__()
        self.one, self.other = one, other

    def forward(self, input):
        return self.one(input), self.other(input)


@skippable(pop=["kept"])
class Both(Twice):
    """What the cell before has made, and the one before that."""

    def forward(self, input):
        kept = yield pop("kept")
        return self.one(input), self.other(kept)


class Combine(nn.Module):
    """The states that a cell's output is made of."""

    def __init__(self, width: int, steps: Sequence[tuple[tuple[int, str], ...]], wanted: Sequence[int], reduces: bool):
        super().__init__()
        self.sources, self.wanted = [[source for source, _ in step] for step in steps], wanted
        self.operations = nn.ModuleList(
            nn.ModuleList(OPERATIONS[name](width, 2 if reduces and source < 2 else 1) for source, name in step)
            for step in steps)

    def forward(self, both):
        states = list(both)
        for (one, other), (left, right) in zip(self.sources, self.operations):
            states.append(left(states[one]) + right(states[other]))
        return tuple(states[i] for i in self.wanted)


class Concatenate(nn.Module):
    def forward(self, states):
        return torch.cat(states, 1)


class Cells:
    """Builds one cell after the other, and knows what the last two make."""

    def __init__(self, inputs: int):
        self._last, self._before_last, self._halved = inputs, inputs, False
        self._kept: Namespace | None = None  # Where the last one has left its input.

    def add(self, width: int, reduces: bool, is_last: bool = False) -> Layers:
        """As three layers, behind one that keeps the input for the next cell."""
        steps, wanted = REDUCTION if reduces else NORMAL
        namespace = Namespace()
        if not is_last:
            yield Keep().isolate(namespace)
        yield self._entrance(width)
        yield Combine(width, steps, wanted, reduces)
        yield Concatenate()
        self._before_last, self._last, self._halved = self._last, len(wanted) * width, reduces
        self._kept = namespace

    @property
    def outputs(self) -> int:
        return self._last

    def _entrance(self, width: int) -> nn.Module:
        last = relu_conv_bn(self._last, width)
        before = (Halve if self._halved else relu_conv_bn)(self._before_last, width)
        return Twice(last, before) if self._kept is None else Both(last, before).isolate(self._kept)


def amoebanet_d(groups=2, normal_cells=1, width=16, classes=10) -> nn.Sequential:
    """A stem, and groups of normal cells with a reduction between two. Each reduction doubles the channels. The network
    of the paper has three groups."""
    channels = width // 4
    cells, layers = Cells(channels), [convolution(3, channels, 3, 2), nn.BatchNorm2d(channels)]
    plan = [True, True, *([False] * normal_cells + [True]) * (groups - 1), *[False] * normal_cells]
    for i, reduces in enumerate(plan):
        channels *= 2 if reduces else 1
        layers += cells.add(channels, reduces, is_last=i == len(plan) - 1)
    return flat([*layers, Head(cells.outputs, classes)])
