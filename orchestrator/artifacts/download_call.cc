#include "orchestrator/artifacts/download_call.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/artifacts/piece_message.h"
#include "common/artifacts/raw_call.h"
#include "common/error_reason.h"
#include "common/field_error.h"
#include "common/file.h"
#include "common/grpc_status.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::orchestrator {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;

absl::Status TooMany() {
  return WithReason(absl::ResourceExhaustedError("too many downloads at once"), reason::kOverloaded);
}

absl::Status CheckRange(const v1::DownloadArtifactRequest& request) {
  const int64_t size = request.ref().size();
  if (request.offset() < 0 || request.offset() > size) {
    return FieldError("offset", absl::StrCat("must be between 0 and the size ", size, ", is ", request.offset()));
  }
  const int64_t rest = size - request.offset();
  if (request.length() >= 0 && request.length() <= rest) return absl::OkStatus();
  return FieldError("length",
                    absl::StrCat("must be between 0 and the ", rest, " bytes from offset on, is ", request.length()));
}

}  // namespace

DownloadCall::DownloadCall(const ArtifactStore& store, FileThreads& threads, std::unique_ptr<OpenCalls::Place> place,
                           MayRead may_read, const grpc::ByteBuffer& request)
    : store_(store), threads_(threads), place_(std::move(place)), may_read_(std::move(may_read)), request_(request) {
  Next next;
  {
    absl::MutexLock lock(&mutex_);
    if (place_ == nullptr) end_status_ = TooMany();
    next = Choose();
  }
  Start(next);
}

DownloadCall::~DownloadCall() {
  if (fd_ >= 0) close(fd_);
}

void DownloadCall::OnWriteDone(bool ok) {
  Next next;
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok && !end_status_) {
      end_status_ = absl::CancelledError("the client is gone");
      ready_.reset();
    }
    next = Choose();
  }
  Start(next);
}

DownloadCall::Next DownloadCall::Choose() {
  Next next;
  next.write = ready_.has_value() && !writing_;
  if (next.write) {
    sending_ = *std::exchange(ready_, std::nullopt);
    writing_ = true;
  }
  next.read = !reading_ && !ready_ && !end_status_;
  reading_ |= next.read;
  if (end_status_ && !ready_ && !reading_ && !writing_ && !std::exchange(finished_, true)) next.end = end_status_;
  return next;
}

// What is begun here keeps the object; behind the last of it the object may be gone. A read that is refused is under
// way until it is ended, last of all.
void DownloadCall::Start(const Next& next) {
  if (next.write) StartWrite(&sending_);
  if (next.read && !threads_.Run([this] { ReadNext(); })) EndRead(TooMany());
  if (next.end) Finish(ToGrpc(*next.end));
}

void DownloadCall::ReadNext() {
  const absl::Status opened = fd_ < 0 ? Open() : absl::OkStatus();
  if (!opened.ok()) return EndRead(opened);
  EndRead(offset_ < end_ ? Read() : grpc::ByteBuffer());
}

void DownloadCall::EndRead(absl::StatusOr<grpc::ByteBuffer> piece) {
  Next next;
  {
    absl::MutexLock lock(&mutex_);
    reading_ = false;
    if (end_status_) {
      // The client is gone.
    } else if (piece.ok() && piece->Valid()) {
      ready_ = *std::move(piece);
    } else {
      end_status_ = piece.status();
    }
    next = Choose();
  }
  Start(next);
}

absl::Status DownloadCall::Open() {
  GPIPE_ASSIGN_OR_RETURN(const v1::DownloadArtifactRequest request, FromBuffer<v1::DownloadArtifactRequest>(request_));
  if (may_read_) GPIPE_RETURN_IF_ERROR(may_read_(request.ref()));
  absl::StatusOr<std::filesystem::path> path = store_.Path(request.ref());
  if (absl::IsInvalidArgument(path.status())) return FieldError("ref", StdView(path.status().message()));
  GPIPE_RETURN_IF_ERROR(path.status());
  GPIPE_RETURN_IF_ERROR(CheckRange(request));
  path_ = *std::move(path);
  offset_ = request.offset();
  end_ = request.length() > 0 ? offset_ + request.length() : request.ref().size();
  fd_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  return fd_ < 0 ? ErrnoStatus(errno, "cannot open", path_) : absl::OkStatus();
}

absl::StatusOr<grpc::ByteBuffer> DownloadCall::Read() {
  const auto bytes = static_cast<size_t>(std::min(end_ - offset_, kPieceBytes));
  GPIPE_ASSIGN_OR_RETURN(grpc::Slice piece, ReadPiece(fd_, path_, offset_, bytes));
  if (piece.size() < bytes) return absl::DataLossError(absl::StrCat(path_.string(), " is shorter than it was"));
  offset_ += static_cast<int64_t>(bytes);
  return MakePiece(kDownloadDataField, std::move(piece));
}

}  // namespace gpipe::orchestrator
