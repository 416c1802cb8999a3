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
  Next next;
  {
    absl::MutexLock lock(&mutex_);
    if (place_ == nullptr) end_status_ = TooMany();
    next = Choose();
  }
  Start(std::move(next));
}

void UploadCall::OnReadDone(bool ok) {
  ok ? place_->Touch() : place_.reset();  // Syncing the whole may take long.
  Next next;
  {
    absl::MutexLock lock(&mutex_);
    reading_ = false;
    if (ok) ready_ = std::move(arriving_);
    all_read_ |= !ok;
    next = Choose();
  }
  Start(std::move(next));
}

UploadCall::Next UploadCall::Choose() {
  Next next;
  if (!working_ && !end_status_) next.message = std::exchange(ready_, std::nullopt);
  next.commit = !working_ && !end_status_ && !next.message && all_read_;
  working_ |= next.message.has_value() || next.commit;
  next.read = !reading_ && !ready_ && !all_read_ && !end_status_;
  reading_ |= next.read;
  // A read that is under way then ends with the call.
  if (end_status_ && !working_ && !std::exchange(finished_, true)) next.end = end_status_;
  return next;
}

// What is begun here keeps the object; behind the last of it the object may be gone.
void UploadCall::Start(Next next) {
  if (next.read) StartRead(&arriving_);
  if (next.message) {
    Work(parts_.pieces, [this, message = *std::move(next.message)] { EndWork(Accept(message), false); });
  }
  if (next.commit) Work(parts_.commits, [this] { EndWork(Commit(), true); });
  if (next.end) Finish(ToGrpc(*next.end));
}

void UploadCall::Work(FileThreads& threads, std::function<void()> work) {
  if (!threads.Run(std::move(work))) EndWork(TooMany(), true);
}

void UploadCall::EndWork(const absl::Status& status, bool last) {
  if (last || !status.ok()) writer_.reset();  // What is half-written is gone before the client hears of it.
  Next next;
  {
    absl::MutexLock lock(&mutex_);
    working_ = false;
    if (last || !status.ok()) end_status_ = status;
    next = Choose();
  }
  Start(std::move(next));
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
