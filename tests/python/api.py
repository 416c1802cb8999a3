"""The orchestrator's API through reflection, as any program without generated code calls it."""

from __future__ import annotations

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Api:
    """`api.WatchJob(id=...)` calls the method of that name, of whichever service; fields as in JSON."""

    SERVICES = ("JobService", "ArtifactService", "ClusterService", "MonitoringService")

    def __init__(self, address, options=(), pool=None):
        """`pool` is that of another Api, where there are many: then nothing is asked again."""
        self.channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1), *options])
        self.pool = pool or descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        for service in self.SERVICES:
            for method in self.pool.FindServiceByName(f"gpipe.v1.{service}").methods:
                if not method.client_streaming:
                    setattr(self, method.name, self._bind(service, method))

    def _bind(self, service, method):
        request, response = (message_factory.GetMessageClass(t) for t in (method.input_type, method.output_type))
        kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        call = kind(f"/gpipe.v1.{service}/{method.name}", request.SerializeToString, response.FromString)

        def invoke(timeout=60, **fields):
            return call(json_format.ParseDict(fields, request()), timeout=timeout)
        return invoke
