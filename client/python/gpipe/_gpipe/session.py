"""A model on workers: a job, the rounds that are asked of it, and the tensors that go there and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from gpipe import _methods, errors, v1
from gpipe._gpipe.exchange import Exchange
from gpipe._gpipe.rounds import Asked, Rounds
from gpipe._wire import BlockingWire, run

Tensors = Sequence[torch.Tensor]


class Session:
    """From the job's first moment to its end. What an earlier round has failed with is raised by the next one."""

    def __init__(self, wire: BlockingWire, job: str, exchange: Exchange, inputs: Sequence[str]):
        """Waits until the job runs. `inputs` are the names of the model's."""
        self.job = job
        self._exchange, self._inputs = exchange, inputs
        self._rounds = Rounds(wire, job, exchange.discard, _Explanation(wire, job))
        try:
            self._outputs = [output.name for output in self._rounds.opened().outputs]
        except BaseException:
            self.cancel()
            raise

    @property
    def failed(self) -> bool:
        """It is of no use any more."""
        return self._rounds.failure is not None

    # --- Passes ---

    def forward(self, inputs: Tensors) -> tuple[Asked, list[torch.Tensor]]:
        """The pass, whose backward() or drop() has to follow, and its outputs."""
        asked = self._ask_pass(v1.ROUND_KIND_FORWARD, inputs)
        try:
            return asked, self._outputs_of(asked)
        except BaseException:  # A Ctrl-C.
            self.drop(asked)
            raise

    def predict(self, inputs: Tensors) -> list[torch.Tensor]:
        """The outputs of the model in evaluation."""
        return self._outputs_of(self._ask_pass(v1.ROUND_KIND_PREDICT, inputs))

    def backward(self, forward: Asked, gradients: Mapping[int, torch.Tensor], wanted: bool) -> dict[str, torch.Tensor]:
        """`gradients` are those of the outputs by their positions. If they are wanted: waits, and returns the gradients
        of the inputs by name."""
        try:
            data = self._exchange.put({self._outputs[i]: gradient for i, gradient in gradients.items()})
        except BaseException:  # A full folder: nobody will ask for it any more.
            self.drop(forward)
            raise
        asked = self._rounds.ask(v1.AskedRound(kind=v1.ROUND_KIND_BACKWARD, data=data), forward, wanted)
        return self._results(asked) if wanted else {}

    @property
    def drop(self) -> Callable[[Asked], None]:
        """Lets go of what a forward pass saved; for finalizers (Rounds.drop)."""
        return self._rounds.drop

    # --- Parameters and the optimizer ---

    def update(self, learning_rate: float) -> None:
        """An optimizer step. Does not wait."""
        self._rounds.ask(v1.AskedRound(kind=v1.ROUND_KIND_UPDATE, learning_rate=learning_rate))

    def zero_gradients(self) -> None:
        """Does not wait."""
        self._rounds.ask(v1.AskedRound(kind=v1.ROUND_KIND_ZERO_GRADIENTS))

    def state(self, kind: v1.StateKind.ValueType) -> dict[str, torch.Tensor]:
        """All that workers have of it."""
        asked = self._rounds.ask(v1.AskedRound(kind=v1.ROUND_KIND_GET_STATE, state=kind), wanted=True)
        return self._results(asked)

    def set_state(self, tensors: Mapping[str, torch.Tensor], kind: v1.StateKind.ValueType) -> None:
        """What is not among them stays as it is, but for the optimizer's, which is set whole. Does not wait."""
        self._rounds.ask(v1.AskedRound(kind=v1.ROUND_KIND_SET_STATE, state=kind, data=self._exchange.put(tensors)))

    # --- The end ---

    def end(self) -> None:
        """The job has SUCCEEDED as soon as all is done and its model is stored. Does not wait."""
        self._rounds.end()
        self._exchange.close()

    def cancel(self) -> None:
        """Nobody wants the job any more."""
        self._rounds.cancel()
        self._exchange.close()

    def join(self, timeout: float) -> None:
        """Waits for the end."""
        self._rounds.join(timeout)

    def _ask_pass(self, kind: v1.RoundKind.ValueType, inputs: Tensors) -> Asked:
        data = self._exchange.put(dict(zip(self._inputs, inputs, strict=True)))
        return self._rounds.ask(v1.AskedRound(kind=kind, batch_size=inputs[0].shape[0], data=data), wanted=True)

    def _outputs_of(self, asked: Asked) -> list[torch.Tensor]:
        tensors = self._results(asked)
        return [tensors[name] for name in self._outputs]

    def _results(self, asked: Asked) -> dict[str, torch.Tensor]:
        """What workers made of the round. Of a gradient some may have a part each."""
        tensors: dict[str, torch.Tensor] = {}
        for ref in self._rounds.wait(asked):
            for name, tensor in self._exchange.take(ref).items():
                tensors[name] = tensors[name] + tensor if name in tensors else tensor
        return tensors


class _Explanation:
    """What a call ends with, when its job has: how that ended says more."""

    def __init__(self, wire: BlockingWire, job: str):
        self._wire, self._job = wire, job

    def __call__(self, error: errors.Error) -> errors.Error:
        try:
            job = run(self._wire.call(_methods.GET, v1.GetJobRequest(id=self._job)))
        except errors.Error:
            return error
        if job.state == v1.Job.STATE_FAILED:
            return errors.JobFailedError(job)
        # A job that has lost its call is cancelled, too, which says less than what ended the call.
        was_cancelled = job.state == v1.Job.STATE_CANCELLED and isinstance(error, errors.CancelledError)
        return errors.JobCancelledError(job) if was_cancelled else error
