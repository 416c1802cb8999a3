#!/usr/bin/env python3
"""Makes tests/golden/exported/*.pt2, models saved by torch.export, and beside each what PyTorch itself computes: those that
are named, or all.

NAME.safetensors holds `input.*`, `output.*`, `output_gradient.*`, `gradient.*` of the parameters and `after.*` of the
buffers in training, and `evaluation.*`, the outputs of model.eval() with the buffers as they were after that.
"""

import pathlib
import re
import sys

import torch
from safetensors.torch import save_file
from torch import nn

FOLDER = pathlib.Path(__file__).resolve().parent / "exported"
TWO_PROGRAMS = FOLDER.parent / "two_programs"  # With one for evaluation.
WITHOUT_WEIGHTS = FOLDER.parent / "without_weights"  # The same models, exported without them.
sys.path.insert(0, str(FOLDER.parents[2] / "client" / "python"))

from gpipe._export import modes, weights  # noqa: E402


class Tied(nn.Module):
    """A tied embedding, views and their sizes, batch norm, a region without gradients, a buffer, two outputs."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.norm = nn.BatchNorm1d(8)
        self.up = nn.Linear(8, 12)
        self.down = nn.Linear(6, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("mask", torch.ones(6, 6).tril().bool(), persistent=False)

    def forward(self, ids, scale):
        x = self.embedding(ids) * scale[:, None, None]
        x = self.norm(x.flatten(0, 1)).view(ids.shape[0], ids.shape[1], -1)
        a, b = self.up(x).chunk(2, dim=-1)
        x = x + self.down(torch.relu(a) * b)
        with torch.no_grad():
            mean = x.mean()
        x = (x @ x.transpose(1, 2)).masked_fill(~self.mask, float("-inf")).softmax(-1) @ x + mean
        return {"logits": self.head(x), "pooled": x.mean(1)}


class Sizes(nn.Module):
    """Arithmetic on sizes that depend on the batch."""

    def forward(self, x):
        rows = x.shape[0] * x.shape[1]
        flat = x.reshape(rows // 2, -1)
        return (flat * (rows % 7) / (x.shape[0] + 1)).reshape(x.shape) + x.new_ones(x.shape[0], 1, 1)


class InPlace(nn.Module):
    """Writes through views, and a result that is not contiguous."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        y = self.layer(x)
        y[:, :2] = y[:, 2:4] * 2
        y.mul_(0.5)
        y[:, 5].add_(1)
        return y.t().contiguous().t()


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 3)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.first(x)
        return self.second(x.float())


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        y = self.layer(x)
        return torch.cond(y.sum() > 0, lambda a: a.sin(), lambda a: a.cos() * 2, (y,))


class Frozen(nn.Module):
    """A parameter that is not trained, and one that is not used."""

    def __init__(self):
        super().__init__()
        self.fixed = nn.Linear(4, 4)
        self.trained = nn.Linear(4, 2)
        self.fixed.weight.requires_grad_(False)
        self.fixed.bias.requires_grad_(False)

    def forward(self, x):
        return self.trained(self.fixed(x))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 4, num_layers=2, batch_first=True)

    def forward(self, x):
        return self.lstm(x)[0]


class Dropouts(nn.Module):
    """Nothing random may be left in evaluation; PyTorch's own numbers in training are another generator's."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout2d(0.5)
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)

    def forward(self, x):
        x = self.drop(self.norm(x)).flatten(1, 2)
        return nn.functional.dropout(self.attention(x, x, x, need_weights=False)[0], 0.3, self.training)


class Statistics(nn.Module):
    """Two regions without gradients that write to one buffer, which must not be parted."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)
        self.register_buffer("mean", torch.ones(4))

    def forward(self, x):
        x = self.first(x)
        with torch.no_grad():
            self.mean.mul_(0.5)
        x = x.sin()
        with torch.no_grad():
            self.mean.add_(x.mean(0))
        return self.last(x.tanh() - self.mean)


class HiddenViews(nn.Module):
    """Views by operators whose schemas do not say so, and writes to what they are views of."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        y = self.layer(x)
        turned = torch.einsum("ij->ji", y)
        other = x.cos() * self.layer.weight.sum()
        turned[1].mul_(3)
        y = y.sin()
        same = torch.atleast_2d(y)
        other = other.tanh()
        same[:, 0].add_(other[:, 1])
        return y + other


class InstanceNorms(nn.Module):
    """With running statistics, for evaluation, and without."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(2, 3, 3)
        self.tracking = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
        self.plain = nn.InstanceNorm2d(3, affine=True)

    def forward(self, x):
        return self.plain(torch.relu(self.tracking(self.convolution(x)))), None, x.shape[0]


class Modes(nn.Module):
    """In evaluation: no stochastic depth, another constant, a buffer that only evaluation has, a dropout all the same."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.last = nn.Linear(6, 3)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 3))

    def forward(self, x):
        y = torch.relu(self.norm(self.first(x)))
        if self.training:
            y = y * x.new_empty(x.shape[0], 1).bernoulli_(0.5)
        x = x * torch.tensor(2.0 if self.training else 3.0) + y
        x = self.last(x)
        if self.training:
            return {"scores": x}
        return {"scores": x * self.scale, "random": nn.functional.dropout(x, 0.5, training=True)}


def floats(*shape):
    return torch.randn(shape)


class Layouts(nn.Module):
    """Values that are transposed, channels_last, sliced and lazily conjugated, with views that only their strides allow."""

    def __init__(self):
        super().__init__()
        self.inner, self.wide = nn.Linear(6, 6), nn.Linear(6, 12)
        self.conv, self.out = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(48, 3)
        self.filter = nn.Parameter(torch.randn(4, dtype=torch.cfloat))

    def forward(self, x):
        h = torch.tanh(self.inner(x)).transpose(1, 2) * 1.5
        h = torch.relu(h).transpose(1, 2).view(x.shape[0], 24).view(x.shape)
        h = h + torch.sigmoid(self.wide(h).transpose(1, 2)[:, ::2]).transpose(1, 2).reshape(x.shape)
        h = h + torch.fft.irfft((torch.fft.rfft(h) * self.filter).conj(), n=6)
        h = h.view(x.shape[0], 4, 3, 2).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        return self.out(torch.relu(self.conv(h)).permute(0, 2, 3, 1).view(x.shape[0], 48))


class WrittenParameters(nn.Module):
    """Parameters that are made shorter, clamped and decayed by the forward itself; sparse gradients; one that is unused."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(12, 6, max_norm=0.8, sparse=True)
        self.first, self.unused, self.second = nn.Linear(6, 6), nn.Linear(2, 2), nn.Linear(6, 3)

    def forward(self, ids):
        with torch.no_grad():
            self.first.weight.clamp_(min=-0.2)
        h = torch.tanh(self.first(self.rows(ids).mean(1)))
        with torch.no_grad():
            self.second.weight.mul_(0.5)
        return self.second(h)


CASES = {
    "tied": (Tied, lambda: (torch.randint(0, 20, (4, 6)), torch.rand(4)), True),
    "sizes": (Sizes, lambda: (floats(4, 6, 2),), True),
    "in_place": (InPlace, lambda: (floats(5, 6),), True),
    "autocast": (Autocast, lambda: (floats(5, 6),), True),
    "branch": (Branch, lambda: (floats(3, 4),), True),
    "frozen": (Frozen, lambda: (floats(3, 4),), True),
    "lstm": (Lstm, lambda: (floats(3, 4, 5),), True),
    "statistics": (Statistics, lambda: (floats(3, 4),), True),
    "hidden_views": (HiddenViews, lambda: (floats(3, 4),), True),
    "instance_norms": (InstanceNorms, lambda: (floats(3, 2, 6, 6),), True),
    "dropouts": (Dropouts, lambda: (floats(3, 3, 2, 4),), False),
    "layouts": (Layouts, lambda: (floats(4, 4, 6),), True),
    "written_parameters": (WrittenParameters, lambda: (torch.randint(12, (4, 5)),), True),
}


def named(outputs):
    if isinstance(outputs, dict):
        return outputs
    return {"output": outputs[0] if isinstance(outputs, tuple) else outputs}


def forget_folders(module):
    """Where this machine has its files is nobody's business."""
    graphs = [part.graph for part in module.modules() if isinstance(part, torch.fx.GraphModule)]
    for node in [node for graph in graphs for node in graph.nodes]:
        trace = node.meta.get("stack_trace") or ""
        node.meta["stack_trace"] = re.sub(r'File "[^"]*?/(?=torch/|[^/"]+")', 'File "', trace)


def export(module, inputs, training=True):
    torch.manual_seed(1)
    model, arguments = module().train(training), inputs()
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(model, arguments, dynamic_shapes=[{0: batch} for _ in arguments])
    forget_folders(program.graph_module)
    return model, arguments, program


def make_without_weights(name):
    model, _, program = export(*CASES[name][:2])
    weights.save(model, program, WITHOUT_WEIGHTS / f"{name}.pt2", weights.left_out(model, False))


def make_two_programs(name, module, inputs):
    _, _, training = export(module, inputs)
    model, arguments, program = export(module, inputs, training=False)
    path, alone = TWO_PROGRAMS / f"{name}.pt2", TWO_PROGRAMS / f"{name}-evaluation.pt2"
    torch.export.save(training, path)
    torch.export.save(program, alone)
    modes.add(path, modes.Evaluation(program), alone)
    alone.unlink()
    values = {f"input.{i}": argument for i, argument in enumerate(arguments)}
    values |= {f"evaluation.{n}": o.detach() for n, o in named(model(*arguments)).items()}
    save_file(values, TWO_PROGRAMS / f"{name}.safetensors")


def make(name, module, inputs, deterministic):
    model, arguments, program = export(module, inputs)
    torch.export.save(program, FOLDER / f"{name}.pt2")

    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    values = {f"input.{n}": a for n, a in zip(names, arguments)}
    if deterministic:
        outputs = named(model(*arguments))
        gradients = {n: torch.randn_like(o) for n, o in outputs.items()}
        wanted = [n for n, o in outputs.items() if o.requires_grad]
        if wanted:
            torch.autograd.backward([outputs[n] for n in wanted], [gradients[n] for n in wanted])
        values |= {f"output.{n}": o.detach() for n, o in outputs.items()}
        values |= {f"output_gradient.{n}": gradients[n] for n in wanted}
        values |= {f"gradient.{n}": p.grad.to_dense() for n, p in model.named_parameters() if p.grad is not None}
    values |= {f"after.{n}": b.clone() for n, b in model.state_dict().items() if n not in dict(model.named_parameters())
               and deterministic and not n.startswith("head.")}
    values |= {f"evaluation.{n}": o.detach() for n, o in named(model.eval()(*arguments)).items()}
    save_file({n: v.detach().clone().contiguous() for n, v in values.items()}, FOLDER / f"{name}.safetensors")


def main():
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or CASES:
        make(name, *CASES[name])
    WITHOUT_WEIGHTS.mkdir(exist_ok=True)
    make_without_weights("tied")
    TWO_PROGRAMS.mkdir(exist_ok=True)
    make_two_programs("modes", Modes, lambda: (floats(4, 6),))


if __name__ == "__main__":
    main()
