"""The rounds of one job: what is asked of its workers, and what comes of it.

Rounds are numbered as they are sent, and all are sent by one thread, that of gRPC's which takes the requests from a
queue. So whoever asks waits for nothing, not for a lock either: also a finalizer, which may run within anything.
"""

from __future__ import annotations

import collections
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence

from gpipe import _methods, errors, v1
from gpipe._wire import BlockingWire

# How long the end of the program waits for jobs to store their models.
END_PATIENCE = 60.0  # Seconds.


class Asked:
    """A round, and what has come of it."""

    def __init__(self, request: v1.AskedRound, forward: Asked | None = None, wanted: bool = False):
        self.request = request
        self.forward = forward  # BACKWARD and DROP: whose.
        self.wanted = wanted  # Whether somebody will take the results.
        self.number = -1  # As soon as it is sent.
        self.results: Sequence[v1.ArtifactRef] | None = None  # As soon as it is done.


class Rounds:
    """A call of AskRounds. Any thread may ask and wait; nothing can be asked once the call is over."""

    def __init__(self, wire: BlockingWire, job: str, discard: Callable[[Iterable[v1.ArtifactRef]], None],
                 explain: Callable[[errors.Error], errors.Error]):
        """`discard` gets files that nobody reads any more, `explain` what ended the call, to say why."""
        self._discard, self._explain = discard, explain
        self._requests: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._sent: collections.deque[Asked] = collections.deque()
        self._opened: v1.RoundsOpened | None = None
        self._failure: errors.Error | None = None  # Why the call is over.
        self._news = threading.Condition()
        self._owner = os.getpid()
        self._call = wire.converse(_methods.ASK_ROUNDS, self._in_order(job))
        self._listener = threading.Thread(target=self._listen, name="gpipe-rounds", daemon=True)
        self._listener.start()

    @property
    def failure(self) -> errors.Error | None:
        """Why nothing can be asked any more."""
        return self._failure

    def opened(self) -> v1.RoundsOpened:
        """Waits until the job runs."""
        with self._news:
            self._news.wait_for(lambda: self._opened is not None or self._failure is not None)
        self._check()
        assert self._opened is not None
        return self._opened

    def ask(self, request: v1.AskedRound, forward: Asked | None = None, wanted: bool = False) -> Asked:
        """Does not wait. Raises what an earlier round has failed with."""
        self._check()
        asked = Asked(request, forward, wanted)
        self._requests.put(asked)
        return asked

    def wait(self, asked: Asked) -> Sequence[v1.ArtifactRef]:
        """The results, of which the caller has to take care."""
        try:
            with self._news:
                self._news.wait_for(lambda: asked.results is not None or self._failure is not None)
        except BaseException:  # A Ctrl-C.
            asked.wanted = False
            raise
        if asked.results is None:
            self._check()
        assert asked.results is not None
        return asked.results

    def drop(self, forward: Asked) -> None:
        """Lets go of what a forward pass saved. For finalizers: it neither waits nor raises."""
        if os.getpid() == self._owner:
            self._requests.put(Asked(v1.AskedRound(kind=v1.ROUND_KIND_DROP), forward))

    def end(self) -> None:
        """When all that was asked is done the job ends, and has SUCCEEDED. Does not wait; may be called again."""
        if os.getpid() == self._owner:
            _ending.add(self)
            self._requests.put(None)

    def cancel(self) -> None:
        """Ends the job at once."""
        if os.getpid() == self._owner:
            self._call.cancel()

    def join(self, timeout: float) -> None:
        """Waits for the end of the call."""
        if os.getpid() == self._owner:
            self._listener.join(timeout)

    def _check(self) -> None:
        if os.getpid() != self._owner:
            raise errors.Error("the workers are those of the process that this one was forked off from: only that one "
                               "can use the model")
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _in_order(self, job: str) -> Iterator[v1.AskRoundsRequest]:
        yield v1.AskRoundsRequest(open=v1.OpenRounds(job=job))
        number = 0
        while (asked := self._requests.get()) is not None:
            asked.number, number = number, number + 1
            if asked.forward is not None:
                asked.request.forward = asked.forward.number
            self._sent.append(asked)
            yield v1.AskRoundsRequest(round=asked.request)
        yield v1.AskRoundsRequest(close=v1.CloseRounds())

    def _listen(self) -> None:
        failure = self._hear_all()
        with self._news:
            self._failure = failure
            self._news.notify_all()
        self._requests.put(None)

    def _hear_all(self) -> errors.Error:
        """Returns what the call has ended with, whatever that is: others wait for it."""
        try:
            try:
                for response in self._call.answers:
                    self._hear(response)
            except errors.Error as error:
                return self._explain(error)
        except Exception as error:
            failure = errors.Error(f"the answers of the workers cannot be read: {error}")
            failure.__cause__ = error
            return failure
        return errors.CancelledError("the model's job has ended", "CANCELLED")

    def _hear(self, response: v1.AskRoundsResponse) -> None:
        with self._news:
            if response.HasField("opened"):
                self._opened = response.opened
            elif response.HasField("done"):
                self._finish(self._sent.popleft(), response.done)
            self._news.notify_all()

    def _finish(self, asked: Asked, answer: v1.RoundAnswer) -> None:
        assert answer.round == asked.number, "rounds are answered in their order"
        if asked.request.HasField("data"):
            self._discard([asked.request.data])
        if not asked.wanted:
            self._discard(answer.results)
        asked.results = answer.results


_ending: weakref.WeakSet[Rounds] = weakref.WeakSet()


def await_ends() -> None:
    """A program that ended at once would cancel jobs that have still to store their models."""
    for rounds in list(_ending):
        rounds.join(END_PATIENCE)
