"""Runs a model's passes on workers: opens a session when the first pass asks for one, and another one when the session
that there is cannot do what is asked for."""

from __future__ import annotations

import atexit
import dataclasses
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn

from gpipe import errors
from gpipe._gpipe import optimizers
from gpipe._gpipe.arguments import Arguments, Input, Like
from gpipe._gpipe.autograd import Pass, run_pass
from gpipe._gpipe.folder import Folder
from gpipe._gpipe.launcher import Launcher, Settings, Wanted
from gpipe._gpipe.losses import Loss
from gpipe._gpipe.mirror import Mirror
from gpipe._gpipe.optimizer_state import StateOnWorkers
from gpipe._gpipe.optimizers import NO_STEPS, Steps
from gpipe._gpipe.program import Program, export_program
from gpipe._gpipe.proxies import Kind
from gpipe._gpipe.rounds import await_ends
from gpipe._gpipe.session import Session

NO_OUTPUTS = ("the model was given a loss, so in training its outputs stay on the workers: call model.loss(input, "
              "target), or have a GPipe without loss=; in eval() the model gives outputs")
NO_LOSS = "the model was given no loss: GPipe(module, balance, loss=nn.CrossEntropyLoss()) has one"


@dataclasses.dataclass(frozen=True)
class Form:
    """What a program is exported for; for another one it is exported again."""

    input: Like
    target: Like | None
    modes: tuple[bool, ...]  # Whether each module is in training, where any is.
    tensors: tuple[tuple[str, torch.dtype, torch.Size], ...]
    trained: frozenset[str]  # Parameters that have required a gradient, at any time.


class Engine:
    """Of one model. It knows nothing of the GPipe that has it, and ends with that."""

    def __init__(self, partitions: nn.ModuleList, settings: Settings):
        self.partitions = partitions
        self.mirror = Mirror()
        self._steps = NO_STEPS  # Of the optimizer that the last session was opened with.
        self._optimizer_state = StateOnWorkers()
        self._settings, self._launcher = settings, Launcher(settings)
        self._form: Form | None = None
        self._program: Program | None = None  # None: no worker is needed for this form.
        self._folder: Folder | None = None  # The program's.
        self._like: Arguments | None = None  # Those for which the session was opened, without values.
        self._wants_input_gradients = False
        self._input_gradients = False  # Whether the session that there is gives them.
        self._openings = 0
        self.mirror.adopt(self.tensors())
        optimizers.register(self)
        _engines.add(self)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What workers have of the model, by their names: parameters, and buffers of its state_dict(), each once."""
        found: dict[int, tuple[str, torch.Tensor]] = {}
        for partition in self.partitions:
            for place, module in partition.named_modules():
                for name, tensor in _tensors_of(module):
                    found.setdefault(id(tensor), (f"{place}.{name}", tensor))
        return dict(found.values())

    # --- Passes ---

    def forward(self, input: Input) -> Input:
        """Of a whole mini-batch."""
        in_training = self._in_training()
        if in_training and self._settings.loss is not None:
            raise RuntimeError(NO_OUTPUTS)
        arguments = Arguments(input)
        arguments.check()
        returned = self._pass(arguments, in_training)
        return self._forward_here(input) if returned is None else self._known_program().output_of(returned)

    def loss(self, input: Input, target: Input) -> Any:
        """Of a whole mini-batch: what the loss returns of outputs and target. In evaluation it is computed here."""
        loss = self._settings.loss
        if loss is None:
            raise RuntimeError(NO_LOSS)
        arguments = Arguments(input, target)
        arguments.check()
        in_training = self._in_training()
        returned = self._pass(arguments, True) if in_training else None
        if returned is None:
            output = self._forward_here(input) if in_training else self.forward(input)
            return self._loss_here(loss, output, target)
        composition = self._known_program().composition
        assert composition is not None
        return composition.join(returned)

    def _pass(self, arguments: Arguments, in_training: bool) -> list[torch.Tensor] | None:
        """What the program returns. None: it needs no workers."""
        differentiates = in_training and torch.is_grad_enabled()
        wants_gradients = differentiates and any(tensor.requires_grad for tensor in arguments.tensors)
        arguments = self._prepare(arguments, in_training, wants_gradients)
        if self._program is None:
            return None
        self.mirror.send(Kind.VALUE)
        trained, tensors = self._program.differentiable & self.mirror.trained().keys(), arguments.tensors
        if not in_training:
            returned: Sequence[torch.Tensor] = self._session().predict(tensors)
        elif differentiates and (wants_gradients or trained):
            returned = run_pass(self, bool(trained), tensors)
        else:
            returned = self.start(tensors).outputs
        device = self._device_of_outputs(tensors[0].device)
        return [tensor.to(device) for tensor in returned]

    def start(self, inputs: Sequence[torch.Tensor]) -> Pass:
        """As autograd.Runner has it."""
        self.mirror.note_forward()
        asked, outputs = self._session().forward(inputs)
        return Pass(self._session(), asked, outputs, self.mirror.trained().keys())

    def backward(self, started: Pass, gradients: Mapping[int, torch.Tensor], wanted: Sequence[int],
                 accumulates: bool) -> dict[int, torch.Tensor]:
        """As autograd.Runner has it."""
        session, asked = started.take()
        program = self._program
        if session is not self.mirror.session or program is None:
            raise errors.Error("what workers saved of this forward pass has gone with their job, which has ended since")
        with self.mirror.backward(program.differentiable, started.trained if accumulates else set()):
            found = session.backward(asked, gradients, bool(wanted))
        return {i: found[program.inputs[i]] for i in wanted}

    def _forward_here(self, input: Input) -> Input:
        for partition in self.partitions:
            input = partition(input)
        return input

    def _loss_here(self, loss: Loss, output: Input, target: Input) -> Any:
        """Where its constants are."""
        device = Arguments(output).tensors[0].device
        found = loss(*Arguments(output, target).map(torch.Tensor.cpu))
        return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), found)

    # --- Steps ---

    @property
    def has_workers(self) -> bool:
        """As optimizers.Stepper has it."""
        return self._like is not None

    def parameters(self) -> list[torch.Tensor]:
        """As optimizers.Stepper has it."""
        return list(self.mirror.parameters().values())

    def trained(self) -> list[torch.Tensor]:
        """As optimizers.Stepper has it."""
        return list({**self.mirror.trained(), **self.mirror.differentiated()}.values())

    def step(self, optimizer: torch.optim.Optimizer, steps: Steps) -> None:
        """As optimizers.Stepper has it. Without gradients nothing is done, as PyTorch's do nothing."""
        if not self.mirror.differentiated():
            return
        assert self._like is not None and self._form is not None
        if self.mirror.session is None or steps != self._steps:
            self._change_session(self._like, steps)
        self.mirror.send(Kind.VALUE)
        self.mirror.send(Kind.GRADIENT)
        trained = {name: tensor for name, tensor in self.mirror.parameters().items() if name in self._form.trained}
        self._optimizer_state.take_over(optimizer, steps.slots, trained, self._session())
        self._session().update(steps.learning_rate)
        self.mirror.note_update()

    def hide_gradients(self, while_true: Callable[[], bool] | None) -> None:
        """As optimizers.Stepper has it."""
        self.mirror.hides_gradients_from = while_true

    def state_of(self, optimizer: torch.optim.Optimizer) -> dict[torch.Tensor, dict[str, torch.Tensor]]:
        """As optimizers.Stepper has it."""
        return self._optimizer_state.copy_of(self._session()) if self._optimizer_state.is_of(optimizer) else {}

    def give_back_state(self, optimizer: torch.optim.Optimizer) -> None:
        """As optimizers.Stepper has it."""
        if self._optimizer_state.is_of(optimizer):
            self._optimizer_state.give_back(self._session())

    def forget_state(self, optimizer: torch.optim.Optimizer) -> None:
        """As optimizers.Stepper has it."""
        if self._optimizer_state.is_of(optimizer):
            self._optimizer_state.forget()

    # --- Sessions ---

    def close(self) -> None:
        """Ends the session. What only its workers have is lost. May be called again."""
        session, self.mirror.session = self.mirror.session, None
        if session is not None:
            self._launcher.end(session)
        self._optimizer_state.end()
        self._launcher.close()

    def abandon(self) -> None:
        """Nobody has the model any more."""
        if (optimizer := self._optimizer_state.end()) is not None:
            optimizers.note_loss(optimizer)
        self.close()

    def fetch(self) -> None:
        """Whatever only the workers have, before they go. Gradients and the state of an optimizer go with lost ones."""
        self.mirror.refresh_stale()
        session = self.mirror.session
        if session is not None and session.failed:
            self.mirror.forget_gradients()
            if (optimizer := self._optimizer_state.end()) is not None:
                warnings.warn(f"workers were lost, and with them the state of {type(optimizer).__name__}, which begins "
                              "anew", stacklevel=2)
        elif session is not None:
            self._optimizer_state.give_back(session)
        self.mirror.fetch_gradients()

    def _session(self) -> Session:
        assert self.mirror.session is not None
        return self.mirror.session

    def _known_program(self) -> Program:
        assert self._program is not None
        return self._program

    def _prepare(self, arguments: Arguments, in_training: bool, input_gradients: bool) -> Arguments:
        """Makes sure that there is a session for such a pass, if it needs workers. Returns what its program takes."""
        self.mirror.hides_gradients_from = None
        tensors = self.tensors()
        self.mirror.adopt(tensors)
        form = self._form_of(arguments, tensors, in_training)
        if arguments.target is None and form.target is not None:  # Which nothing depends on.
            arguments = Arguments(arguments.input, form.target.zeros(arguments.tensors[0].shape[0]))
        self._wants_input_gradients |= input_gradients
        without_gradients = self._wants_input_gradients and not self._input_gradients
        unchecked = in_training and self._is_unchecked(arguments)
        if form != self._form or unchecked:
            self._change_program(form, arguments, in_training)
        elif self._program is None:
            pass
        elif self.mirror.session is None or self.mirror.session.failed or without_gradients:
            self._change_session(arguments)
        return arguments

    def _is_unchecked(self, arguments: Arguments) -> bool:
        """Whether the program's loss could not be tried on its samples, and can be on these."""
        return self._program is not None and not self._program.is_checked and arguments.tensors[0].shape[0] > 1

    def _change_program(self, form: Form, arguments: Arguments, in_training: bool) -> None:
        self.fetch()
        folder = Folder()
        with self.mirror.plain(form.trained):
            program = export_program(self.partitions, arguments, in_training, folder.path, self._settings.loss)
        self._end_session()
        self._form, self._program, self._folder = form, program, folder
        if program is not None:
            self._begin_session(arguments, with_values=True)

    def _change_session(self, arguments: Arguments, steps: Steps | None = None) -> None:
        self.fetch()
        self._end_session()
        self._begin_session(arguments, with_values=False, steps=steps)

    def _begin_session(self, arguments: Arguments, with_values: bool, steps: Steps | None = None) -> None:
        """For the steps of the last one, if there are no others."""
        assert self._program is not None and self._folder is not None
        self._like = arguments.map(lambda tensor: tensor.detach().to("meta"))
        steps = steps or self._steps
        if steps is NO_STEPS:
            steps = optimizers.find(self.trained())
        # Other random numbers in each session, and the same ones in each run of a program that sets a seed.
        seed = (torch.initial_seed() + self._openings) % 2**64
        self._openings += 1
        self.mirror.session = self._launcher.launch(self._program, self._folder.path, self._like.tensors,
                                                    Wanted(steps.spec, self._wants_input_gradients, seed))
        self._steps, self._input_gradients = steps, self._wants_input_gradients
        self.mirror.note_opened(with_values)

    def _end_session(self) -> None:
        """After fetch()."""
        session, self.mirror.session = self.mirror.session, None
        if session is not None:
            self._launcher.end(session)
        self._optimizer_state.end()

    # --- Forms ---

    def _in_training(self) -> bool:
        return any(module.training for module in self.partitions.modules())

    def _form_of(self, arguments: Arguments, tensors: Mapping[str, torch.Tensor], in_training: bool) -> Form:
        known, target = self._form, arguments.target
        modes = tuple(module.training for module in self.partitions.modules())
        if not in_training and known is not None:  # Whatever it is in training has this evaluation.
            modes = known.modes
        elif not in_training:
            modes = (True,) * len(modes)
        with torch._C.DisableTorchFunctionSubclass():
            form = Form(Like.of(arguments.input), None if target is None else Like.of(target), modes,
                        tuple((name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()),
                        frozenset(self.mirror.trained()) | (known.trained if known is not None else set()))
        if known is not None and not in_training and dataclasses.replace(form, target=known.target) == known:
            return known  # Also with a loss.
        return form

    def _device_of_outputs(self, device: torch.device) -> torch.device:
        """As torchgpipe has it where inputs are on a GPU; else where they are."""
        last = self._settings.devices[-1]
        return last if device.type == last.type == "cuda" else device


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Models that are there when the program ends."""
    for engine in list(_engines):
        engine.close()
    await_ends()


def _tensors_of(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Its own, not those of modules in it."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield name, parameter
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            yield name, buffer
