#ifndef GPIPE_ORCHESTRATOR_WEB_API_CALL_H_
#define GPIPE_ORCHESTRATOR_WEB_API_CALL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"

namespace gpipe::orchestrator {

// One call of the orchestrator's own API with one request: what comes back, and for how long to wait for it, is up to
// who asks. One thread, but for Cancel.
class ApiCall {
 public:
  // `token` goes along as a bearer token, unless it is empty. `stub` must outlive the call.
  ApiCall(grpc::GenericStub& stub, const google::protobuf::MethodDescriptor& method,
          const google::protobuf::Message& request, const std::string& token);
  // Cancels the call unless it is over.
  ~ApiCall();
  ApiCall(const ApiCall&) = delete;
  ApiCall& operator=(const ApiCall&) = delete;

  enum class Got { kMessage, kNothingYet, kEnd };
  // The next message, waited for at most `patience`. After kEnd only Finish may be called. INVALID bytes are an end.
  Got Next(absl::Duration patience, google::protobuf::Message& message);
  // The same, as it came.
  Got Next(absl::Duration patience, grpc::Slice& message);
  // How the call ended. REQUIRES: Next gave kEnd, or Cancel was called.
  absl::Status Finish();

  // Ends the call, and a wait in Next. Any thread.
  void Cancel() { context_.TryCancel(); }

 private:
  // The next message is in received_.
  Got Receive(absl::Duration patience);
  bool Wait(absl::Time deadline, bool* ok);
  void WaitForEver();

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::ByteBuffer received_;
  bool reading_ = false;
  bool finished_ = false;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_WEB_API_CALL_H_
