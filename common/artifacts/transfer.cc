#include "common/artifacts/transfer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stop_token>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/artifacts/file_hash.h"
#include "common/artifacts/parallel_fetch.h"
#include "common/artifacts/piece_message.h"
#include "common/artifacts/raw_call.h"
#include "common/file.h"
#include "common/grpc_status.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace gpipe {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPieceBytes = 1 << 20;
constexpr char kUpload[] = "/gpipe.v1.ArtifactService/UploadArtifact";
// Between two reports of progress while nothing else happens on the thread that waits.
constexpr absl::Duration kReportInterval = absl::Milliseconds(100);

absl::StatusOr<bool> IsMissing(ArtifactConnections& connections, const v1::ArtifactRef& ref,
                               const std::stop_token& stop) {
  grpc::ClientContext context;
  const std::stop_callback on_stop(stop, [&context] { context.TryCancel(); });
  v1::FindMissingArtifactsRequest request;
  v1::FindMissingArtifactsResponse response;
  *request.add_refs() = ref;
  GPIPE_RETURN_IF_ERROR(FromGrpc(connections.calls().FindMissingArtifacts(&context, request, &response)));
  return response.missing_size() > 0;
}

// Streams the file; stops early when the server has ended the call, whose status then says why.
absl::Status SendPieces(RawCall& call, const fs::path& path, int64_t size, const TransferOptions& options) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot read", path);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  int64_t sent = 0;
  while (true) {
    GPIPE_ASSIGN_OR_RETURN(grpc::Slice piece, ReadPiece(fd, path, sent, kPieceBytes));
    const auto bytes = static_cast<int64_t>(piece.size());
    if (bytes == 0 || !call.Write(MakePiece(kUploadDataField, std::move(piece)))) return absl::OkStatus();
    sent += bytes;
    options.Report(FileProgress::Doing::kSending, path, sent, size);
  }
}

// `first` says what the file is.
absl::Status Send(ArtifactConnections& connections, const v1::UploadArtifactRequest& first, const fs::path& path,
                  const TransferOptions& options) {
  RawCall call(connections.raw(0), kUpload, options.stop);
  if (call.Write(ToBuffer(first))) GPIPE_RETURN_IF_ERROR(SendPieces(call, path, first.ref().size(), options));
  grpc::ByteBuffer answer;
  if (call.WritesDone()) call.Read(answer);
  return call.Finish();
}

// Hashes the bytes in their order as they come, while later ones are still on their way.
absl::StatusOr<std::string> HashArriving(ParallelFetch& fetch, int fd, const fs::path& path, int64_t size,
                                         const TransferOptions& options) {
  Sha256 hash;
  int64_t hashed = 0;
  bool all = false;
  while (!all) {
    const int64_t end = std::min<int64_t>(hashed + kPieceBytes, size);
    GPIPE_ASSIGN_OR_RETURN(const bool arrived, fetch.WaitUntil(end, kReportInterval));
    options.Report(FileProgress::Doing::kFetching, path, std::min(fetch.done(), size - 1), size);
    if (options.stop.stop_requested()) return absl::CancelledError("stopped");
    if (!arrived) continue;
    GPIPE_ASSIGN_OR_RETURN(const grpc::Slice piece, ReadPiece(fd, path, hashed, end - hashed));
    hash.Update(View(piece));
    hashed = end;
    all = hashed == size;
  }
  return hash.HexDigest();
}

}  // namespace

absl::Status UploadHashed(ArtifactConnections& connections, const v1::ArtifactRef& ref, const fs::path& path,
                          const TransferOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(const bool missing, IsMissing(connections, ref, options.stop));
  if (!missing) return absl::OkStatus();
  v1::UploadArtifactRequest first;
  *first.mutable_ref() = ref;
  return Send(connections, first, path, options);
}

absl::Status UploadPart(ArtifactConnections& connections, const v1::PartOf& of, const v1::ArtifactRef& ref,
                        const fs::path& path, const TransferOptions& options) {
  v1::UploadArtifactRequest first;
  *first.mutable_ref() = ref;
  *first.mutable_part_of() = of;
  return Send(connections, first, path, options);
}

absl::StatusOr<v1::ArtifactRef> UploadFile(ArtifactConnections& connections, const fs::path& path,
                                           const TransferOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(HashedFile file, HashFile(path, options));
  const absl::Status sent = UploadHashed(connections, file.ref, path, options);
  if (absl::IsDataLoss(sent) && options.memory != nullptr) {
    // A file system that does not keep its times has made the memory wrong.
    TransferOptions without = options;
    without.memory = nullptr;
    return UploadFile(connections, path, without);
  }
  GPIPE_RETURN_IF_ERROR(sent);
  return std::move(file.ref);
}

absl::Status DownloadFile(ArtifactConnections& connections, const v1::ArtifactRef& ref, const fs::path& path,
                          const TransferOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  ParallelFetch fetch(connections, ref, 0, ref.size(),
                      [&file](int64_t offset, std::string_view bytes) { return file.WriteAt(offset, bytes); });
  const std::stop_callback stop(options.stop, [&fetch] { fetch.Stop(); });
  GPIPE_ASSIGN_OR_RETURN(const std::string sha256, HashArriving(fetch, file.fd(), path, ref.size(), options));
  if (sha256 != ref.sha256()) {
    return absl::DataLossError(absl::StrCat("the content that arrived for ", path.string(), " is not ", ref.sha256()));
  }
  GPIPE_RETURN_IF_ERROR(file.Commit());
  options.Report(FileProgress::Doing::kFetching, path, ref.size(), ref.size());
  return absl::OkStatus();
}

absl::Status ReadRange(ArtifactConnections& connections, const v1::ArtifactRef& ref, int64_t offset,
                       absl::Span<char> data, const TransferOptions& options) {
  const auto length = static_cast<int64_t>(data.size());
  if (length == 0) return absl::OkStatus();
  ParallelFetch fetch(connections, ref, offset, length, [data](int64_t at, std::string_view bytes) {
    std::memcpy(data.data() + at, bytes.data(), bytes.size());
    return absl::OkStatus();
  });
  const std::stop_callback stop(options.stop, [&fetch] { fetch.Stop(); });
  while (true) {
    GPIPE_ASSIGN_OR_RETURN(const bool arrived, fetch.WaitUntil(length, kReportInterval));
    options.Report(FileProgress::Doing::kFetching, ref.sha256(), fetch.done(), length);
    if (arrived) return absl::OkStatus();
  }
}

}  // namespace gpipe
