"""One GPU without a pipeline, by PyTorch alone: eager, compiled, and either as one CUDA graph of the whole step.

A step is the forward and backward of all micro-batches, gradients added up, and fused AdamW.
"""

from __future__ import annotations

import pathlib
import statistics
import time
from collections.abc import Callable

import torch

import model as models

LONG = 20.0  # Seconds of steps after which fewer will do, but not fewer than
FEWEST = 3   # so many.


class Training:
    """All on the stream that is current when it is made, as capturing asks for."""

    def __init__(self, case: dict, device: torch.device):
        shape, sequences = models.SIZES[case["size"]], case["chunks"] * models.MICRO_BATCH[case["size"]]
        self.chunks, self.folder, self.device = case["chunks"], pathlib.Path(case["folder"]), device
        self.captured = "graph" in case["mode"]
        self.loss_of = models.loss_of
        self.model = models.empty_model(shape)
        models.load_weights(self.model, self.folder / "weights", device)
        if "compiled" in case["mode"]:
            self.compile()
        self.optimizer = make_optimizer(self.model.parameters(), device, capturable=self.captured)
        self.tokens, self.labels = (t.to(device).chunk(self.chunks) for t in models.data_of(shape, sequences))
        self.loss = torch.zeros((), device=device)

    def compile(self) -> None:
        """Layer by layer, as torchtitan does it, and the head and the loss."""
        torch._dynamo.config.recompile_limit = 64
        for part in [*self.model.layers.values(), self.model.head]:
            part.compile(dynamic=False)
        self.loss_of = torch.compile(models.loss_of, dynamic=False)

    def forward_backward(self, chunks: int) -> None:
        self.loss.zero_()
        for x, y in zip(self.tokens[:chunks], self.labels):
            loss = self.loss_of(self.model(x), y) / self.chunks
            loss.backward()
            self.loss += loss.detach()

    def step(self) -> None:
        if self.captured:
            torch._foreach_zero_([p.grad for p in self.model.parameters()])
        else:
            self.optimizer.zero_grad()
        self.forward_backward(self.chunks)
        self.optimizer.step()

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        """Threads of NCCL, where pipelines ran before, may ask CUDA meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            function()
        return graph.replay

    def warm_up(self) -> None:
        """What capturing needs to be there, gradients and the optimizer's state too, which are then as at the start."""
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        kept = [p.detach().clone() for p in self.model.parameters()]
        for _ in range(3):
            self.forward_backward(1)
            self.optimizer.step()
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), kept):
                parameter.copy_(value)
        for state in self.optimizer.state.values():
            torch._foreach_zero_(list(state.values()))


def make_optimizer(parameters, device: torch.device, capturable: bool = False, **adamw) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, **(models.ADAMW | adamw), fused=True,
                             capturable=capturable and device.type == "cuda")


def sync(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def timed(function: Callable[[], None], device: torch.device) -> float:
    sync(device)
    begin = time.perf_counter()
    function()
    sync(device)
    return time.perf_counter() - begin


def measure(case: dict, device: torch.device) -> dict:
    stream = torch.cuda.Stream() if device.type == "cuda" else None
    with torch.cuda.stream(stream):  # Nothing without one.
        training = Training(case, device)
        step, update = training.step, training.optimizer.step
        if training.captured:
            training.warm_up()
            sync(device)
            step = training.capture(training.step)
        seconds, losses, begin = [], [], time.perf_counter()
        while len(seconds) < case["steps"]:
            seconds.append(timed(step, device))
            losses.append(training.loss.item())
            if time.perf_counter() - begin > LONG and len(seconds) >= case["skip"] + FEWEST:
                break
        if training.captured:
            update = training.capture(training.optimizer.step)
        updates = [timed(update, device) for _ in range(5)]
        return {"step_seconds": seconds, "losses": losses, "optimizer_seconds": statistics.median(updates)}
