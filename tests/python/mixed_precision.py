"""The oracle of mixed precision: steps as a job takes them, of a whole model in one process, with fp32 masters of the
parameters that it computes with."""

from __future__ import annotations

import torch
from torch import nn

FIRST_SCALE = 65536.0


class Masters:
    """The parameters of a model in fp32, of which the model has the roundings."""

    def __init__(self, model: nn.Module, exact: dict[str, torch.Tensor]):
        self.model = model
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self.rounded = [dict(model.named_parameters())[name] for name in self.names]
        self.exact = [nn.Parameter(exact[name].float().clone()) for name in self.names]
        self.copy()

    def copy(self):
        with torch.no_grad():
            for rounded, exact in zip(self.rounded, self.exact):
                rounded.copy_(exact)

    def take_gradients(self):
        for rounded, exact in zip(self.rounded, self.exact):
            if rounded.grad is None:
                continue
            wide = rounded.grad.float()
            exact.grad = wide if exact.grad is None else exact.grad + wide
            rounded.grad = None


class Trainer:
    """Steps of mixed precision as Megatron takes them; in fp16 with what torch.amp.GradScaler does."""

    def __init__(self, masters: Masters, spec: dict):
        ((kind, arguments),) = spec["train"]["optimizer"].items()
        make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind]
        self.optimizer = make(masters.exact, fused=True, **arguments)
        self.masters, self.clip = masters, spec["train"].get("grad_clip_norm", 0)
        self.scale = FIRST_SCALE if spec["train"]["precision"] == "fp16" else 1.0
        self.losses, self.norms, self.left_out, self.overflowed = [], [], [], set()

    def step(self, losses: list):
        """Of functions, each makes the loss of a micro-batch, weighed."""
        self.optimizer.zero_grad()
        made = [loss() for loss in losses]
        self.losses.append(sum(loss.item() for loss in made))
        for loss in reversed(made):  # The order of GPipe's backward.
            (loss * self.scale).backward()
            self.masters.take_gradients()
        gradients = [p.grad for p in self.masters.exact if p.grad is not None]
        if not all(gradient.isfinite().all() for gradient in gradients):
            self.left_out.append(len(self.losses))
            self.overflowed |= {name for name, p in zip(self.masters.names, self.masters.exact)
                                if p.grad is not None and not p.grad.isfinite().all()}
            self.scale /= 2
            self.norms.append(None)
            return
        for gradient in gradients:
            gradient.div_(self.scale)
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g.double()) for g in gradients]))
        self.norms.append(norm.item())
        if self.clip > 0 and norm > self.clip:
            for gradient in gradients:
                gradient.mul_(self.clip / (norm + 1e-6))
        self.optimizer.step()
        self.masters.copy()
