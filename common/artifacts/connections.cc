#include "common/artifacts/connections.h"

#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"

namespace gpipe {
namespace {

std::shared_ptr<grpc::Channel> Connect(const std::string& address, ArtifactConnections::Absent absent) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Channels with the same address and arguments would share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (absent == ArtifactConnections::Absent::kAwait) {
    arguments.SetServiceConfigJSON(R"({"methodConfig": [{"name": [{}], "waitForReady": true}]})");
  }
  for (const auto& [name, value] : kFileArguments) arguments.SetInt(name, value);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

ArtifactConnections::ArtifactConnections(const std::string& address, int count, Absent absent) {
  for (int i = 0; i < count; ++i) {
    const std::shared_ptr<grpc::Channel> channel = Connect(address, absent);
    if (i == 0) calls_ = v1::ArtifactService::NewStub(channel);
    stubs_.push_back(std::make_unique<grpc::GenericStub>(channel));
  }
}

}  // namespace gpipe
