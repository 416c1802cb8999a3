#include "common/artifacts/raw_call.h"

#include <functional>

#include "common/grpc_status.h"

namespace gpipe {

RawCall::RawCall(grpc::GenericStub& stub, const std::string& method, const std::stop_token& stop)
    : call_(stub.PrepareCall(&context_, method, &queue_)) {
  on_stop_.emplace(stop, [this] { context_.TryCancel(); });
  call_->StartCall(nullptr);
  Wait();
}

RawCall::~RawCall() {
  if (!finished_) {
    Cancel();
    Finish().IgnoreError();
  }
  on_stop_.reset();
  queue_.Shutdown();
  while (Wait()) {
  }
}

bool RawCall::Write(const grpc::ByteBuffer& message) {
  call_->Write(message, nullptr);
  return Wait();
}

bool RawCall::WriteLast(const grpc::ByteBuffer& message) {
  call_->WriteLast(message, grpc::WriteOptions(), nullptr);
  return Wait();
}

bool RawCall::WritesDone() {
  call_->WritesDone(nullptr);
  return Wait();
}

bool RawCall::Read(grpc::ByteBuffer& message) {
  call_->Read(&message, nullptr);
  return Wait();
}

absl::Status RawCall::Finish() {
  grpc::Status status;
  call_->Finish(&status, nullptr);
  Wait();
  finished_ = true;
  return FromGrpc(status);
}

// One operation at a time is under way, so that what completes is it.
bool RawCall::Wait() {
  void* tag = nullptr;
  bool ok = false;
  return queue_.Next(&tag, &ok) && ok;
}

}  // namespace gpipe
