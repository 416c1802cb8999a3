"""Runs a model's passes on workers: opens a session when the first pass asks for one, and another one when the session
that there is cannot do what is asked for."""

from __future__ import annotations

import atexit
import dataclasses
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from gpipe import errors
from gpipe._gpipe import optimizers
from gpipe._gpipe.autograd import Pass, run_pass
from gpipe._gpipe.folder import Folder
from gpipe._gpipe.launcher import Launcher, Settings, Wanted
from gpipe._gpipe.mirror import Mirror
from gpipe._gpipe.optimizers import NO_STEPS, Steps
from gpipe._gpipe.program import Input, Program, export_program
from gpipe._gpipe.proxies import Kind
from gpipe._gpipe.rounds import await_ends
from gpipe._gpipe.session import Session


@dataclasses.dataclass(frozen=True)
class Form:
    """What a program is exported for; for another one it is exported again."""

    inputs: tuple[tuple[torch.dtype, torch.Size], ...]  # Without the batch.
    is_tuple: bool
    modes: tuple[bool, ...]  # Whether each module is in training, where any is.
    tensors: tuple[tuple[str, torch.dtype, torch.Size], ...]
    trained: frozenset[str]  # Parameters that have required a gradient, at any time.


class Engine:
    """Of one model. It knows nothing of the GPipe that has it, and ends with that."""

    def __init__(self, partitions: nn.ModuleList, settings: Settings):
        self.partitions = partitions
        self.mirror = Mirror()
        self._steps = NO_STEPS  # Of the optimizer that the session is opened with,
        self._stepper: weakref.ref[torch.optim.Optimizer] | None = None  # which has made one on its workers.
        self._settings, self._launcher = settings, Launcher(settings)
        self._form: Form | None = None
        self._program: Program | None = None  # None: no worker is needed for this form.
        self._folder: Folder | None = None  # The program's.
        self._like: Input | None = None  # The input for which the session was opened, without values.
        self._input_gradients = False
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
        tensors = input if isinstance(input, tuple) else (input,)
        _check_batch(tensors)
        in_training = self._in_training()
        differentiates = in_training and torch.is_grad_enabled()
        wants_gradients = differentiates and any(tensor.requires_grad for tensor in tensors)
        program = self._prepare(input, in_training, wants_gradients)
        if program is None:
            return self._forward_here(input)
        self.mirror.send(Kind.VALUE)
        trained = program.differentiable & self.mirror.trained().keys()
        if not in_training:
            outputs: Sequence[torch.Tensor] = self._session().predict(tensors)
        elif differentiates and (wants_gradients or trained):
            outputs = run_pass(self, bool(trained), tensors)
        else:
            outputs = self.start(tensors).outputs
        device = self._device_of_outputs(tensors[0].device)
        outputs = [output.to(device) for output in outputs]
        return tuple(outputs) if program.returns_tuple else outputs[0]

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

    # --- Steps ---

    def parameters(self) -> list[torch.Tensor]:
        """As optimizers.Stepper has it."""
        return self.mirror.parameters()

    def trained(self) -> list[torch.Tensor]:
        """As optimizers.Stepper has it."""
        return list({**self.mirror.trained(), **self.mirror.differentiated()}.values())

    def step(self, optimizer: torch.optim.Optimizer, steps: Steps) -> None:
        """As optimizers.Stepper has it. Without gradients nothing is done, as PyTorch's do nothing."""
        if not self.mirror.differentiated() or self._like is None:
            return
        goes_on = self._stepper is not None and self._stepper() is optimizer
        begins_anew = self._stepper is not None and not goes_on
        if self.mirror.session is None or steps != self._steps or begins_anew:
            self._steps = steps
            self._change_session(self._like, "the optimizer has other settings" if goes_on else "")
        self.mirror.send(Kind.VALUE)
        self.mirror.send(Kind.GRADIENT)
        self._session().update(steps.learning_rate)
        self.mirror.note_update()
        self._stepper = weakref.ref(optimizer)

    def hide_gradients(self, hides: bool) -> None:
        """As optimizers.Stepper has it."""
        self.mirror.hides_gradients = hides

    # --- Sessions ---

    def close(self) -> None:
        """Ends the session. What only its workers have is lost. May be called again."""
        session, self.mirror.session = self.mirror.session, None
        if session is not None:
            self._launcher.end(session)
        self._launcher.close()

    def fetch(self) -> None:
        """Whatever only the workers have, but for an optimizer's state."""
        self.mirror.refresh_stale()
        if self.mirror.session is not None and self.mirror.session.failed:
            self.mirror.forget_gradients()
        self.mirror.fetch_gradients()

    def _session(self) -> Session:
        assert self.mirror.session is not None
        return self.mirror.session

    def _prepare(self, input: Input, in_training: bool, input_gradients: bool) -> Program | None:
        """Makes sure that there is a session for such a pass, if it needs workers."""
        self.mirror.hides_gradients = False
        tensors = self.tensors()
        self.mirror.adopt(tensors)
        form = self._form_of(input, tensors, in_training)
        without_gradients = input_gradients and not self._input_gradients
        self._input_gradients |= input_gradients
        if form != self._form:
            self._change_program(form, input, in_training)
        elif self._program is None:
            pass
        elif self.mirror.session is None or self.mirror.session.failed:
            self._change_session(input, "workers were lost")
        elif without_gradients:
            self._change_session(input, "inputs require gradients")
        return self._program

    def _change_program(self, form: Form, input: Input, in_training: bool) -> None:
        self.fetch()
        folder = Folder()
        with self.mirror.plain(form.trained):
            program = export_program(self.partitions, input, in_training, folder.path)
        self._end_session(_difference(form, self._form))
        self._form, self._program, self._folder = form, program, folder
        if program is not None:
            self._begin_session(input, with_values=True)

    def _change_session(self, input: Input, why: str) -> None:
        self.fetch()
        self._end_session(why)
        self._begin_session(input, with_values=False)

    def _begin_session(self, input: Input, with_values: bool) -> None:
        assert self._program is not None and self._folder is not None
        self._like = _without_values(input)
        if self._steps is NO_STEPS:
            self._steps = optimizers.find(self.trained())
        # Other random numbers in each session, and the same ones in each run of a program that sets a seed.
        seed = (torch.initial_seed() + self._openings) % 2**64
        self._openings += 1
        self.mirror.session = self._launcher.launch(self._program, self._folder.path, self._like,
                                                    Wanted(self._steps.spec, self._input_gradients, seed))
        self.mirror.note_opened(with_values)

    def _end_session(self, why: str) -> None:
        session, self.mirror.session = self.mirror.session, None
        if session is not None:
            self._launcher.end(session)
            if why and self._stepper is not None:
                warnings.warn(f"{why}: the model begins a new job, with an optimizer that has no state", stacklevel=2)
        self._stepper = None

    # --- Forms ---

    def _in_training(self) -> bool:
        return any(module.training for module in self.partitions.modules())

    def _form_of(self, input: Input, tensors: Mapping[str, torch.Tensor], in_training: bool) -> Form:
        inputs = input if isinstance(input, tuple) else (input,)
        modes = tuple(module.training for module in self.partitions.modules())
        if not in_training:  # Whatever it is in training has this evaluation.
            modes = self._form.modes if self._form is not None else (True,) * len(modes)
        with torch._C.DisableTorchFunctionSubclass():
            return Form(tuple((tensor.dtype, tensor.shape[1:]) for tensor in inputs), isinstance(input, tuple), modes,
                        tuple((name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()),
                        frozenset(self.mirror.trained()) | (self._form.trained if self._form is not None else set()))

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


def _check_batch(inputs: Sequence[torch.Tensor]) -> None:
    if not inputs:
        raise ValueError("the input has no tensor")
    for tensor in inputs:
        if isinstance(tensor, tuple):
            raise TypeError("expected Tensor, but got <class 'tuple'>: tuples cannot be nested")
        if tensor.dim() == 0:
            raise ValueError("the input is a single number, and has no samples")
    sizes = sorted({tensor.shape[0] for tensor in inputs})
    if len(sizes) > 1 or sizes[0] == 0:
        raise ValueError("the inputs must have as many samples each, and at least one: their first dimensions are "
                         f"{[tensor.shape[0] for tensor in inputs]}")


def _without_values(input: Input) -> Input:
    if isinstance(input, tuple):
        return tuple(tensor.detach().to("meta") for tensor in input)
    return input.detach().to("meta")


def _difference(form: Form, before: Form | None) -> str:
    """What has changed."""
    if before is None or form.inputs != before.inputs or form.is_tuple != before.is_tuple:
        return "inputs have another size or type"
    return "modules have another mode" if form.modes != before.modes else "the model has other parameters"
