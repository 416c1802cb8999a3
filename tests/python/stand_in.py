"""Stands for the workers of a gpipe.GPipe: a session that runs the exported program in this process, in one piece, with
PyTorch's own optimizers. It notes what it is asked for."""

from __future__ import annotations

import pathlib

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.export.pt2_archive._package import load_pt2

from gpipe import errors, v1
from gpipe._gpipe.launcher import Launcher
from gpipe._gpipe.program import FILE

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}

NAMES = {v1.STATE_KIND_VALUES: "state", v1.STATE_KIND_GRADIENTS: "gradients", v1.STATE_KIND_OPTIMIZER: "optimizer"}


class StandIn:
    """As gpipe._gpipe.session.Session."""

    def __init__(self, program, folder, wanted):
        self.log: list[str] = []
        self.failed, self.ended = False, False
        self._names, self._wanted = program.inputs, wanted
        archive = load_pt2(pathlib.Path(folder) / FILE)
        self._spec = archive.exported_programs["model"].call_spec.in_spec
        self._training = archive.exported_programs["model"].module()
        own = archive.exported_programs.get("evaluation")
        self._evaluation = own.module() if own else None
        self._saved: dict[int, tuple] = {}
        parameters = [p for p in self._training.parameters() if p.requires_grad]
        ((kind, options),) = wanted.optimizer.items()
        self._optimizer = OPTIMIZERS[kind](parameters or [nn.Parameter(torch.zeros(0))], **options)

    def forward(self, inputs):
        self._note("forward")
        leaves = [self._leaf(tensor) for tensor in inputs]
        with torch.enable_grad():
            outputs = self._call(self._training, leaves)
        self._saved[len(self.log)] = (leaves, outputs)
        return len(self.log), [output.detach().clone() for output in outputs]

    def predict(self, inputs):
        self._note("predict")
        assert self._evaluation is not None, "the stand-in has no evaluation of its own"
        with torch.no_grad():
            return list(self._call(self._evaluation, inputs))

    def backward(self, asked, gradients, wanted):
        self._note("backward")
        leaves, outputs = self._saved.pop(asked)
        torch.autograd.backward([outputs[i] for i in gradients], list(gradients.values()))
        return {name: leaf.grad for name, leaf in zip(self._names, leaves) if leaf.requires_grad} if wanted else {}

    def drop(self, asked):
        self.log.append("drop")
        self._saved.pop(asked, None)

    def update(self, learning_rate):
        self._note("update")
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()

    def zero_gradients(self):
        self._note("zero_gradients")
        self._training.zero_grad()

    def state(self, kind):
        self._note(f"get_{NAMES[kind]}")
        if kind == v1.STATE_KIND_OPTIMIZER:
            return {f"{name}/{slot}": (tensor.long() if slot == "step" else tensor.clone())
                    for name, p in self._training.named_parameters() if p in self._optimizer.state
                    for slot, tensor in self._optimizer.state[p].items() if tensor is not None}
        if kind == v1.STATE_KIND_GRADIENTS:
            return {name: p.grad.clone() for name, p in self._training.named_parameters() if p.grad is not None}
        return {name: tensor.detach().clone() for name, tensor in self._training.state_dict().items()}

    def set_state(self, tensors, kind):
        self._note(f"set_{NAMES[kind]} " + ",".join(sorted(tensors)))
        own = dict(self._training.named_parameters()) | dict(self._training.named_buffers())
        if kind == v1.STATE_KIND_OPTIMIZER:
            self._optimizer.state.clear()
            own = {name: tensor for name, tensor in own.items() if tensor.requires_grad}
            tensors = {name: tensor for name, tensor in tensors.items() if name.rpartition("/")[0] in own}
        with torch.no_grad():
            for name, tensor in tensors.items():
                if kind == v1.STATE_KIND_OPTIMIZER:
                    parameter, _, slot = name.rpartition("/")
                    self._optimizer.state[own[parameter]][slot] = tensor.float() if slot == "step" else tensor.clone()
                elif kind == v1.STATE_KIND_GRADIENTS:
                    own[name].grad = tensor.clone()
                else:
                    own[name].copy_(tensor)

    def fail(self):
        """As if a worker had been killed."""
        self.failed = True

    def end(self):
        self.ended = True

    cancel = end

    def join(self, timeout):
        pass

    def _note(self, what):
        if self.failed:
            raise errors.ClusterError("w1 was killed by signal 9")
        if self.ended:
            raise errors.CancelledError("the model's job has ended")
        self.log.append(what)

    def _leaf(self, tensor):
        wants = self._wanted.input_gradients and tensor.is_floating_point()
        return tensor.detach().clone().requires_grad_(wants)

    def _call(self, program, inputs):
        args, kwargs = pytree.tree_unflatten(list(inputs), self._spec)
        outputs = program(*args, **kwargs)
        return outputs if isinstance(outputs, tuple) else (outputs,)


class StandInLauncher(Launcher):
    """No process is started. `sessions` are those that were launched, of all models."""

    sessions: list[StandIn] = []

    def launch(self, program, folder, like, wanted):
        self.program = program
        self.sessions.append(StandIn(program, folder, wanted))
        return self.sessions[-1]

    def end(self, session):
        session.end()
