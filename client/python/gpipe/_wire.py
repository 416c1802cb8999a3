"""How calls travel: blocking, or on an event loop.

All that is to be done with a cluster is written once, as coroutines over a Wire (_operations.py). Those over a
BlockingWire never wait for an event loop: whatever they await blocks until it is there, so that `run` and `iterate`
need none.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import typing
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator

import grpc
from google.rpc import error_details_pb2, status_pb2

from gpipe import errors
from gpipe._endpoint import Endpoint
from gpipe._methods import Method, Request, Response

T = typing.TypeVar("T")


class Wire:
    """A connection to one orchestrator."""

    def __init__(self, endpoint: Endpoint):
        self.endpoint = endpoint
        self.last_heard: float | None = None  # time.monotonic() of the orchestrator's last word.

    async def call(self, method: Method[Request, Response], request: Request, timeout: float | None = None) -> Response:
        """One answer. Raises ApiError, as all of these do."""
        raise NotImplementedError

    def stream(self, method: Method[Request, Response], request: Request,
               timeout: float | None = None) -> AsyncGenerator[Response, None]:
        """Answers as they come. Closing it ends the call."""
        raise NotImplementedError

    async def send(self, method: Method[Request, Response], requests: Iterator[Request]) -> Response:
        """One answer to many requests, which are made as they are sent."""
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        raise NotImplementedError

    async def work(self, function: Callable[[], T]) -> T:
        """Calls what takes long for another reason than the network."""
        raise NotImplementedError

    async def close(self) -> None:
        """No call can be made afterwards."""
        raise NotImplementedError

    def _heard(self) -> None:
        self.last_heard = time.monotonic()

    def explain(self, error: errors.ApiError) -> errors.Error:
        """What is to be raised for it."""
        return error

    def _explain(self, error: grpc.RpcError) -> errors.Error:
        return self.explain(self._api_error(error))

    def _api_error(self, error: grpc.RpcError) -> errors.ApiError:
        call = typing.cast(grpc.Call, error)
        code, message = call.code().name, call.details() or ""
        if code == "DEADLINE_EXCEEDED" and self.last_heard is None:
            code = "UNAVAILABLE"
        if code == "UNAVAILABLE":
            return errors.UnavailableError(f"orchestrator at {self.endpoint.address}: {message}", code, code)
        self._heard()
        reason, violations = _details(call)
        return errors.make(message, code, reason, violations)


def _details(call: grpc.Call) -> tuple[str, list[errors.FieldViolation]]:
    reason, violations = "", []
    packed = b""
    for key, value in call.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            packed = value
    status = status_pb2.Status.FromString(packed)
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            violations += [errors.FieldViolation(each.field, each.description) for each in bad.field_violations]
    return reason, violations


class Conversation(typing.NamedTuple, typing.Generic[Response]):
    """A call of many requests and many answers."""

    answers: Iterator[Response]  # As they come, until the call has ended well; for one thread. Raises ApiError.
    cancel: Callable[[], typing.Any]  # Ends it at once; for any.


class BlockingWire(Wire):
    """For `run` and `iterate`, by any thread."""

    def __init__(self, endpoint: Endpoint):
        super().__init__(endpoint)
        self._channel = endpoint.channel()

    async def call(self, method: Method[Request, Response], request: Request, timeout: float | None = None) -> Response:
        with self._explaining():
            calling = self._channel.unary_unary(method.path, method.request.SerializeToString,
                                                method.response.FromString)
            response = calling(request, timeout=timeout or method.timeout)
        self._heard()
        return response

    async def stream(self, method: Method[Request, Response], request: Request,
                     timeout: float | None = None) -> AsyncGenerator[Response, None]:
        with self._explaining():
            calling = self._channel.unary_stream(method.path, method.request.SerializeToString,
                                                 method.response.FromString)
            call = calling(request, timeout=timeout)
            try:
                for response in call:
                    self._heard()
                    yield response
            finally:
                call.cancel()

    async def send(self, method: Method[Request, Response], requests: Iterator[Request]) -> Response:
        with self._explaining():
            calling = self._channel.stream_unary(method.path, method.request.SerializeToString,
                                                 method.response.FromString)
            response = calling(requests)
        self._heard()
        return response

    def converse(self, method: Method[Request, Response], requests: Iterator[Request]) -> Conversation[Response]:
        """The requests are taken as they can be sent, by a thread of gRPC's."""
        with self._explaining():
            calling = self._channel.stream_stream(method.path, method.request.SerializeToString,
                                                  method.response.FromString)
            call = calling(requests)
        return Conversation(self._answers(call), call.cancel)

    def _answers(self, call: Iterator[Response]) -> Iterator[Response]:
        with self._explaining():
            for response in call:
                self._heard()
                yield response

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def work(self, function: Callable[[], T]) -> T:
        return function()

    async def close(self) -> None:
        self._channel.close()

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._explain(error) from None
        except ValueError as error:
            # "Cannot invoke RPC on closed channel!", or "Cannot invoke RPC: Channel closed!".
            if "Cannot invoke RPC" not in str(error):
                raise
            raise self.explain(errors.CancelledError("the connection is closed", "CANCELLED")) from None


class AsyncWire(Wire):
    """For an event loop, the one that runs at the first call."""

    _opened: grpc.aio.Channel | None = None

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._opened is None:
            self._opened = self.endpoint.aio_channel()
        return self._opened

    async def call(self, method: Method[Request, Response], request: Request, timeout: float | None = None) -> Response:
        calling = self._channel.unary_unary(method.path, method.request.SerializeToString, method.response.FromString)
        try:
            response = await calling(request, timeout=timeout or method.timeout)
        except grpc.RpcError as error:
            raise self._explain(error) from None
        self._heard()
        return response

    async def stream(self, method: Method[Request, Response], request: Request,
                     timeout: float | None = None) -> AsyncGenerator[Response, None]:
        calling = self._channel.unary_stream(method.path, method.request.SerializeToString, method.response.FromString)
        call = calling(request, timeout=timeout)
        try:
            async for response in call:
                self._heard()
                yield response
        except grpc.RpcError as error:
            raise self._explain(error) from None
        finally:
            call.cancel()

    async def send(self, method: Method[Request, Response], requests: Iterator[Request]) -> Response:
        calling = self._channel.stream_unary(method.path, method.request.SerializeToString, method.response.FromString)
        try:
            response = await calling(_in_thread(requests))
        except grpc.RpcError as error:
            raise self._explain(error) from None
        self._heard()
        return response

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def work(self, function: Callable[[], T]) -> T:
        return await asyncio.to_thread(function)

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()


async def _in_thread(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """Each is made on another thread: it is read from a disk."""
    end = object()
    while (item := await asyncio.to_thread(next, items, end)) is not end:
        yield typing.cast(T, item)


def run(coroutine: Coroutine[typing.Any, typing.Any, T]) -> T:
    """What a coroutine over a BlockingWire returns."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return typing.cast(T, done.value)
    finally:
        coroutine.close()
    raise RuntimeError("a blocking call has waited for an event loop")


def iterate(items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """What an asynchronous generator over a BlockingWire yields. Closing it closes that one."""
    try:
        while True:
            try:
                item = run(_next(items))
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(items.aclose())


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await items.__anext__()
