"""Attacks on a cluster (attack_target.py). Each goes on for so many seconds, and returns how its calls ended; it fails where
the cluster does what it must not."""

from __future__ import annotations

import contextlib
import pathlib
import queue
import threading
import time
from collections import Counter

import grpc

import rpcs
import wire_attacks
from attack_target import MIB, Target, all_below
from cluster import wait_until
from mutator import Mutator

PATIENCE = 5  # Seconds, with one call.
# With these no call ends for what is wrong with it, but for bytes that are no message, of which gRPC says INTERNAL.
NOT_OUR_WORD = ("INTERNAL", "UNKNOWN")
# Without waiting for more than lies in the first window of a stream, which nothing widens.
NOT_READING = [("grpc.http2.bdp_probe", 0)]


def outcome(error: grpc.RpcError) -> str:
    return error.code().name if error.code() else "NONE"


def in_threads(target: Target, seconds: float, attack) -> Counter:
    """attack(channel, mutator) returns one call's outcome; several threads call it."""
    found, deadline, problems = Counter(), time.monotonic() + seconds, []

    def run(channel, mutator):
        try:
            while time.monotonic() < deadline:
                found[attack(channel, mutator)] += 1
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(channel, target.mutator())) for channel in target.channels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return found


def hostile_metadata(mutator: Mutator):
    values = [text for text in mutator.strings if text.isascii() and text.isprintable() and len(text) < 20_000]
    names = ["authorization", "x-anything", "grpc-tags-bin", "user-agent", "grpc-trace-bin", "x-http-method-override"]
    name = mutator.random.choice(names)
    value = mutator.random.choice(values)
    return [(name, value.encode() if name.endswith("-bin") else value)]


def mutated_calls(path: str):
    """Variations of the valid calls of one RPC."""
    def attack(target: Target, seconds: float) -> Counter:
        rpc, groups = target.rpcs[path], target.seeds()[path]

        def once(channel, mutator):
            group = mutator.random.choice(groups)
            at = mutator.random.randrange(len(group))
            requests = [mutator.mutate(message) if i == at else message.SerializeToString() for i, message in enumerate(group)]
            if mutator.random.random() < 0.1:
                mutator.random.shuffle(requests)
            metadata = hostile_metadata(mutator) if mutator.random.random() < 0.1 else ()
            code, words = rpcs.call_once(rpc, channel, requests, metadata)
            return f"{code}: {words[:80]!a}" if code in NOT_OUR_WORD else code
        return in_threads(target, seconds, once)
    return attack


def unknown_methods(target: Target, seconds: float) -> Counter:
    def once(channel, mutator):
        text = mutator.random.choice([text for text in mutator.strings if text.isascii() and text.isprintable()])
        path = mutator.random.choice(["/gpipe.v1.JobService/", "/gpipe.v1.", "/", ""]) + text[:5000]
        try:
            channel.unary_unary(path or "/")(b"", timeout=PATIENCE)
            return "OK"
        except grpc.RpcError as error:
            return outcome(error)
    return in_threads(target, seconds, once)


def puppet_sessions(target: Target, seconds: float) -> Counter:
    """Workers that join, get a job, answer as they should, and then say what cannot be."""
    path = "/gpipe.v1.WorkerSessionService/Session"
    rpc, [said] = target.rpcs[path], target.seeds()[path]
    submit = target.seeds()["/gpipe.v1.JobService/SubmitJob"][0][0]

    def once(channel, mutator):
        session = Puppet(rpc, channel, f"puppet-{mutator.random.randrange(64)}", target.layers)
        with contextlib.suppress(grpc.RpcError):
            target.rpcs["/gpipe.v1.JobService/SubmitJob"].call(channel)(submit.SerializeToString(), timeout=PATIENCE)
        session.await_attempt(0.5)
        for _ in range(mutator.random.choice([1, 5, 20])):
            message = session.about_its_attempt(mutator.random.choice(said))
            session.say(mutator.mutate(message) if mutator.random.random() < 0.5 else message.SerializeToString())
        return ("job " if session.attempt else "") + session.end()
    return in_threads(target, seconds, once)


class Puppet:
    """A session whose worker is this program. Of every model it says that it has those layers."""

    def __init__(self, rpc: rpcs.Rpc, channel, name: str, layers):
        self.rpc, self.layers, self.attempt, self.code = rpc, layers, None, None
        self._outgoing, self._changed = queue.SimpleQueue(), threading.Condition()
        self.say(rpc.message(rpcs.hello(name)).SerializeToString())
        self._stream = rpc.call(channel)(iter(self._outgoing.get, None), timeout=10)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        try:
            for data in self._stream:
                self._answer(self.rpc.response.FromString(data))
            code = "OK"
        except grpc.RpcError as error:
            code = outcome(error)
        with self._changed:
            self.code = code
            self._changed.notify_all()

    def _answer(self, message):
        kind = message.WhichOneof("message")
        if kind == "inspect":
            answer = self.rpc.message({"inspected": {"id": message.inspect.id}})
            for layer in self.layers:
                answer.inspected.layers.add().MergeFromString(layer)
            self.say(answer.SerializeToString())
        if kind in ("prepare", "measure_links"):
            with self._changed:
                self.attempt = getattr(message, kind).attempt
                self._changed.notify_all()

    def await_attempt(self, seconds: float):
        with self._changed:
            self._changed.wait_for(lambda: self.attempt is not None or self.code is not None, seconds)

    def about_its_attempt(self, message):
        """The same message, as it would be said of the attempt that this worker has."""
        changed = type(message)()
        changed.CopyFrom(message)
        kind = changed.WhichOneof("message")
        inner = getattr(changed, kind) if kind else None
        if self.attempt is not None and inner is not None and "attempt" in inner.DESCRIPTOR.fields_by_name:
            inner.attempt.CopyFrom(self.attempt)
        return changed

    def say(self, data: bytes):
        self._outgoing.put(data)

    def end(self) -> str:
        with self._changed:
            self._changed.wait_for(lambda: self.code is not None, 0.3)
        self._stream.cancel()
        self._outgoing.put(None)
        self._reader.join()
        return self.code


def wire(kind):
    """One of wire_attacks, to the port of gRPC; or to that of HTTP."""
    def attack(target: Target, seconds: float) -> Counter:
        address = target.http if kind is wire_attacks.http_requests else target.address
        return in_threads(target, seconds, lambda _, mutator: kind(mutator.random, address))
    return attack


def idle_connections(target: Target, seconds: float, count: int = 1000) -> Counter:
    """Half of them have said that they speak HTTP/2, the other half nothing. Others are served meanwhile."""
    with contextlib.ExitStack() as stack:
        for index in range(count):
            stack.enter_context(contextlib.closing(
                (wire_attacks.connect if index % 2 else wire_attacks.open_http2)(target.address)))
        deadline = time.monotonic() + seconds
        slowest = target.check()
        while time.monotonic() < deadline:
            time.sleep(0.1)
            slowest = max(slowest, target.check())
    assert slowest < 5, f"a call took {slowest:.1f} s beside {count} connections"
    return Counter(idle=count)


def half_open_uploads(target: Target, seconds: float, count: int = 200) -> Counter:
    """Uploads that begin and do not go on. When they are given up nothing is left of them."""
    rpc = target.rpcs["/gpipe.v1.ArtifactService/UploadArtifact"]
    first, second = (message.SerializeToString() for message in target.seeds()[rpc.path][0][:2])
    given_up, calls = threading.Event(), []

    def requests(messages):
        yield from messages
        given_up.wait()

    for index in range(count):
        begun = [[first, second], [first], []][index % 3]
        calls.append(rpc.call(target.channels[index % len(target.channels)]).future(requests(begun), timeout=60))
    time.sleep(seconds)
    target.check()
    found = Counter(call.exception().code().name if call.done() else "open" for call in calls)
    for call in calls:
        call.cancel()
    given_up.set()
    parts = lambda: [path for path in all_below(target.artifacts) if path.is_file() and len(path.name) != 64]
    wait_until(lambda: not parts(), 30, "nothing left of uploads that were given up")
    return found


def readers_that_do_not_read(target: Target, seconds: float, count: int = 200) -> Counter:
    """Watches, downloads and backups whose answers nobody takes."""
    channels = [grpc.insecure_channel(target.address, [*NOT_READING, ("grpc.use_local_subchannel_pool", 1)]) for _ in range(4)]
    jobs = [job.id for job in target.api.ListJobs(page_size=10).jobs]
    asked = [("JobService/WatchJob", {"id": job, "cycles": True, "stages": True}) for job in jobs]
    asked += [("MonitoringService/WatchCluster", {}), ("AdminService/BackUp", {}), ("ArtifactService/DownloadArtifact", {"ref": rpcs.REF})]
    calls = []
    for index in range(count):
        name, fields = asked[index % len(asked)]
        rpc = target.rpcs[f"/gpipe.v1.{name}"]
        calls.append(rpc.call(channels[index % len(channels)])(rpc.message(fields).SerializeToString(), timeout=300))
    time.sleep(seconds)
    target.check()
    for channel in channels:
        channel.close()
    return Counter(unread=len(calls))


def open_reflections(target: Target, seconds: float, count: int = 400) -> Counter:
    """Streams of reflection, each of which would keep a thread."""
    rpc = target.rpcs["/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"]
    asked = rpc.message({"list_services": "*"}).SerializeToString()
    before, given_up = target.usage(), threading.Event()

    def requests():
        yield asked
        given_up.wait()

    calls = [rpc.call(target.channels[index % len(target.channels)])(requests(), timeout=60) for index in range(count)]
    time.sleep(seconds)
    target.check()
    threads = target.usage().threads - before.threads
    found = Counter(call.code().name if call.done() else "open" for call in calls)
    for call in calls:
        call.cancel()
    given_up.set()
    assert threads < 100, f"{threads} threads for {count} streams of reflection"
    return found


def compressed(target: Target, seconds: float, mebibytes: int = 128) -> Counter:
    """A message that is small on its way and large when it has come: it must not be unpacked beyond what a message may have."""
    rpc = target.rpcs["/gpipe.v1.JobService/GetJob"]
    data = rpc.message({"id": "x"}).SerializeToString() + b"\xa2\x06" + _varint(mebibytes * MIB) + bytes(mebibytes * MIB)
    before = target.usage().resident
    pathlib.Path(f"/proc/{target.orchestrator}/clear_refs").write_text("5")  # The peak is that from now on.
    found = Counter()
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        try:
            rpc.call(target.channels[0])(data, timeout=60, compression=compression)
            found["OK"] += 1
        except grpc.RpcError as error:
            found[outcome(error)] += 1
    peak = target.peak()
    assert peak < before + 64 * MIB, f"it took {(peak - before) / MIB:.0f} MiB to refuse {mebibytes} MiB that were compressed"
    return found


def _varint(value: int) -> bytes:
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def too_large(target: Target, seconds: float) -> Counter:
    """Messages over the limit, and headers."""
    rpc = target.rpcs["/gpipe.v1.JobService/GetJob"]
    return Counter([rpcs.call_once(rpc, target.channels[0], [b"\x0a" + _varint(17 * MIB) + b"x" * 17 * MIB])[0],
                    rpcs.call_once(rpc, target.channels[0], [b""], [("x-large", "y" * 200_000)])[0]])


def attacks(target: Target) -> dict:
    """By name. Each is called with the target and seconds."""
    found = {f"mutated {path.rpartition('.')[2]}": mutated_calls(path) for path in target.rpcs}
    for kind in (wire_attacks.noise, wire_attacks.noise_as_frames, wire_attacks.other_protocols, wire_attacks.floods,
                 wire_attacks.http_requests):
        found[kind.__name__.replace("_", " ")] = wire(kind)
    for kind in (unknown_methods, puppet_sessions, half_open_uploads, readers_that_do_not_read, open_reflections, idle_connections,
                 compressed, too_large):
        found[kind.__name__.replace("_", " ")] = kind
    return found
