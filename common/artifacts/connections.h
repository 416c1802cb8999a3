#ifndef GPIPE_COMMON_ARTIFACTS_CONNECTIONS_H_
#define GPIPE_COMMON_ARTIFACTS_CONNECTIONS_H_

#include <memory>
#include <utility>
#include <vector>

#include "common/net/channel.h"
#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "grpcpp/generic/generic_stub.h"

namespace gpipe {

// What both ends of a connection ask of gRPC for the bytes of files: large frames, since each one is a message to take
// apart, and windows that are open from the beginning, as a fetch of a few pieces ends before they would have grown.
inline constexpr std::pair<const char*, int> kFileArguments[] = {
    {GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20},
    {GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 8 << 20},
};

// Connections to one orchestrator for the bytes of files, apart from the one on which its answers and heartbeats
// travel: several, because one is one TCP stream and one thread at each end, which no fast network is filled by.
// Each is made when it is first used. Any thread may call any method.
class ArtifactConnections {
 public:
  static constexpr int kDefaultCount = 4;

  // What calls do while nobody answers at the address.
  enum class Absent {
    kFail,   // UNAVAILABLE.
    kAwait,  // They wait, until they are stopped: for a worker, which hears on its session that the orchestrator is
             // gone.
  };

  explicit ArtifactConnections(const Endpoint& orchestrator, int count = kDefaultCount, Absent absent = Absent::kFail);
  ArtifactConnections(const ArtifactConnections&) = delete;
  ArtifactConnections& operator=(const ArtifactConnections&) = delete;

  int count() const { return static_cast<int>(stubs_.size()); }
  // For messages of any method as bytes. REQUIRES: 0 <= index < count().
  grpc::GenericStub& raw(int index) { return *stubs_[index]; }
  // For calls without many bytes.
  v1::ArtifactService::StubInterface& calls() { return *calls_; }

 private:
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
  std::unique_ptr<v1::ArtifactService::StubInterface> calls_;
};

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_CONNECTIONS_H_
