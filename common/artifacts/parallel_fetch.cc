#include "common/artifacts/parallel_fetch.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/artifacts/piece_message.h"
#include "common/artifacts/raw_call.h"
#include "common/logging.h"
#include "common/status_macros.h"

namespace gpipe {
namespace {

// A part is one request: large, so that asking costs nothing, and small, so that a tensor of some MiB is several.
constexpr int64_t kMostPartBytes = 16 << 20;
constexpr int64_t kLeastPartBytes = 1 << 20;

int64_t PartBytes(int64_t length, int connections) {
  // Twice as many as connections, so that a slower one does not keep the others waiting at the end.
  return std::clamp(length / (2 * connections) + 1, kLeastPartBytes, kMostPartBytes);
}
constexpr char kDownload[] = "/gpipe.v1.ArtifactService/DownloadArtifact";

// As a sender writes it that knows of no better way than a message class.
absl::StatusOr<std::vector<grpc::Slice>> PieceOf(const grpc::ByteBuffer& message) {
  if (auto data = TakePiece(kDownloadDataField, message)) return *std::move(data);
  grpc::ByteBuffer copy = message;
  v1::DownloadArtifactResponse response;
  const grpc::Status parsed = grpc::SerializationTraits<v1::DownloadArtifactResponse>::Deserialize(&copy, &response);
  if (!parsed.ok()) return absl::DataLossError("the orchestrator sent what is no piece of a file");
  return std::vector<grpc::Slice>{grpc::Slice(response.data())};
}

}  // namespace

ParallelFetch::ParallelFetch(ArtifactConnections& connections, v1::ArtifactRef ref, int64_t offset, int64_t length,
                             Sink sink)
    : connections_(connections),
      ref_(std::move(ref)),
      offset_(offset),
      length_(length),
      sink_(std::move(sink)),
      part_bytes_(PartBytes(length, connections.count())) {
  const int64_t parts = std::max<int64_t>(1, (length + part_bytes_ - 1) / part_bytes_);
  {
    absl::MutexLock lock(&mutex_);
    parts_.resize(static_cast<size_t>(parts));
  }
  const int threads = static_cast<int>(std::min<int64_t>(parts, connections.count()));
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this, i] { FetchParts(i); });
}

ParallelFetch::~ParallelFetch() { Stop(); }

absl::StatusOr<bool> ParallelFetch::WaitUntil(int64_t end, absl::Duration patience) {
  absl::MutexLock lock(&mutex_);
  const auto settled = [this, end]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return contiguous_ >= end || !failure_.ok(); };
  mutex_.AwaitWithTimeout(absl::Condition(&settled), patience);
  GPIPE_RETURN_IF_ERROR(failure_);
  return contiguous_ >= end;
}

int64_t ParallelFetch::done() const {
  absl::MutexLock lock(&mutex_);
  return done_;
}

void ParallelFetch::FetchParts(int connection) {
  SetThreadName("fetch");
  for (int64_t begin = NextPart(); begin >= 0; begin = NextPart()) {
    EndPart(begin, FetchPart(connection, begin, std::min(begin + part_bytes_, length_)));
  }
}

// -1: none is left to fetch.
int64_t ParallelFetch::NextPart() {
  absl::MutexLock lock(&mutex_);
  if (!failure_.ok() || next_ / part_bytes_ >= static_cast<int64_t>(parts_.size())) return -1;
  return std::exchange(next_, next_ + part_bytes_);
}

void ParallelFetch::EndPart(int64_t begin, const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (!status.ok()) {
    if (failure_.ok()) failure_ = status;
    return stop_.request_stop(), void();
  }
  parts_[static_cast<size_t>(begin / part_bytes_)] = true;
  const auto missing = std::find(parts_.begin(), parts_.end(), false);
  contiguous_ = std::min(length_, (missing - parts_.begin()) * part_bytes_);
}

void ParallelFetch::Count(int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  done_ += bytes;
}

absl::Status ParallelFetch::FetchPart(int connection, int64_t begin, int64_t end) {
  v1::DownloadArtifactRequest request;
  *request.mutable_ref() = ref_;
  request.set_offset(offset_ + begin);
  request.set_length(end - begin);
  RawCall call(connections_.raw(connection), kDownload, stop_.get_token());
  call.WriteLast(ToBuffer(request));
  grpc::ByteBuffer message;
  int64_t taken = begin;
  while (call.Read(message)) {
    GPIPE_RETURN_IF_ERROR(Take(end, message, taken));
    message.Clear();
  }
  GPIPE_RETURN_IF_ERROR(call.Finish());
  if (taken == end) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(taken - begin, " bytes of ", ref_.sha256(), " from ", offset_ + begin,
                                          " on arrived instead of ", end - begin));
}

absl::Status ParallelFetch::Take(int64_t end, const grpc::ByteBuffer& message, int64_t& taken) {
  GPIPE_ASSIGN_OR_RETURN(const std::vector<grpc::Slice> piece, PieceOf(message));
  const int64_t before = taken;
  for (const grpc::Slice& slice : piece) {
    if (static_cast<int64_t>(slice.size()) > end - taken) {
      return absl::DataLossError(absl::StrCat("more bytes of ", ref_.sha256(), " arrived than were asked for"));
    }
    GPIPE_RETURN_IF_ERROR(sink_(taken, View(slice)));
    taken += static_cast<int64_t>(slice.size());
  }
  Count(taken - before);
  return absl::OkStatus();
}

}  // namespace gpipe
