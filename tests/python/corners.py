"""Small models with what is unusual about exported programs, for architectures.py: `corner: NAME`."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

Case = tuple[nn.Module, dict[str, torch.Tensor]]


class Apply(nn.Module):
    """Two layers around a function of (the first's result, this module)."""

    def __init__(self, function: Callable, **tables: torch.Tensor):
        super().__init__()
        self.first, self.last, self.function = nn.Linear(6, 6), nn.Linear(6, 4), function
        for name, table in tables.items():
            self.register_buffer(name, table)

    def forward(self, x):
        return self.last(self.function(self.first(x), self))


class Returns(nn.Module):
    """Returns what the function makes of (input, result)."""

    def __init__(self, function: Callable):
        super().__init__()
        self.layer, self.function = nn.Linear(6, 6), function

    def forward(self, x):
        return self.function(x, self.layer(x))


def rows() -> dict[str, torch.Tensor]:
    return {"x": torch.randn(4, 6)}


def applied(function: Callable, **tables: torch.Tensor) -> Callable[[], Case]:
    return lambda: (Apply(function, **tables), rows())


def returned(function: Callable) -> Callable[[], Case]:
    return lambda: (Returns(function), rows())


def sequence(*layers: Callable[[], nn.Module], shape: tuple[int, ...] = (4, 6)) -> Callable[[], Case]:
    return lambda: (nn.Sequential(*(layer() for layer in layers)), {"input": torch.randn(shape)})


# --- Functions of the middle ---

def in_place_views(x, _):
    y = x * 2
    y[:, :2] += y[:, 2:4]
    y.view(-1, 3, 2)[:, 1].mul_(0.5)
    return y.relu_()


def counts(x, model):
    """A statistic that the model keeps itself."""
    with torch.no_grad():
        model.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
    return x - model.mean


def assigns(x, model):
    with torch.no_grad():
        model.mean.copy_(x.mean(0))
    return x + model.mean.detach()


def no_grad_between(x, _):
    with torch.no_grad():
        scale = x.abs().amax(1, keepdim=True)
        shift, low = x.mean(1, keepdim=True), x.amin()
    return x / (scale + 1) + shift * low


def counts_twice(x, model):
    """Regions that write to one buffer, with a layer between them."""
    with torch.no_grad():
        model.mean.mul_(0.5)
    y = model.last.weight.sum() * x.sin()
    with torch.no_grad():
        model.mean.add_(y.mean(0))
    return y.tanh() - model.mean


def hidden_views(x, _):
    """Operators that return views, which their schemas do not say."""
    y = x * 2
    turned = torch.einsum("ij->ji", y)
    other = x.cos()
    turned[1].mul_(3)
    y = y.sin()
    same = torch.atleast_2d(y)
    other = other.tanh()
    same[:, 0].add_(other[:, 1])
    return y + other


def picked(x, _):
    """A tensor whose size depends on the data."""
    positive = x.tanh()
    positive = positive[positive > 0].sin()
    return x * positive.mean() + positive.exp().sum()


def nested_regions(x, _):
    """What torch.export makes of it has other gradients: gpipe.export refuses it."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ x.T
        with torch.no_grad():
            z = y.sum()
    return x + (y.float() @ x) + z


def sizes(x, _):
    n = x.shape[0]
    position = torch.arange(n, device=x.device, dtype=x.dtype)[:, None]
    return (x * n + position).reshape(n * 2, 3).reshape(n, -1) / (n // 2 + 1) + x.new_zeros(n, 6) + x.shape[0] % 3


def late_sizes(x, _):
    """A size of a value that crosses."""
    y = torch.cat([x, x.relu()])
    return y[: y.shape[0] // 2] * y.shape[0]


def chosen(x, _):
    return torch.cond(x.sum() > 0, lambda a: (a.sin(), a * 2), lambda a: (a.cos(), a + 1), (x,))[0]


def many_results(x, _):
    values, order = torch.sort(x, dim=1)
    top, where = torch.topk(values, 3, dim=1)
    a, b, c = x.tanh().split([1, 2, 3], 1)
    return x.scatter_add(1, where, top) + torch.cat([c, b, a], 1) + order


def fourier(x, _):
    return torch.fft.irfft(torch.fft.rfft(x, dim=1) * 2j, n=6, dim=1) + torch.view_as_real(torch.complex(x, x)).sum(-1)


def indices(x, model):
    y = x.clone()
    y[:, model.rows > 3] = 0.5
    y = y.index_select(1, model.order)
    return y[:, model.order] + torch.where(y > 0, y, -y) + y.masked_fill(y > 1, float("inf")).clamp(max=2.0)


def windows(x, _):
    y = torch.einsum("bi,bj->bij", x, x).permute(0, 2, 1).unfold(1, 3, 1)
    return y.flatten(2).mean(1)[:, :6].contiguous() + x.T.reshape(6, -1).T


def saved(x, model):
    return checkpoint(lambda a: torch.tanh(model.first(a)), x, use_reentrant=False)


def doubles(x, _):
    return (x.double().cumsum(1).to(torch.float32) + x.half().float()).type_as(x)


def weights(x, model):
    """Views of parameters."""
    return x @ model.first.weight.t() + model.first.weight[:1] * model.last.weight.mean()


def norms(x, _):
    return nn.functional.normalize(x) + nn.functional.layer_norm(x, (6,)) + nn.functional.gelu(x, approximate="tanh")


# --- Modules ---

class Twice(nn.Module):
    """A batch norm that is used twice."""

    def __init__(self):
        super().__init__()
        self.norm, self.a, self.b = nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.norm(self.b(torch.relu(self.norm(self.a(x)))))


class Frozen(nn.Module):
    """The first layer is not trained: its output has no gradient. One parameter is not used."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.unused = nn.Linear(6, 6).requires_grad_(False), nn.Linear(6, 6), nn.Linear(2, 2)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)).sin()).tanh()


class Options(nn.Module):
    """Arguments that are no tensors, or not given."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x, scale=2.0, flag=True, mask=None, more=None):
        x = self.layer(x) * scale
        return x.masked_fill(mask, 0.0) if flag and mask is not None else x


class Nested(nn.Module):
    """Inputs in a dict and a list."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, batch, others):
        return self.layer(batch["b"]) + batch["a"] * others[0]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True), 2)

    def forward(self, source, target, padding):
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        memory = self.encoder(source, src_key_padding_mask=padding)
        # Whether the mask is causal would else depend on data.
        return self.decoder(target, memory, tgt_mask=causal, memory_key_padding_mask=padding, tgt_is_causal=True)


def attention() -> Case:
    padding = torch.arange(5).expand(3, 5) >= torch.tensor([[5], [4], [2]])
    return Attention(), {"source": torch.randn(3, 5, 8), "target": torch.randn(3, 4, 8), "padding": padding}


@dataclasses.dataclass
class Result:
    scores: torch.Tensor
    hidden: torch.Tensor


Pair = collections.namedtuple("Pair", ["scores", "hidden"])


def mask() -> torch.Tensor:
    return torch.arange(24).view(4, 6) % 3 == 0


CORNERS: dict[str, Callable[[], Case]] = {
    "in-place views": applied(in_place_views),
    "own statistics": applied(counts, mean=torch.zeros(6)),
    "assigned statistics": applied(assigns, mean=torch.zeros(6)),
    "own statistics, written twice": applied(counts_twice, mean=torch.zeros(6)),
    "hidden views": applied(hidden_views),
    "no_grad": applied(no_grad_between),
    "sizes": applied(sizes),
    "sizes of crossing values": applied(late_sizes),
    "sizes that depend on data": applied(picked),
    "cond": applied(chosen),
    "many results": applied(many_results),
    "complex": applied(fourier),
    "indices": applied(indices, rows=torch.arange(6), order=torch.tensor([5, 3, 1, 0, 2, 4])),
    "windows": applied(windows),
    "checkpoint": applied(saved),
    "dtypes": applied(doubles),
    "views of parameters": applied(weights),
    "norms": applied(norms),
    "batch norm used twice": lambda: (Twice(), rows()),
    "frozen and unused": lambda: (Frozen(), rows()),
    "weight norm": sequence(lambda: parametrizations.weight_norm(nn.Linear(6, 6)), nn.ReLU, lambda: nn.Linear(6, 2)),
    "spectral norm": sequence(lambda: parametrizations.spectral_norm(nn.Linear(6, 6)), nn.ReLU,
                              lambda: nn.Linear(6, 2)),
    "instance norm": sequence(lambda: nn.Conv2d(2, 4, 3), lambda: nn.InstanceNorm2d(4, affine=True,
                              track_running_stats=True), nn.ReLU, lambda: nn.Conv2d(4, 2, 3), shape=(3, 2, 8, 8)),
    "instance norm of the input": sequence(lambda: nn.Conv2d(2, 4, 3), lambda: nn.InstanceNorm2d(4, affine=True),
                                           lambda: nn.Conv2d(4, 2, 3), shape=(3, 2, 8, 8)),
    "group norm, 3d": sequence(lambda: nn.Conv3d(2, 4, 3), lambda: nn.GroupNorm(2, 4), nn.SiLU,
                               lambda: nn.ConvTranspose3d(4, 2, 2), lambda: nn.MaxPool3d(2), shape=(3, 2, 5, 5, 5)),
    "1d, pixel shuffle": sequence(lambda: nn.Conv1d(2, 8, 3, padding="same", padding_mode="circular"),
                                  lambda: nn.Unflatten(1, (8, 1)), lambda: nn.PixelShuffle(2),
                                  lambda: nn.Upsample(scale_factor=2, mode="bilinear"), shape=(3, 2, 6)),
    "transformer": attention,
    "options": lambda: (Options(), rows() | {"scale": 3.0, "mask": mask()}),
    "nested inputs": lambda: (Nested(), {"batch": {"a": torch.randn(4, 6), "b": torch.randn(4, 6)},
                                         "others": [torch.randn(4, 6)]}),
    "outputs: the same twice": returned(lambda x, y: {"a": y, "b": y}),
    "outputs: a view of another": returned(lambda x, y: (y, y.view(-1), y[:, :2])),
    "outputs: an input": returned(lambda x, y: (y, x)),
    "outputs: from the first part": returned(lambda x, y: (y.relu().sin().tanh(), y)),
    "outputs: no gradient": returned(lambda x, y: (y, y.argmax(1), y.detach().sum(1))),
    "outputs: single number": returned(lambda x, y: (y.square().mean(), y)),
    "outputs: none": returned(lambda x, y: (y, None)),
    "outputs: a size": returned(lambda x, y: (y, y.shape[0])),
    "outputs: nested": returned(lambda x, y: {"a": y, "b": [y * 2, (y.sum(1),)]}),
    "outputs: a mask of the input": returned(lambda x, y: (y, x > 0)),
    "outputs: namedtuple": returned(lambda x, y: Pair(y, y * 2)),
    "outputs: dataclass": returned(lambda x, y: Result(y, y * 2)),
    "outputs: torch.return_types": returned(lambda x, y: torch.topk(y, 2, dim=1)),
}
