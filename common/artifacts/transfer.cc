#include "common/artifacts/transfer.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/artifacts/file_hash.h"
#include "common/file.h"
#include "common/grpc_status.h"
#include "common/sha256.h"
#include "common/status_macros.h"

namespace gpipe {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

absl::StatusOr<bool> IsMissing(v1::ArtifactService::StubInterface& stub, const v1::ArtifactRef& ref) {
  grpc::ClientContext context;
  v1::FindMissingArtifactsRequest request;
  v1::FindMissingArtifactsResponse response;
  *request.add_refs() = ref;
  GPIPE_RETURN_IF_ERROR(FromGrpc(stub.FindMissingArtifacts(&context, request, &response)));
  return response.missing_size() > 0;
}

// Streams the file; stops early when the server has ended the call, whose status then says why.
absl::Status SendPieces(grpc::ClientWriterInterface<v1::UploadArtifactRequest>& writer,
                        const std::filesystem::path& path, int64_t size, const TransferOptions& options) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return ErrnoStatus(errno, "cannot read", path);
  v1::UploadArtifactRequest request;
  std::string buffer(kPieceBytes, '\0');
  int64_t sent = 0;
  while (file) {
    file.read(buffer.data(), kPieceBytes);
    request.set_data(buffer.data(), static_cast<size_t>(file.gcount()));
    if (file.gcount() > 0 && !writer.Write(request)) break;
    sent += file.gcount();
    options.Report(FileProgress::Doing::kSending, path, sent, size);
  }
  return file.bad() ? ErrnoStatus(errno, "cannot read", path) : absl::OkStatus();
}

absl::Status Send(v1::ArtifactService::StubInterface& stub, const v1::ArtifactRef& ref,
                  const std::filesystem::path& path, const TransferOptions& options) {
  grpc::ClientContext context;
  const std::stop_callback cancel(options.stop, [&context] { context.TryCancel(); });
  v1::UploadArtifactResponse response;
  const auto writer = stub.UploadArtifact(&context, &response);
  v1::UploadArtifactRequest first;
  *first.mutable_ref() = ref;
  absl::Status sent = writer->Write(first) ? SendPieces(*writer, path, ref.size(), options) : absl::OkStatus();
  if (!sent.ok()) context.TryCancel();
  writer->WritesDone();
  const absl::Status finished = FromGrpc(writer->Finish());
  return sent.ok() ? finished : sent;
}

absl::Status SendIfMissing(v1::ArtifactService::StubInterface& stub, const v1::ArtifactRef& ref,
                           const std::filesystem::path& path, const TransferOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(const bool missing, IsMissing(stub, ref));
  return missing ? Send(stub, ref, path, options) : absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::ArtifactRef> UploadFile(v1::ArtifactService::StubInterface& stub, const std::filesystem::path& path,
                                           const TransferOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(HashedFile file, HashFile(path, options));
  const absl::Status sent = SendIfMissing(stub, file.ref, path, options);
  if (absl::IsDataLoss(sent) && options.memory != nullptr) {
    // A file system that does not keep its times has made the memory wrong.
    TransferOptions without = options;
    without.memory = nullptr;
    return UploadFile(stub, path, without);
  }
  GPIPE_RETURN_IF_ERROR(sent);
  return std::move(file.ref);
}

absl::Status DownloadFile(v1::ArtifactService::StubInterface& stub, const v1::ArtifactRef& ref,
                          const std::filesystem::path& path, const TransferOptions& options) {
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  grpc::ClientContext context;
  const std::stop_callback cancel(options.stop, [&context] { context.TryCancel(); });
  v1::DownloadArtifactRequest request;
  *request.mutable_ref() = ref;
  const auto reader = stub.DownloadArtifact(&context, request);
  Sha256 hash;
  v1::DownloadArtifactResponse piece;
  absl::Status written;
  int64_t done = 0;
  while (written.ok() && reader->Read(&piece)) {
    hash.Update(piece.data());
    written = file.Append(piece.data());
    done += static_cast<int64_t>(piece.data().size());
    options.Report(FileProgress::Doing::kFetching, path, done, ref.size());
  }
  if (!written.ok()) context.TryCancel();
  const absl::Status finished = FromGrpc(reader->Finish());
  GPIPE_RETURN_IF_ERROR(written);
  GPIPE_RETURN_IF_ERROR(finished);
  if (hash.HexDigest() != ref.sha256()) {
    return absl::DataLossError(absl::StrCat("the content that arrived for ", path.string(), " is not ", ref.sha256()));
  }
  return file.Commit();
}

absl::Status ReadRange(v1::ArtifactService::StubInterface& stub, const v1::ArtifactRef& ref, int64_t offset,
                       absl::Span<char> data) {
  if (data.empty()) return absl::OkStatus();
  grpc::ClientContext context;
  v1::DownloadArtifactRequest request;
  *request.mutable_ref() = ref;
  request.set_offset(offset);
  request.set_length(static_cast<int64_t>(data.size()));
  const auto reader = stub.DownloadArtifact(&context, request);
  v1::DownloadArtifactResponse piece;
  size_t filled = 0;
  bool fits = true;
  while (fits && reader->Read(&piece)) {
    fits = piece.data().size() <= data.size() - filled;
    if (fits) std::ranges::copy(piece.data(), data.begin() + filled);
    filled += piece.data().size();
  }
  if (!fits) context.TryCancel();
  const absl::Status finished = FromGrpc(reader->Finish());
  if (fits) GPIPE_RETURN_IF_ERROR(finished);
  if (filled == data.size()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(filled, " bytes of ", ref.sha256(), " from ", offset, " on arrived instead of ", data.size()));
}

}  // namespace gpipe
