"""The rounds that gpipe.GPipe asks for, against a server of the test's own: their order, and what ends them."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import queue
import signal
import threading

import grpc
import pytest
import torch

from cluster import wait_until
from gpipe import ApiError, Error, errors, v1
from gpipe._endpoint import Endpoint
from gpipe._gpipe.rounds import Rounds
from gpipe._gpipe.session import Session
from gpipe._wire import BlockingWire

METHOD = "/gpipe.v1.RoundService/AskRounds"


class Server:
    """Answers a round when it is told to."""

    def __init__(self):
        self.asked: queue.Queue[v1.AskRoundsRequest | None] = queue.Queue()
        self.answers: queue.Queue[v1.AskRoundsResponse | grpc.StatusCode | None] = queue.Queue()
        self.cancelled = threading.Event()
        self._server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        handler = grpc.stream_stream_rpc_method_handler(
            self._ask, v1.AskRoundsRequest.FromString, v1.AskRoundsResponse.SerializeToString)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(
            "gpipe.v1.RoundService", {"AskRounds": handler})])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def open(self):
        self.answers.put(v1.AskRoundsResponse(opened=v1.RoundsOpened(outputs=[v1.ModelValue(name="output")])))

    def finish(self, number, *paths):
        results = [v1.ArtifactRef(shared_path=path) for path in paths]
        self.answers.put(v1.AskRoundsResponse(done=v1.RoundAnswer(round=number, results=results)))

    def fail(self, code=grpc.StatusCode.ABORTED):
        self.answers.put(code)

    def next(self) -> v1.AskedRound:
        return self.asked.get(timeout=10).round

    def stop(self):
        self.answers.put(None)
        self._server.stop(0).wait()

    def _ask(self, requests, context):
        context.add_callback(self.cancelled.set)
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()
        while isinstance(answer := self.answers.get(), v1.AskRoundsResponse):
            yield answer
        if answer is not None:
            context.abort(answer, "stage 1 has failed")

    def _read(self, requests):
        try:
            for request in requests:
                self.asked.put(request)
        except Exception:
            pass
        self.asked.put(None)


@pytest.fixture
def server():
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def discarded():
    return []


@pytest.fixture
def rounds(server, discarded):
    asked = Rounds(BlockingWire(Endpoint(server.address)), "job-1",
                   lambda refs: discarded.extend(ref.shared_path for ref in refs), lambda error: error)
    assert server.asked.get(timeout=10).open.job == "job-1"
    yield asked
    asked.cancel()
    asked.join(10)


def round_of(kind, data="") -> v1.AskedRound:
    return v1.AskedRound(kind=kind, data=v1.ArtifactRef(shared_path=data) if data else None)


def test_rounds_are_numbered_in_the_order_in_which_they_are_asked_for(server, rounds):
    server.open()
    assert rounds.opened().outputs[0].name == "output"
    first = rounds.ask(round_of(v1.ROUND_KIND_FORWARD))
    second = rounds.ask(round_of(v1.ROUND_KIND_FORWARD), wanted=True)
    rounds.ask(round_of(v1.ROUND_KIND_BACKWARD), second)
    rounds.drop(first)
    found = [server.next() for _ in range(4)]
    assert [each.kind for each in found] == [v1.ROUND_KIND_FORWARD, v1.ROUND_KIND_FORWARD, v1.ROUND_KIND_BACKWARD,
                                             v1.ROUND_KIND_DROP]
    assert (found[2].forward, found[3].forward) == (1, 0)
    server.finish(0)
    server.finish(1, "a", "b")
    assert [ref.shared_path for ref in rounds.wait(second)] == ["a", "b"]


def test_files_that_nobody_reads_any_more_are_discarded(server, rounds, discarded):
    server.open()
    rounds.ask(round_of(v1.ROUND_KIND_BACKWARD, "gradients"))
    last = rounds.ask(round_of(v1.ROUND_KIND_FORWARD, "inputs"), wanted=True)
    server.next(), server.next()
    server.finish(0, "unwanted")
    server.finish(1, "outputs")
    rounds.wait(last)
    assert discarded == ["gradients", "unwanted", "inputs"]


def test_what_a_round_failed_with_is_raised_by_all_that_follow(server, rounds):
    server.open()
    rounds.opened()
    rounds.ask(round_of(v1.ROUND_KIND_UPDATE))
    waited = rounds.ask(round_of(v1.ROUND_KIND_FORWARD), wanted=True)
    server.next()
    server.fail()
    for use in (lambda: rounds.wait(waited), lambda: rounds.ask(round_of(v1.ROUND_KIND_FORWARD)), rounds.opened):
        with pytest.raises(ApiError, match="stage 1 has failed") as raised:
            use()
        assert raised.value.code == "ABORTED"
    rounds.drop(waited)
    assert isinstance(rounds.failure, errors.ApiError)


def test_who_waits_hears_of_the_end_also_where_it_cannot_be_explained(server):
    def explain(error):
        raise ValueError("Cannot say why")

    rounds = Rounds(BlockingWire(Endpoint(server.address)), "job-1", lambda refs: None, explain)
    server.fail()
    for use in (rounds.opened, lambda: rounds.ask(round_of(v1.ROUND_KIND_FORWARD))):
        with pytest.raises(Error, match="Cannot say why"):
            use()


def test_a_job_that_fails_before_it_runs(server, rounds):
    server.fail()
    with pytest.raises(ApiError, match="stage 1 has failed"):
        rounds.opened()


def test_a_server_that_is_gone(server, rounds):
    server.open()
    rounds.opened()
    asked = rounds.ask(round_of(v1.ROUND_KIND_FORWARD), wanted=True)
    server.next()
    server.stop()
    with pytest.raises(Error):
        rounds.wait(asked)


def test_the_end_of_the_rounds_is_that_of_the_requests(server, rounds):
    server.open()
    rounds.opened()
    rounds.ask(round_of(v1.ROUND_KIND_UPDATE))
    rounds.end()
    assert server.next().kind == v1.ROUND_KIND_UPDATE
    assert server.asked.get(timeout=10).HasField("close")
    assert server.asked.get(timeout=10) is None and not server.cancelled.is_set()
    server.finish(0)
    server.answers.put(None)
    rounds.join(10)
    with pytest.raises(errors.CancelledError, match="the model's job has ended"):
        rounds.ask(round_of(v1.ROUND_KIND_UPDATE))


def test_cancelling_ends_the_call_at_once(server, rounds):
    server.open()
    rounds.opened()
    rounds.cancel()
    assert server.cancelled.wait(10)
    rounds.join(10)
    assert rounds.failure is not None


def test_an_interrupted_wait_leaves_no_file(server, rounds, discarded):
    server.open()
    rounds.opened()
    asked = rounds.ask(round_of(v1.ROUND_KIND_FORWARD), wanted=True)
    def interrupt():
        wait_until(lambda: rounds._news._waiters, what="a wait")
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        rounds.wait(asked)
    interrupter.join()
    later = rounds.ask(round_of(v1.ROUND_KIND_FORWARD), wanted=True)
    server.next(), server.next()
    server.finish(0, "outputs")
    server.finish(1)
    rounds.wait(later)
    assert discarded == ["outputs"]


def test_a_process_that_is_forked_off_cannot_ask(server, rounds):
    server.open()
    rounds.opened()
    asked = rounds.ask(round_of(v1.ROUND_KIND_FORWARD), wanted=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            rounds.drop(asked), rounds.end(), rounds.cancel(), rounds.join(1)
            rounds.ask(round_of(v1.ROUND_KIND_UPDATE))
        except Error as error:
            code = 0 if "forked off" in str(error) else 2
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    server.next()
    server.finish(0)
    rounds.wait(asked)


def test_a_finalizer_may_drop_within_anything(server, rounds):
    """Garbage is collected anywhere, also where the lock is held."""
    server.open()
    rounds.opened()
    asked = rounds.ask(round_of(v1.ROUND_KIND_FORWARD))

    class Kept:
        def __del__(self):
            rounds.drop(asked)

    kept = Kept()
    kept.itself = kept
    del kept
    with rounds._news:
        gc.collect()
    assert [server.next().kind for _ in range(2)] == [v1.ROUND_KIND_FORWARD, v1.ROUND_KIND_DROP]


class FullFolder:
    def put(self, tensors):
        raise OSError(28, "No space left on device")


def test_a_forward_whose_gradients_cannot_be_given_is_dropped(server, rounds):
    server.open()
    session = object.__new__(Session)
    session._rounds, session._exchange, session._outputs = rounds, FullFolder(), ["output"]
    forward = rounds.ask(v1.AskedRound(kind=v1.ROUND_KIND_FORWARD))
    with pytest.raises(OSError, match="No space left"):
        session.backward(forward, {0: torch.zeros(1)}, wanted=False)
    server.next()  # The forward,
    assert server.next().kind == v1.ROUND_KIND_DROP
