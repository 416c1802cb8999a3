#ifndef GPIPE_COMMON_ARTIFACTS_RAW_CALL_H_
#define GPIPE_COMMON_ARTIFACTS_RAW_CALL_H_

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/support/byte_buffer.h"

namespace gpipe {

// One call whose messages are bytes, blocking: what a generated stub does for messages. One thread, but for the token,
// which cancels the call.
class RawCall {
 public:
  // `method` is `/package.Service/Method`. `stub` must outlive the call.
  RawCall(grpc::GenericStub& stub, const std::string& method, const std::stop_token& stop);
  // Cancels the call unless Finish was called.
  ~RawCall();
  RawCall(const RawCall&) = delete;
  RawCall& operator=(const RawCall&) = delete;

  // False: the call has ended, and Finish says how.
  bool Write(const grpc::ByteBuffer& message);
  // Also ends what this side has to say.
  bool WriteLast(const grpc::ByteBuffer& message);
  bool WritesDone();
  // False: no more messages.
  bool Read(grpc::ByteBuffer& message);
  void Cancel() { context_.TryCancel(); }
  absl::Status Finish();

 private:
  bool Wait();

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  std::optional<std::stop_callback<std::function<void()>>> on_stop_;
  bool finished_ = false;
};

// A message as the bytes that travel.
template <typename Message>
grpc::ByteBuffer ToBuffer(const Message& message) {
  grpc::ByteBuffer buffer;
  bool own_buffer = false;
  const grpc::Status always = grpc::SerializationTraits<Message>::Serialize(message, &buffer, &own_buffer);
  return always.ok() ? buffer : grpc::ByteBuffer();
}

// The other way round. INVALID_ARGUMENT: the bytes are no such message.
template <typename Message>
absl::StatusOr<Message> FromBuffer(grpc::ByteBuffer buffer) {
  Message message;
  if (grpc::SerializationTraits<Message>::Deserialize(&buffer, &message).ok()) return message;
  return absl::InvalidArgumentError("a message cannot be read: it is no " + message.GetTypeName());
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_ARTIFACTS_RAW_CALL_H_
