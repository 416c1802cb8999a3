"""Optimizers of torch.optim whose steps workers make.

An optimizer that has the parameters of a model on workers is recognised at its step. If workers have its like they make
the step: the learning rate goes there, and the state that it has here (optimizer_state.py); no gradient comes back, and
here it finds none, so that it leaves the parameters alone. Any other optimizer works on parameters and gradients as on
any tensors, which are fetched for it and sent back.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from gpipe import errors
from gpipe._gpipe import optimizer_state
from gpipe._task import spec_of_groups


@dataclasses.dataclass(frozen=True)
class Steps:
    """What an optimizer does, as a spec has it."""

    kind: str  # sgd, adam, adamw.
    settings: tuple[tuple[str, Any], ...]  # But for the learning rate.
    learning_rate: float = dataclasses.field(compare=False)

    @property
    def spec(self) -> dict[str, Any]:
        """Of a job. It has to have a learning rate, and each step brings its own."""
        return {self.kind: {"lr": 1.0, **dict(self.settings)}}

    @property
    def slots(self) -> tuple[str, ...]:
        """Of its state."""
        return optimizer_state.slots_of(self.kind, dict(self.settings))


# Of a job that is asked for no step, as each has to have an optimizer.
NO_STEPS = Steps("sgd", (), 1.0)


class Stepper(Protocol):
    """A model on workers."""

    @property
    def has_workers(self) -> bool:
        """Whether a pass has needed any yet."""

    def parameters(self) -> Sequence[torch.Tensor]:
        """All of its own."""

    def trained(self) -> Sequence[torch.Tensor]:
        """Those that have a gradient, or will have."""

    def step(self, optimizer: torch.optim.Optimizer, steps: Steps) -> None:
        """On the workers."""

    def hide_gradients(self, while_true: Callable[[], bool] | None) -> None:
        """Its parameters look as if they had none, while that is so."""

    def state_of(self, optimizer: torch.optim.Optimizer) -> Mapping[torch.Tensor, Mapping[str, torch.Tensor]]:
        """What workers have of the optimizer's state, by parameter."""

    def give_back_state(self, optimizer: torch.optim.Optimizer) -> None:
        """That is in this process from now on."""

    def forget_state(self, optimizer: torch.optim.Optimizer) -> None:
        """That is not wanted any more."""


_steppers: weakref.WeakSet[Any] = weakref.WeakSet()
_stepping: weakref.WeakKeyDictionary[torch.optim.Optimizer, list[Stepper]] = weakref.WeakKeyDictionary()
_taken: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
_refused: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
_bereft: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()


def register(stepper: Stepper) -> None:
    """From now on, for as long as it is there."""
    _steppers.add(stepper)


def note_loss(optimizer: torch.optim.Optimizer) -> None:
    """Its state has gone with a model's workers."""
    _bereft.add(optimizer)


def steps_of(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> Steps:
    """What it does with all of these parameters, of which there are some. ValueError says why workers cannot do
    that."""
    own = set(map(id, parameters))
    groups = [group for group in optimizer.param_groups if not own.isdisjoint(map(id, group["params"]))]
    if own - {id(parameter) for group in groups for parameter in group["params"]}:
        raise ValueError("it has not got all of the model's parameters that have a gradient")
    ((kind, settings),) = spec_of_groups(optimizer, groups).items()
    learning_rate = float(settings.pop("lr"))
    plain = tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in settings.items())
    steps = Steps(kind, plain, learning_rate)
    optimizer_state.check(optimizer, steps.slots, parameters)
    return steps


def find(parameters: Sequence[torch.Tensor]) -> Steps:
    """Those of the optimizer that has these parameters, if there is one already, which spares the model a second job:
    the first one has to have the optimizer."""
    own = set(map(id, parameters))
    for candidate in gc.get_objects():
        if issubclass(type(candidate), torch.optim.Optimizer) and _has_some(candidate, own):
            try:
                return steps_of(candidate, parameters)
            except ValueError:
                pass
    return NO_STEPS


def _has_some(optimizer: torch.optim.Optimizer, own: set[int]) -> bool:
    groups = getattr(optimizer, "param_groups", ())  # Another thread may be making it.
    return any(id(parameter) in own for group in groups for parameter in group["params"])


# --- At a step ---

def _before_step(optimizer: torch.optim.Optimizer, args: tuple[Any, ...],
                 kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    found = [(stepper, steps) for stepper in _steppers_of(optimizer)
             if (steps := _take(optimizer, stepper)) is not None]
    if not found:
        return None
    args, kwargs = _with_closure_called(args, kwargs)
    _stepping[optimizer] = [stepper for stepper, _ in found]
    try:
        for stepper, steps in found:
            stepper.step(optimizer, steps)
            stepper.hide_gradients(_UnderWay(sys._getframe(1)))
    except BaseException:
        _after_step(optimizer, args, kwargs)
        raise
    return args, kwargs


def _after_step(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for stepper in _stepping.pop(optimizer, ()):
        stepper.hide_gradients(None)


class _UnderWay:
    """Whether a step of an optimizer is: a call on this thread's stack. After one that raises no hook is called."""

    def __init__(self, step: types.FrameType):
        self._step = step

    def __call__(self) -> bool:
        frame: types.FrameType | None = sys._getframe()
        while frame is not None and frame is not self._step:
            frame = frame.f_back
        return frame is not None


def _steppers_of(optimizer: torch.optim.Optimizer) -> list[Stepper]:
    return [stepper for stepper in list(_steppers) if _has_some(optimizer, set(map(id, stepper.parameters())))]


def _take(optimizer: torch.optim.Optimizer, stepper: Stepper) -> Steps | None:
    """None: it makes its steps here."""
    trained = stepper.trained()
    if not trained or not stepper.has_workers:
        return None
    try:
        steps = steps_of(optimizer, trained)
    except ValueError as error:
        stepper.give_back_state(optimizer)
        if optimizer not in _refused:
            _refused.add(optimizer)
            warnings.warn(f"{type(optimizer).__name__} makes its steps in this process, for which parameters and "
                          f"gradients are fetched from workers, and parameters sent back: {error}", stacklevel=5)
        return None
    if optimizer not in _taken:
        _taken.add(optimizer)
        optimizer.register_state_dict_post_hook(_add_state)
        optimizer.register_load_state_dict_post_hook(_forget_state)
    return steps


def _with_closure_called(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before the step, which it computes the gradients for. The optimizer gets what it has returned."""
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if closure is None:
        return args, kwargs
    with torch.enable_grad():
        loss = closure()
    return args[:1], {**kwargs, "closure": lambda: loss}


# --- Its state ---

def _add_state(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """What workers have, to its state_dict()."""
    if optimizer in _bereft:
        raise errors.Error(f"the state of {type(optimizer).__name__} was on workers, and the model whose workers they "
                           "were is gone; its close() would have fetched it")
    numbers = {id(parameter): number
               for group, packed in zip(optimizer.param_groups, state_dict["param_groups"], strict=True)
               for parameter, number in zip(group["params"], packed["params"], strict=True)}
    for stepper in _steppers_of(optimizer):
        for parameter, slots in stepper.state_of(optimizer).items():
            number = numbers.get(id(parameter))  # None: it is in no group any more.
            if number is not None:
                own = state_dict["state"].get(number, {})
                state_dict["state"][number] = optimizer_state.with_own(slots, own)


def _forget_state(optimizer: torch.optim.Optimizer) -> None:
    """Another one has been loaded."""
    _bereft.discard(optimizer)
    for stepper in _steppers_of(optimizer):
        stepper.forget_state(optimizer)


register_optimizer_step_pre_hook(_before_step)
register_optimizer_step_post_hook(_after_step)
