#include "orchestrator/artifacts/upload_call.h"

#include <utility>
#include <vector>

#include "common/artifacts/piece_message.h"
#include "common/artifacts/raw_call.h"
#include "common/error_reason.h"
#include "common/field_error.h"
#include "common/grpc_status.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::orchestrator {

namespace {

absl::Status TooMany() {
  return WithReason(absl::ResourceExhaustedError("too many uploads at once"), reason::kOverloaded);
}

}  // namespace

UploadCall::UploadCall(const Parts& parts, std::unique_ptr<OpenCalls::Place> place, MayWrite may_write,
                       grpc::ByteBuffer* response)
    : parts_(parts), place_(std::move(place)), may_write_(std::move(may_write)), response_(response) {
  if (place_ == nullptr) {
    absl::MutexLock lock(&mutex_);
    end_status_ = TooMany();
  }
  Advance();
}

void UploadCall::OnReadDone(bool ok) {
  ok ? place_->Touch() : place_.reset();  // Syncing the whole may take long.
  {
    absl::MutexLock lock(&mutex_);
    reading_ = false;
    if (ok) ready_ = std::move(arriving_);
    all_read_ |= !ok;
  }
  Advance();
}

void UploadCall::Advance() {
  bool read = false, commit = false, finish = false;
  std::optional<grpc::ByteBuffer> message;
  absl::Status status;
  {
    absl::MutexLock lock(&mutex_);
    if (!working_ && !end_status_) message = std::exchange(ready_, std::nullopt);
    commit = !working_ && !end_status_ && !message && all_read_;
    working_ |= message.has_value() || commit;
    read = !reading_ && !ready_ && !all_read_ && !end_status_;
    reading_ |= read;
    // A read that is under way then ends with the call.
    finish = end_status_ && !working_ && !std::exchange(finished_, true);
    if (finish) status = *end_status_;
  }
  // What is begun here keeps the object; behind the last of it the object may be gone.
  if (read) StartRead(&arriving_);
  if (message) Work(parts_.pieces, [this, message = *std::move(message)] { EndWork(Accept(message), false); });
  if (commit) Work(parts_.commits, [this] { EndWork(Commit(), true); });
  if (finish) Finish(ToGrpc(status));
}

void UploadCall::Work(FileThreads& threads, std::function<void()> work) {
  if (!threads.Run(std::move(work))) EndWork(TooMany(), true);
}

void UploadCall::EndWork(const absl::Status& status, bool last) {
  if (last || !status.ok()) writer_.reset();  // What is half-written is gone before the client hears of it.
  {
    absl::MutexLock lock(&mutex_);
    working_ = false;
    if (last || !status.ok()) end_status_ = status;
  }
  Advance();
}

absl::Status UploadCall::Accept(const grpc::ByteBuffer& message) {
  if (const auto data = TakePiece(kUploadDataField, message)) return AcceptData(*data);
  GPIPE_ASSIGN_OR_RETURN(const auto request, FromBuffer<v1::UploadArtifactRequest>(message));
  switch (request.part_case()) {
    case v1::UploadArtifactRequest::kRef:
      return AcceptFirst(request);
    case v1::UploadArtifactRequest::kData:
      return AcceptData({grpc::Slice(request.data())});
    case v1::UploadArtifactRequest::PART_NOT_SET:
      break;
  }
  return FieldError("part", "a message must hold ref or data");
}

absl::Status UploadCall::AcceptData(const std::vector<grpc::Slice>& data) {
  if (!writer_.has_value()) return FieldError("data", "the first message must hold ref");
  for (const grpc::Slice& slice : data) GPIPE_RETURN_IF_ERROR(writer_->Append(View(slice)));
  return absl::OkStatus();
}

absl::Status UploadCall::AcceptFirst(const v1::UploadArtifactRequest& first) {
  if (writer_.has_value()) return FieldError("ref", "only the first message may hold ref");
  if (may_write_) GPIPE_RETURN_IF_ERROR(may_write_(first));
  const v1::ArtifactRef& ref = first.ref();
  if (!first.has_part_of()) parts_.store.Claim(ref).IgnoreError();  // Begin tells what is wrong with it.
  auto writer = first.has_part_of() ? parts_.store.BeginPart(first.part_of(), ref) : parts_.store.Begin(ref);
  if (absl::IsInvalidArgument(writer.status())) return FieldError("ref", StdView(writer.status().message()));
  GPIPE_RETURN_IF_ERROR(writer.status());
  writer_.emplace(*std::move(writer));
  v1::UploadArtifactResponse response;
  *response.mutable_ref() = ref;
  *response_ = ToBuffer(response);
  return absl::OkStatus();
}

absl::Status UploadCall::Commit() {
  if (!writer_.has_value()) return FieldError("ref", "no message was sent");
  return writer_->Commit();
}

}  // namespace gpipe::orchestrator
