"""A bar for who waits: in a terminal, or in a notebook, where tqdm is installed."""

from __future__ import annotations

import sys
from typing import Any

from gpipe import v1
from gpipe._files import OnFile
from gpipe._follow import Update, state_name
from gpipe._format import loss_text


LARGE_FILE = 64 << 20


class Progress:
    """Shows a job's steps as they are done. `wanted` None: where somebody looks, and tqdm is there."""

    def __init__(self, wanted: bool | None):
        self._make = _bar_maker(wanted)
        self._bar: Any = None
        self._total = 0

    def show(self, update: Update) -> None:
        """Takes one update of the job."""
        if self._make is None:
            return
        if isinstance(update, v1.Job):
            self._show_job(update)
        elif isinstance(update, v1.StepMetrics) and self._bar is not None:
            self._bar.n = min(update.step, self._total)
            words = f"loss {loss_text(update.loss)}, " if update.HasField("loss") else ""
            self._bar.set_postfix_str(f"{words}{update.samples_per_second:.0f} samples/s")

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show_job(self, job: v1.Job) -> None:
        done, self._total = progress_of(job)
        if self._bar is None and self._make is not None:
            self._bar = self._make(total=self._total or None, unit="step" if job.spec.HasField("train") else "batch")
        if (self._bar.total or 0) != self._total:
            self._bar.reset(self._total or None)  # A widget takes its total from nowhere else.
        self._bar.n = done
        self._bar.set_description(f"{job.id} {state_name(job).lower()}")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FileProgress:
    """Bars for files that are read, sent or fetched, where that takes a while."""

    def __init__(self, make: Any):
        self._make = make
        self._bars: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """As OnFile."""
        if total < LARGE_FILE:
            return
        if what not in self._bars:
            self._bars[what] = self._make(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc=what)
        bar = self._bars[what]
        bar.update(done - bar.n)
        if done >= total:
            self._bars.pop(what).close()


def file_progress() -> OnFile | None:
    """Where somebody looks, and tqdm is there."""
    make = _bar_maker(None)
    return None if make is None else FileProgress(make)


def progress_of(job: v1.Job) -> tuple[int, int]:
    """Done and in all: optimizer steps in training, mini-batches in inference."""
    if job.spec.HasField("train"):
        return job.steps_done, job.steps_total
    return job.rounds_done, job.rounds_total


def _bar_maker(wanted: bool | None) -> Any:
    if wanted is False or (wanted is None and not _is_looked_at()):
        return None
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError:
        if wanted is None:
            return None
        raise ModuleNotFoundError("a bar needs tqdm: pip install 'gpipe[progress]'", name="tqdm") from None
    return tqdm


def _is_looked_at() -> bool:
    return _in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def _in_notebook() -> bool:
    """Within a kernel. A program that only runs notebooks, as nbconvert does, imports ipykernel, too."""
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
