#include "orchestrator/web/api_call.h"

#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "grpcpp/impl/codegen/proto_utils.h"

namespace gpipe::orchestrator {
namespace {

grpc::ByteBuffer ToBuffer(const google::protobuf::Message& message) {
  const std::string bytes = message.SerializeAsString();
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace

ApiCall::ApiCall(grpc::GenericStub& stub, const google::protobuf::MethodDescriptor& method,
                 const google::protobuf::Message& request, const std::string& token) {
  if (!token.empty()) context_.AddMetadata("authorization", absl::StrCat("Bearer ", token));
  call_ = stub.PrepareCall(&context_, absl::StrCat("/", method.service()->full_name(), "/", method.name()), &queue_);
  call_->StartCall(nullptr);
  WaitForEver();
  call_->WriteLast(ToBuffer(request), grpc::WriteOptions(), nullptr);
  WaitForEver();
}

ApiCall::~ApiCall() {
  Cancel();
  if (!finished_) Finish().IgnoreError();
  queue_.Shutdown();
  WaitForEver();
}

ApiCall::Got ApiCall::Next(absl::Duration patience, google::protobuf::Message& message) {
  if (const Got got = Receive(patience); got != Got::kMessage) return got;
  const bool parsed =
      grpc::GenericDeserialize<grpc::ProtoBufferReader, google::protobuf::Message>(&received_, &message).ok();
  return parsed ? Got::kMessage : Got::kEnd;
}

ApiCall::Got ApiCall::Next(absl::Duration patience, grpc::Slice& message) {
  if (const Got got = Receive(patience); got != Got::kMessage) return got;
  return received_.DumpToSingleSlice(&message).ok() ? Got::kMessage : Got::kEnd;
}

ApiCall::Got ApiCall::Receive(absl::Duration patience) {
  if (!reading_) call_->Read(&received_, nullptr);
  reading_ = true;
  bool ok = false;
  if (!Wait(absl::Now() + patience, &ok)) return Got::kNothingYet;
  reading_ = false;
  return ok ? Got::kMessage : Got::kEnd;
}

absl::Status ApiCall::Finish() {
  if (reading_) WaitForEver();
  reading_ = false;
  grpc::Status status;
  call_->Finish(&status, nullptr);
  WaitForEver();
  finished_ = true;
  return FromGrpc(status);
}

bool ApiCall::Wait(absl::Time deadline, bool* ok) {
  void* tag = nullptr;
  return queue_.AsyncNext(&tag, ok, absl::ToChronoTime(deadline)) != grpc::CompletionQueue::TIMEOUT;
}

// For what ends with the call at the latest.
void ApiCall::WaitForEver() {
  bool ok = false;
  void* tag = nullptr;
  queue_.Next(&tag, &ok);
}

}  // namespace gpipe::orchestrator
