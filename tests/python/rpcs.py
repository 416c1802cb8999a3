"""All RPCs that a server has, from its descriptors, to be called with bytes; and valid messages for each of them."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

# The bytes of the one file that the seeds are about, and what they say of it.
CONTENT = b"what the attacker has given\n" * 4096
REF = {"sha256": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT)}


@dataclasses.dataclass
class Rpc:
    path: str  # `/gpipe.v1.JobService/GetJob`
    request: type
    response: type
    client_streaming: bool
    server_streaming: bool

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[1]

    def call(self, channel: grpc.Channel):
        """What calls it: with bytes, or an iterator of bytes, and the same as answers."""
        kind = {(False, False): channel.unary_unary, (False, True): channel.unary_stream,
                (True, False): channel.stream_unary, (True, True): channel.stream_stream}
        return kind[self.client_streaming, self.server_streaming](self.path)

    def message(self, fields: dict):
        return json_format.ParseDict(fields, self.request())


def all_rpcs(channel: grpc.Channel) -> dict[str, Rpc]:
    """Of every service that the server lists, by path."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = descriptor_pool.DescriptorPool(database)
    found = {}
    for service in database.get_services():
        for method in _service(pool, service).methods:
            request, response = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
            path = f"/{service}/{method.name}"
            found[path] = Rpc(path, request, response, method.client_streaming, method.server_streaming)
    return found


def call_once(rpc: Rpc, channel: grpc.Channel, requests: list[bytes], metadata=(), patience=5.0) -> tuple[str, str]:
    """How the call ended: the name of the code, and the words. Of answers that go on a few are read."""
    sent = iter(requests) if rpc.client_streaming else requests[0]
    call = rpc.call(channel)
    try:
        if not rpc.server_streaming:
            call(sent, timeout=patience, metadata=metadata)
            return "OK", ""
        stream = call(sent, timeout=min(patience, 0.5), metadata=metadata)
        for _ in itertools.islice(stream, 4):
            pass
        stream.cancel()
        return "OK", ""
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""


def _service(pool: descriptor_pool.DescriptorPool, name: str):
    """gRPC's own services have no descriptors in the server."""
    if name == "grpc.health.v1.Health":
        return _health().FindServiceByName(name)
    if name == "grpc.reflection.v1alpha.ServerReflection":
        return reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
    return pool.FindServiceByName(name)


def _health() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="health.proto", package="grpc.health.v1", syntax="proto3")
    for message, field, kind in (("HealthCheckRequest", "service", 9), ("HealthCheckResponse", "status", 5)):
        file.message_type.add(name=message).field.add(name=field, number=1, type=kind, label=1)
    service = file.service.add(name="Health")
    for name, streaming in (("Check", False), ("Watch", True)):
        service.method.add(name=name, input_type=".grpc.health.v1.HealthCheckRequest",
                           output_type=".grpc.health.v1.HealthCheckResponse", server_streaming=streaming)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def spec(name: str, device: str) -> dict:
    """As JSON; every part of a spec is there, so that each can be changed."""
    sequential = [{"linear": {"in_features": 16, "out_features": 16}}, {"stash": {"name": "kept"}}, {"relu": {}},
                  {"pop_add": {"name": "kept"}}, {"layer_norm": {"normalized_shape": [16]}},
                  {"linear": {"in_features": 16, "out_features": 16, "bias": True}}]
    random = {"samples": 64, "input_shape": [16], "classes": 16, "seed": 1}
    return {"name": name, "model": {"sequential": sequential, "init_seed": 1},
            "pipeline": {"balance": [6], "chunks": 4, "checkpoint": "CHECKPOINT_ALWAYS", "device": device, "clock_window": 8,
                         "capture": "CAPTURE_NEVER"},
            "train": {"dataset": {"random": random}, "batch_size": 16, "steps": 20, "loss": {"cross_entropy": {}},
                      "optimizer": {"adam": {"lr": 0.001, "betas": [0.9, 0.99]}}, "grad_clip_norm": 1, "seed": 3,
                      "lr_schedule": {"warmup_cosine": {"warmup_steps": 2}}, "shuffle": True, "checkpoint_every": 8,
                      "keep_checkpoints": 1, "freeze": ["0."],
                      "evaluate": {"dataset": {"random": dict(random, seed=2)}, "every_steps": 8}},
            "max_restarts": 0}


def spec_of_files(name: str, device: str) -> dict:
    """One that names files, in each way that there is."""
    changed = spec(name, device)
    changed["model"] |= {"weights": "weights.safetensors", "weights_prefix": "model."}
    changed["train"]["dataset"] = {"path": ["data.safetensors", "shared:/data/*.npy"], "inputs": ["input"], "target": "target"}
    changed["train"]["evaluate"]["dataset"] = {"tokens": {"path": ["tokens.bin"], "dtype": "TOKEN_TYPE_UINT16",
                                                          "sequence_length": 8}}
    return changed


def exported_spec(name: str, device: str) -> dict:
    changed = spec(name, device)
    changed["model"] = {"exported": {"path": "model.pt2"}}
    changed["pipeline"] = {"split": ["transformer.h.1"], "workers": 1, "device": device}
    del changed["train"]
    changed["infer"] = {"inputs": ["inputs.safetensors"], "batch_size": 16, "outputs": ["output"], "unbatched": ["mask"]}
    return changed


FILES = {name: REF for name in ("weights.safetensors", "data.safetensors", "tokens.bin", "model.pt2", "inputs.safetensors")}
DEVICES = ("DEVICE_CUDA", "DEVICE_CPU")


def seeds(job: str) -> dict[str, list[list[dict]]]:
    """Valid requests by path: of each RPC one or more lists of messages, of which a unary one has one message. `job` is
    over, or nothing is lost with it."""
    jobs, artifacts, cluster = (f"/gpipe.v1.{name}/" for name in ("JobService", "ArtifactService", "ClusterService"))
    submitted = [{"spec": make("attack", device), "files": files, "request_id": ""} for device in DEVICES
                 for make, files in ((spec, {}), (spec_of_files, FILES), (exported_spec, FILES))]
    paged = {"id": job, "page_size": 10, "page_token": "1"}
    found = {
        jobs + "SubmitJob": [[request] for request in [
            *submitted, submitted[0] | {"resume_job": job},
            submitted[0] | {"resume_files": {"manifest": REF, "files": {"model.safetensors": REF}}}]],
        jobs + "PlanJob": [[{"spec": request["spec"], "files": request["files"], "workers": 1, "validate_only": only}]
                           for request in submitted for only in (True, False)],
        jobs + "ListJobs": [[{"page_size": 10, "states": ["STATE_SUCCEEDED"], "results": True, "page_token": "1"}]],
        jobs + "WatchJob": [[{"id": job, "cycles": True, "stages": True, "resume_token": "0123456789abcdef-1"}]],
        jobs + "ListJobEvents": [[paged]],
        jobs + "ListJobMetrics": [[paged]],
        artifacts + "FindMissingArtifacts": [[{"refs": [REF, dict(REF, sha256="0" * 64)]}]],
        artifacts + "UploadArtifact": [
            [{"ref": REF}, {"data": _json(CONTENT[:50_000])}, {"data": _json(CONTENT[50_000:])}],
            [{"ref": REF, "part_of": {"attempt": {"job": job, "attempt": 1}, "step": 8}}, {"data": _json(CONTENT)}]],
        artifacts + "DownloadArtifact": [[{"ref": REF, "offset": 10, "length": 1000}]],
        cluster + "ListWorkers": [[{}]],
        cluster + "GetVersion": [[{}]],
        cluster + "DrainWorker": [[{"name": "puppet-0", "reason": "attack"}]],
        cluster + "UndrainWorker": [[{"name": "puppet-0"}]],
        "/gpipe.v1.MonitoringService/WatchCluster": [[{"resume_token": "0123456789abcdef-1"}]],
        "/gpipe.v1.MonitoringService/GetTimeline": [[{"job": job, "step": 1}]],
        "/gpipe.v1.RoundService/AskRounds": [
            [{"open": {"job": job}}, {"round": {"kind": "ROUND_KIND_FORWARD", "batch_size": 4, "data": REF}},
             {"round": {"kind": "ROUND_KIND_UPDATE", "learning_rate": 0.1}}, {"close": {}}]],
        "/gpipe.v1.AdminService/BackUp": [[{"without_files": True}]],
        "/gpipe.v1.WorkerSessionService/Session": [session(job)],
        "/grpc.health.v1.Health/Check": [[{"service": "gpipe.v1.JobService"}]],
        "/grpc.health.v1.Health/Watch": [[{"service": "gpipe.v1.JobService"}]],
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": [
            [{"host": "x", "fileContainingSymbol": "gpipe.v1.JobService"}, {"listServices": "*"},
             {"fileByFilename": "gpipe/v1/job.proto"}, {"allExtensionNumbersOfType": "gpipe.v1.Job"},
             {"fileContainingExtension": {"containingType": "gpipe.v1.Job", "extensionNumber": 1}}]],
    }
    of_job = ("GetJob", "CancelJob", "PauseJob", "CheckpointJob", "ResumeJob", "DeleteJob")
    return found | {jobs + name: [[{"id": job}]] for name in of_job}


def _json(data: bytes) -> str:
    return base64.b64encode(data).decode()


def hello(name: str) -> dict:
    return {"hello": {"name": name, "device": "cuda:0", "device_name": "Puppet", "threads": 1, "memory_bytes": 1 << 34,
                      "data_address": "127.0.0.1", "incarnation": "1", "software": {"torch": "2.11.0"}}}


def session(job: str) -> list[dict]:
    """All that a worker says, once; `hello` first."""
    of = {"attempt": {"job": job, "attempt": 1}}
    activity = of | {"phase": "PHASE_FORWARD", "stage": 0, "step": 1, "micro_batch": 1, "bytes_done": 1, "waits_for": 0}
    action = {"round": 0, "cycle": 1, "stage": 0, "kind": "ACTION_KIND_FORWARD", "micro_batch": 0, "nanos": 1, "start_nanos": 1}
    done = {"round": 0, "step": 0, "samples": 16, "wall_nanos": 9, "loss": 1.0, "lr": 0.1,
            "stages": [{"stage": 0, "busy_nanos": 5, "peak_saved_bytes": 5, "layer_grad_squares": [1.0] * 6}],
            "traffic": [{"worker": 0, "sent_bytes": 1, "received_bytes": 1, "wait_nanos": 1}]}
    tensor = {"name": "0.weight", "shape": [16, 16], "dtype": "DATA_TYPE_FLOAT32", "trainable": True, "aliases": ["x"]}
    value = {"name": "layer.0", "shape": [{"per_sample": 1}, {"fixed": 16}], "dtype": "DATA_TYPE_FLOAT32"}
    layer = {"kind": "linear", "parameter_count": 256, "parameter_bytes": 1024, "tensors": [tensor], "reads": ["input"],
             "makes": [value], "outputs": [value], "forward_nanos": 5, "backward_nanos": 5, "first_node": 0,
             "begins": ["a"], "contains": ["b"], "evaluation": {"first_node": 0, "reads": ["input"], "makes": [value]}}
    failure = {"code": 3, "message": "it failed"}
    return [hello("puppet-0"),
            {"heartbeat": {"activity": activity, "sent_nanos": 5,
                           "use": {"process_bytes": 1, "utilization": 0.5, "gpu": {"power_watts": 1, "slowed_by": ["heat"]}}}},
            {"inspected": {"id": 1, "layers": [layer] * 6}}, {"inspected": {"id": 1, "status": failure}},
            {"surveyed": {"id": 1, "found": [{"field": "train.dataset.path", "paths": ["shared:/data/a.npy"],
                                              "files": {"shared:/data/a.npy": REF}, "tensors": [tensor], "largest_token": 5}]}},
            {"links_measured": of | {"next": {"latency_seconds": 1e-5, "bytes_per_second": 1e9}}},
            {"prepared": of}, {"rendezvous_put": of | {"key": "k", "value": _json(b"v")}}, {"rendezvous_get": of | {"key": "k"}},
            {"progress": of | {"round": 0, "cycle": 3, "actions": [action] * 3, "rounds": [done]}},
            {"evaluation": of | {"step": 8, "loss": 1.0, "accuracy": 0.5, "samples": 64}},
            {"loss_checked": of | {"first": 1.0, "second": 1.0, "both": 1.0}},
            {"checkpoint_shard": of | {"step": 8, "model": [REF], "optimizer": [REF]}}, {"trained": of | {"model": [REF]}},
            {"log": of | {"lines": [{"time": "2026-01-01T00:00:00Z", "warning": True, "text": "a line"}]}},
            {"failed": of | {"status": failure, "activity": activity, "consequence": True, "unreachable_peer": 0}},
            {"released": of}, {"finished": of | {"model": [REF], "outputs": REF}}, {"leaving": {"reason": "it must"}}]
