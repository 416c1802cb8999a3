#include "common/artifacts/transfer.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
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
                        const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return ErrnoStatus(errno, "cannot read", path);
  v1::UploadArtifactRequest request;
  std::string buffer(kPieceBytes, '\0');
  while (file) {
    file.read(buffer.data(), kPieceBytes);
    request.set_data(buffer.data(), static_cast<size_t>(file.gcount()));
    if (file.gcount() > 0 && !writer.Write(request)) break;
  }
  return file.bad() ? ErrnoStatus(errno, "cannot read", path) : absl::OkStatus();
}

absl::Status Send(v1::ArtifactService::StubInterface& stub, const v1::ArtifactRef& ref,
                  const std::filesystem::path& path) {
  grpc::ClientContext context;
  v1::UploadArtifactResponse response;
  const auto writer = stub.UploadArtifact(&context, &response);
  v1::UploadArtifactRequest first;
  *first.mutable_ref() = ref;
  absl::Status sent = writer->Write(first) ? SendPieces(*writer, path) : absl::OkStatus();
  if (!sent.ok()) context.TryCancel();
  writer->WritesDone();
  const absl::Status finished = FromGrpc(writer->Finish());
  return sent.ok() ? finished : sent;
}

}  // namespace

absl::StatusOr<v1::ArtifactRef> RefOfFile(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return ErrnoStatus(ENOENT, "cannot read", path);
  if (std::filesystem::is_directory(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), " is a folder"));
  }
  v1::ArtifactRef ref;
  GPIPE_ASSIGN_OR_RETURN(*ref.mutable_sha256(), Sha256OfFile(path));
  ref.set_size(static_cast<int64_t>(std::filesystem::file_size(path, error)));
  if (error) return ErrnoStatus(error.value(), "cannot read", path);
  return ref;
}

absl::StatusOr<v1::ArtifactRef> UploadFile(v1::ArtifactService::StubInterface& stub,
                                           const std::filesystem::path& path) {
  GPIPE_ASSIGN_OR_RETURN(v1::ArtifactRef ref, RefOfFile(path));
  GPIPE_ASSIGN_OR_RETURN(const bool missing, IsMissing(stub, ref));
  if (missing) GPIPE_RETURN_IF_ERROR(Send(stub, ref, path));
  return ref;
}

absl::Status DownloadFile(v1::ArtifactService::StubInterface& stub, const v1::ArtifactRef& ref,
                          const std::filesystem::path& path) {
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  grpc::ClientContext context;
  v1::DownloadArtifactRequest request;
  *request.mutable_ref() = ref;
  const auto reader = stub.DownloadArtifact(&context, request);
  Sha256 hash;
  v1::DownloadArtifactResponse piece;
  absl::Status written;
  while (written.ok() && reader->Read(&piece)) {
    hash.Update(piece.data());
    written = file.Append(piece.data());
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
