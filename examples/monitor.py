"""Submits a job, watches what its stages do, and fetches what it made: with grpcio and grpcio-reflection alone.

    python monitor.py [HOST:PORT] [FOLDER]     a cluster with two workers; certificates as for gpipe: GPIPE_TLS_CA, ..."""
import os
import pathlib
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

EXAMPLE = {  # examples/simple_infer.yaml, with a hundred times its data.
    "name": "monitored",
    "model": {"sequential": [{"linear": {"in_features": 1024, "out_features": 2048}}, {"relu": {}},
                             {"linear": {"in_features": 2048, "out_features": 1024}}, {"relu": {}},
                             {"linear": {"in_features": 1024, "out_features": 10}}]},
    "pipeline": {"balance": [2, 3], "chunks": 8},
    "infer": {"random_inputs": {"shape": [6400, 1024], "seed": 1}, "batch_size": 64}}


def connect(address):
    files = [os.environ.get(name) for name in ("GPIPE_TLS_CA", "GPIPE_TLS_KEY", "GPIPE_TLS_CERT")]
    contents = [pathlib.Path(file).read_bytes() for file in files if file]
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(*contents)) if contents else grpc.insecure_channel(address)


def method(channel, pool, service, name):
    """A method as a function of its request's fields."""
    described = pool.FindServiceByName(f"gpipe.v1.{service}").FindMethodByName(name)
    request, response = map(message_factory.GetMessageClass, (described.input_type, described.output_type))
    kind = channel.unary_stream if described.server_streaming else channel.unary_unary
    call = kind(f"/gpipe.v1.{service}/{name}", request.SerializeToString, response.FromString)
    return lambda **fields: call(json_format.ParseDict(fields, request()))


def show(stages):
    for stage in stages.stages:
        busy = stage.forward + stage.backward + stage.recompute + stage.optimizer
        waits = ", ".join(f"{peer.wait_nanos / 1e6:.2f} ms for worker {peer.worker}" for peer in stage.traffic)
        print(f"step {stages.step} stage {stage.stage} on {stage.worker}: {busy * 1e3:.2f} ms busy, "
              f"{stage.idle * 1e3:.2f} ms idle, waits {waits}", flush=True)


def main(address="127.0.0.1:7070", folder="monitored"):
    channel = connect(address)
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    submit, watch, get = (method(channel, pool, "JobService", name) for name in ("SubmitJob", "WatchJob", "GetJob"))
    download = method(channel, pool, "ArtifactService", "DownloadArtifact")
    job = submit(spec=EXAMPLE, request_id=os.urandom(8).hex())
    for update in watch(id=job.id, stages=True):
        if update.HasField("stages"):
            show(update.stages)
    for result in get(id=job.id).results:
        path = pathlib.Path(folder, result.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(part.data for part in download(ref=json_format.MessageToDict(result.artifact))))
        print(f"{job.id} {path}: {path.stat().st_size} bytes")


main(*sys.argv[1:])
