#include "common/artifacts/connections.h"

namespace gpipe {
namespace {

std::shared_ptr<grpc::Channel> Connect(const Endpoint& endpoint, ArtifactConnections::Absent absent) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  // Channels with the same address and arguments would share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (absent == ArtifactConnections::Absent::kAwait) {
    arguments.SetServiceConfigJSON(R"({"methodConfig": [{"name": [{}], "waitForReady": true}]})");
  }
  for (const auto& [name, value] : kFileArguments) arguments.SetInt(name, value);
  return MakeChannel(endpoint, std::move(arguments));
}

}  // namespace

ArtifactConnections::ArtifactConnections(const Endpoint& orchestrator, int count, Absent absent) {
  for (int i = 0; i < count; ++i) {
    const std::shared_ptr<grpc::Channel> channel = Connect(orchestrator, absent);
    if (i == 0) calls_ = v1::ArtifactService::NewStub(channel);
    stubs_.push_back(std::make_unique<grpc::GenericStub>(channel));
  }
}

}  // namespace gpipe
