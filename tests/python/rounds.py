"""A client of RoundService that is nothing else: rounds asked for by hand, tensors through a folder in /dev/shm."""

from __future__ import annotations

import pathlib
import queue
import shutil
import tempfile

import grpc
from api import Api
from google.protobuf import json_format, message_factory
from safetensors.torch import load_file, save_file

METHOD = "/gpipe.v1.RoundService/AskRounds"


class Rounds:
    """The call of one job. Every round that is asked for gets the next number."""

    def __init__(self, api: Api, job: str, exchange: pathlib.Path):
        request, response = (message_factory.GetMessageClass(api.pool.FindMessageTypeByName(f"gpipe.v1.{name}"))
                             for name in ("AskRoundsRequest", "AskRoundsResponse"))
        self.request, self.exchange, self.asked, self.results = request, exchange, 0, {}
        self.waiting = queue.SimpleQueue()
        call = api.channel.stream_stream(METHOD, request.SerializeToString, response.FromString)
        self.answers = call(iter(self.waiting.get, None), timeout=120)
        self._send(open={"job": job})
        self.outputs = json_format.MessageToDict(next(self.answers))["opened"]["outputs"]

    def _send(self, **fields):
        self.waiting.put(json_format.ParseDict(fields, self.request()))

    def ask(self, kind: str, data: dict | None = None, **fields) -> int:
        """Asks for a round; its number."""
        if data is not None:
            path = self.exchange / f"data-{self.asked}.safetensors"
            save_file({name: tensor.contiguous() for name, tensor in data.items()}, path)
            fields["data"] = {"shared_path": str(path), "size": path.stat().st_size, "modified_nanos": path.stat().st_mtime_ns}
        self._send(round={"kind": f"ROUND_KIND_{kind}", **fields})
        self.asked += 1
        return self.asked - 1

    def made(self, number: int) -> dict:
        """What the workers made in a round, as tensors by name; gradients of several workers are added up."""
        while number not in self.results:
            done = next(self.answers).done
            tensors: dict = {}
            for file in done.results:
                for name, tensor in load_file(file.shared_path).items():
                    tensors[name] = tensors[name] + tensor if name in tensors else tensor
                pathlib.Path(file.shared_path).unlink()
            self.results[done.round] = tensors
        return self.results[number]

    def do(self, kind: str, data: dict | None = None, **fields) -> dict:
        return self.made(self.ask(kind, data, **fields))

    def close(self):
        """Says that no more is asked for, and waits for the job's end."""
        self._send(close={})
        for _ in self.answers:
            pass
        self.waiting.put(None)

    def cancel(self):
        self.answers.cancel()
        self.waiting.put(None)


class Exchange:
    """A folder in /dev/shm."""

    def __enter__(self) -> pathlib.Path:
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="gpipe-test-", dir="/dev/shm"))
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path)


def end_of(call) -> tuple[grpc.StatusCode, str]:
    """How a call ends that ends with an error."""
    try:
        while True:
            next(call)
    except grpc.RpcError as error:
        return error.code(), error.details()
