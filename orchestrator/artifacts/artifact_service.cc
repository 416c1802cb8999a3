#include "orchestrator/artifacts/artifact_service.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/file.h"
#include "common/grpc_status.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::orchestrator {
namespace {

absl::Status FindMissing(const ArtifactStore& store, const v1::FindMissingArtifactsRequest& request,
                         v1::FindMissingArtifactsResponse& response) {
  if (request.refs_size() > ArtifactService::kMaxRefs) {
    return FieldError("refs", absl::StrCat("has ", request.refs_size(), " entries, at most ", ArtifactService::kMaxRefs,
                                           " are allowed"));
  }
  for (int i = 0; i < request.refs_size(); ++i) {
    absl::Status found = store.Path(request.refs(i)).status();
    if (absl::IsInvalidArgument(found)) return FieldError(absl::StrCat("refs[", i, "]"), StdView(found.message()));
    if (!found.ok()) *response.add_missing() = request.refs(i);
  }
  return absl::OkStatus();
}

// One download. Deletes itself when gRPC is done with it.
class DownloadReactor final : public grpc::ServerWriteReactor<v1::DownloadArtifactResponse> {
 public:
  DownloadReactor(const ArtifactStore& store, const v1::DownloadArtifactRequest& request) {
    absl::Status status = Open(store, request);
    if (status.ok()) {
      SendNext();
    } else {
      Finish(ToGrpc(status));
    }
  }
  ~DownloadReactor() override {
    if (fd_ >= 0) close(fd_);
  }

  void OnWriteDone(bool ok) override {
    if (ok) {
      SendNext();
    } else {
      Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the client is gone"));
    }
  }

  void OnDone() override { delete this; }

 private:
  absl::Status Open(const ArtifactStore& store, const v1::DownloadArtifactRequest& request) {
    absl::StatusOr<std::filesystem::path> path = store.Path(request.ref());
    if (absl::IsInvalidArgument(path.status())) return FieldError("ref", StdView(path.status().message()));
    GPIPE_RETURN_IF_ERROR(path.status());
    if (request.offset() < 0 || request.offset() > request.ref().size()) {
      return FieldError(
          "offset", absl::StrCat("must be between 0 and the size ", request.ref().size(), ", is ", request.offset()));
    }
    const int64_t rest = request.ref().size() - request.offset();
    if (request.length() < 0 || request.length() > rest) {
      return FieldError(
          "length", absl::StrCat("must be between 0 and the ", rest, " bytes from offset on, is ", request.length()));
    }
    path_ = *std::move(path);
    offset_ = request.offset();
    end_ = request.length() > 0 ? offset_ + request.length() : request.ref().size();
    fd_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    return fd_ < 0 ? ErrnoStatus(errno, "cannot open", path_) : absl::OkStatus();
  }

  void SendNext() {
    if (offset_ == end_) return Finish(grpc::Status::OK);
    absl::Status status = ReadPiece();
    if (!status.ok()) return Finish(ToGrpc(status));
    StartWrite(&response_);
  }

  absl::Status ReadPiece() {
    std::string& data = *response_.mutable_data();
    data.resize(std::min(end_ - offset_, ArtifactService::kPieceBytes));
    ssize_t got = pread(fd_, data.data(), data.size(), offset_);
    if (got < 0) return ErrnoStatus(errno, "cannot read", path_);
    if (got == 0) return absl::DataLossError(absl::StrCat(path_.string(), " is shorter than it was"));
    data.resize(got);
    offset_ += got;
    return absl::OkStatus();
  }

  std::filesystem::path path_;
  int fd_ = -1;
  int64_t offset_ = 0;
  int64_t end_ = 0;
  v1::DownloadArtifactResponse response_;
};

}  // namespace

// One upload. Deletes itself when gRPC is done with it. A call that is cancelled reads as one that ends too early, and
// leaves nothing.
class ArtifactService::UploadReactor final : public grpc::ServerReadReactor<v1::UploadArtifactRequest> {
 public:
  UploadReactor(ArtifactService* service, v1::UploadArtifactResponse* response)
      : service_(service), response_(response) {
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return EndOfMessages();
    absl::Status status = Accept();
    if (!status.ok()) return FinishWith(status);
    StartRead(&request_);
  }

  // On the commit thread.
  void Commit() { FinishWith(writer_->Commit()); }

  void OnDone() override { delete this; }

 private:
  absl::Status Accept() {
    switch (request_.part_case()) {
      case v1::UploadArtifactRequest::kRef:
        return AcceptRef();
      case v1::UploadArtifactRequest::kData:
        if (!writer_.has_value()) return FieldError("data", "the first message must hold ref");
        return writer_->Append(request_.data());
      case v1::UploadArtifactRequest::PART_NOT_SET:
        break;
    }
    return FieldError("part", "a message must hold ref or data");
  }

  absl::Status AcceptRef() {
    if (writer_.has_value()) return FieldError("ref", "only the first message may hold ref");
    auto writer = service_->store_->Begin(request_.ref());
    if (absl::IsInvalidArgument(writer.status())) return FieldError("ref", StdView(writer.status().message()));
    GPIPE_RETURN_IF_ERROR(writer.status());
    writer_.emplace(*std::move(writer));
    *response_->mutable_ref() = request_.ref();
    return absl::OkStatus();
  }

  void EndOfMessages() {
    if (!writer_.has_value()) return FinishWith(FieldError("ref", "no message was sent"));
    if (!service_->complete_uploads_.TryPush(this)) {
      FinishWith(absl::ResourceExhaustedError("too many uploads end at once"));
    }
  }

  void FinishWith(const absl::Status& status) {
    writer_.reset();  // What is half-written is gone before the client hears of it.
    Finish(ToGrpc(status));
  }

  ArtifactService* const service_;
  v1::UploadArtifactResponse* const response_;
  v1::UploadArtifactRequest request_;
  std::optional<ArtifactStore::Writer> writer_;
};

ArtifactService::ArtifactService(ArtifactStore* store)
    : store_(store), commit_thread_(&ArtifactService::CommitUploads, this) {}

ArtifactService::~ArtifactService() {
  complete_uploads_.Close();
  commit_thread_.join();
}

void ArtifactService::CommitUploads() {
  SetThreadName("artifact-commit");
  while (std::optional<UploadReactor*> upload = complete_uploads_.Pop()) (*upload)->Commit();
}

grpc::ServerUnaryReactor* ArtifactService::FindMissingArtifacts(grpc::CallbackServerContext* context,
                                                                const v1::FindMissingArtifactsRequest* request,
                                                                v1::FindMissingArtifactsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(FindMissing(*store_, *request, *response)));
  return reactor;
}

grpc::ServerReadReactor<v1::UploadArtifactRequest>* ArtifactService::UploadArtifact(
    grpc::CallbackServerContext* context, v1::UploadArtifactResponse* response) {
  return new UploadReactor(this, response);
}

grpc::ServerWriteReactor<v1::DownloadArtifactResponse>* ArtifactService::DownloadArtifact(
    grpc::CallbackServerContext* context, const v1::DownloadArtifactRequest* request) {
  return new DownloadReactor(*store_, *request);
}

}  // namespace gpipe::orchestrator
