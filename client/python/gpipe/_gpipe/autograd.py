"""A pass over the workers as one node of PyTorch's graph."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence, Set
from typing import Any, Protocol

import torch
from torch.autograd.function import once_differentiable

from gpipe._gpipe.rounds import Asked
from gpipe._gpipe.session import Session


class Pass:
    """A forward pass. What the workers have saved of it goes with its backward pass, or with this object."""

    def __init__(self, session: Session, asked: Asked, outputs: Sequence[torch.Tensor], trained: Set[str]):
        self.outputs = outputs
        self.trained = trained  # Parameters whose gradients its backward pass adds to.
        self._drop = weakref.finalize(self, session.drop, asked)
        self._drop.atexit = False
        self._session, self._asked = session, asked

    def take(self) -> tuple[Session, Asked]:
        """For the backward pass, of which there is one."""
        if self._drop.detach() is None:
            raise RuntimeError("Trying to backward through the model a second time: workers let go of what a forward "
                               "pass saved in its first backward pass, also with retain_graph=True")
        return self._session, self._asked


class Runner(Protocol):
    """Who runs passes."""

    def start(self, inputs: Sequence[torch.Tensor]) -> Pass:
        """A forward pass, which may be followed by"""

    def backward(self, started: Pass, gradients: Mapping[int, torch.Tensor], wanted: Sequence[int],
                 accumulates: bool) -> dict[int, torch.Tensor]:
        """its backward pass: gradients of the outputs by position give those of the wanted inputs. Those of parameters
        are added to what is there, if it accumulates."""


def run_pass(runner: Runner, has_parameters: bool, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Outputs that require gradients where they are floating. `has_parameters`: some of the model's do, too."""
    # Stands for the parameters, which are on the workers.
    anchor = torch.empty(0, requires_grad=has_parameters)
    return list(_Node.apply(runner, anchor, *inputs))  # type: ignore[no-untyped-call]


class _Node(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, runner: Runner, anchor: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        started = runner.start(inputs)
        outputs, started.outputs = started.outputs, ()
        ctx.runner, ctx.started, ctx.devices = runner, started, [tensor.device for tensor in inputs]
        ctx.floating = [i for i, output in enumerate(outputs) if _is_floating(output)]
        ctx.mark_non_differentiable(*[output for output in outputs if not _is_floating(output)])
        ctx.save_for_backward(anchor)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (anchor,) = ctx.saved_tensors  # PyTorch refuses the second time, unless the graph is retained.
        wanted = [i for i, needs in enumerate(ctx.needs_input_grad[2:]) if needs]
        found = ctx.runner.backward(ctx.started, {i: gradients[i] for i in ctx.floating}, wanted, _accumulates(anchor))
        return (None, None, *(found[i].to(device) if i in wanted else None for i, device in enumerate(ctx.devices)))


def _is_floating(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _accumulates(anchor: torch.Tensor) -> bool:
    """Not in torch.autograd.grad(), nor in a backward() with other `inputs`."""
    if not anchor.requires_grad:
        return False
    node = torch.autograd.graph.get_gradient_edge(anchor).node
    return bool(torch._C._will_engine_execute_node(node))
