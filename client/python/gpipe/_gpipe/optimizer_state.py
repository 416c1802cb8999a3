"""The state of an optimizer, of which workers have the original while they make its steps.

It is in one of two places: it goes to the workers before a step, and comes back to `optimizer.state` when their session
ends, or when the optimizer makes its steps here again. Nothing is let go of in one place before the other has it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from gpipe import v1
from gpipe._gpipe.session import Session

STEP = "step"  # Counted in whole numbers by the cluster, and in a float's by torch.optim.
Slots = Mapping[str, Any]  # What an optimizer has for one parameter, as torch.optim has it.
Parameters = Mapping[str, torch.Tensor]  # By their names in the model.


def slots_of(kind: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What an optimizer of a spec has for each parameter, by the names of torch.optim, which the cluster's are, too."""
    if kind == "sgd":
        return ("momentum_buffer",) if settings.get("momentum") else ()
    return (STEP, "exp_avg", "exp_avg_sq")


def check(optimizer: torch.optim.Optimizer, slots: tuple[str, ...], parameters: Iterable[torch.Tensor]) -> None:
    """ValueError: what the optimizer has in this process of one of these is not what workers would have."""
    for parameter in parameters if optimizer.state and slots else ():  # Most steps find none.
        own = _slots_in(optimizer, parameter)
        if own and own.keys() != set(slots):
            raise ValueError(f"its state has {', '.join(sorted(own))}, and the cluster's {', '.join(sorted(slots))}")
        for slot in slots if own else ():
            if not _fits(slot, own[slot], parameter):
                raise ValueError(f"its {slot} has another shape than the parameter")


def with_own(theirs: Slots, own: Slots) -> dict[str, Any]:
    """What workers have of a parameter, and what was set here since."""
    return {**theirs, **{slot: value for slot, value in own.items() if value is not None}}


class StateOnWorkers:
    """Whose state the workers of a session have. One thread at a time."""

    def __init__(self) -> None:
        self._owner: weakref.ref[torch.optim.Optimizer] | None = None  # None: nobody's.
        self._parameters: dict[str, torch.Tensor] = {}  # As they were called at the last step.
        self._outdated = False  # What the workers have is nobody's any more.

    def is_of(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether the optimizer's state is on workers."""
        return self._owner is not None and self._owner() is optimizer

    def take_over(self, optimizer: torch.optim.Optimizer, slots: tuple[str, ...], parameters: Parameters,
                  session: Session) -> None:
        """Before a step of these workers, which have the optimizer's state then. That of another one goes back to it.
        `parameters` are those that the workers may train."""
        if not self.is_of(optimizer) or self._has_others_than(parameters):
            self.give_back(session)
        moved = _moved(optimizer, slots, parameters)
        rest = session.state(v1.STATE_KIND_OPTIMIZER) if moved and self.is_of(optimizer) else {}
        if moved or self._outdated:
            session.set_state({**rest, **moved}, v1.STATE_KIND_OPTIMIZER)
        self._owner, self._parameters, self._outdated = weakref.ref(optimizer), dict(parameters), False
        _remove(optimizer, parameters, moved)

    def _has_others_than(self, parameters: Parameters) -> bool:
        """A layer may have been replaced by one that is like it."""
        return any(parameters.get(name) is not parameter for name, parameter in self._parameters.items())

    def copy_of(self, session: Session) -> dict[torch.Tensor, dict[str, torch.Tensor]]:
        """By parameter, as torch.optim has it."""
        state: dict[torch.Tensor, dict[str, torch.Tensor]] = {}
        for name, tensor in session.state(v1.STATE_KIND_OPTIMIZER).items():
            parameter, _, slot = name.rpartition("/")
            if parameter in self._parameters:
                slots = state.setdefault(self._parameters[parameter], {})
                slots[slot] = tensor.float() if slot == STEP else tensor
        return state

    def give_back(self, session: Session) -> None:
        """To its optimizer, if that is still there."""
        owner = self._owner() if self._owner is not None else None
        if owner is not None:
            for parameter, slots in self.copy_of(session).items():
                owner.state[parameter] = with_own(slots, owner.state[parameter])
        self.forget()

    def forget(self) -> None:
        """It is not wanted any more."""
        self._outdated = self._outdated or self._owner is not None
        self._owner = None
        self._parameters.clear()

    def end(self) -> torch.optim.Optimizer | None:
        """The session has ended, and what its workers had is lost. Returns whose that was, if it was anybody's."""
        lost = self._owner() if self._owner is not None else None
        self._owner, self._outdated = None, False
        self._parameters.clear()
        return lost


def _slots_in(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict[str, Any]:
    return with_own({}, optimizer.state.get(parameter, {}))


def _fits(slot: str, value: Any, parameter: torch.Tensor) -> bool:
    tensor = torch.as_tensor(value)
    return tensor.numel() == 1 if slot == STEP else tensor.shape == parameter.shape


def _moved(optimizer: torch.optim.Optimizer, slots: tuple[str, ...], parameters: Parameters) -> dict[str, torch.Tensor]:
    """What is in this process, as the cluster has it. Each tensor is of its parameter's type."""
    moved: dict[str, torch.Tensor] = {}
    for name, parameter in parameters.items() if optimizer.state else ():
        own = _slots_in(optimizer, parameter)
        if not own.keys() >= set(slots) or not all(_fits(slot, own[slot], parameter) for slot in slots):
            continue
        for slot in slots:
            value = torch.as_tensor(own[slot])
            moved[f"{name}/{slot}"] = value.long() if slot == STEP else value.to(parameter.dtype)
    return moved


def _remove(optimizer: torch.optim.Optimizer, parameters: Parameters, moved: Iterable[str]) -> None:
    for name in moved:
        parameter, _, slot = name.rpartition("/")
        state = optimizer.state[parameters[parameter]]
        del state[slot]
        if not state:
            del optimizer.state[parameters[parameter]]
