#include "orchestrator/api/back_up_call.h"

#include <algorithm>
#include <fstream>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/artifacts/layout.h"
#include "common/grpc_status.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "grpcpp/server_context.h"
#include "orchestrator/jobs/snapshot.h"
#include "orchestrator/jobs/store.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace fs = std::filesystem;

BackUpCall::BackUpCall(fs::path state_dir, ArtifactStore* artifacts, bool with_files,
                       grpc::CallbackServerContext* context)
    : state_dir_(std::move(state_dir)), artifacts_(artifacts), with_files_(with_files), context_(context) {}

void BackUpCall::Run() {
  const absl::Status status = BackUp();
  spdlog::info("a backup has {}", status.ok() ? "been taken" : absl::StrCat("failed: ", status.message()));
  Finish(ToGrpc(status));
}

void BackUpCall::Refuse(const absl::Status& why) { Finish(ToGrpc(why)); }

absl::Status BackUpCall::BackUp() {
  spdlog::info("a backup begins");
  const ArtifactStore::Keep keep(artifacts_);  // First: what the snapshot names is there until the end.
  const fs::path snapshot = artifacts_->TemporaryPath();
  const absl::Cleanup remove = [&snapshot] {
    std::error_code error;
    fs::remove(snapshot, error);
  };
  GPIPE_RETURN_IF_ERROR(WriteSnapshot(state_dir_ / Store::kDatabaseFile, snapshot));
  std::error_code error;
  const auto size = static_cast<int64_t>(fs::file_size(snapshot, error));
  GPIPE_RETURN_IF_ERROR(SendFile(snapshot, Store::kDatabaseFile, size));
  return with_files_ ? SendFiles(snapshot) : absl::OkStatus();
}

// One that is not here any more, because it was damaged, the backup has not either.
absl::Status BackUpCall::SendFiles(const fs::path& snapshot) {
  return VisitFiles(snapshot, [this](const v1::ArtifactRef& file) -> absl::Status {
    const absl::StatusOr<fs::path> path = artifacts_->Path(file);
    if (!path.ok()) {
      spdlog::warn("a backup lacks {}: {}", file.sha256(), StdView(path.status().message()));
      return absl::OkStatus();
    }
    const fs::path name = ArtifactPath(artifacts_->folder().filename(), file.sha256());
    return SendFile(*path, name.string(), file.size());
  });
}

absl::Status BackUpCall::SendFile(const fs::path& path, const std::string& name, int64_t size) {
  std::ifstream input(path, std::ios::binary);
  if (!input) return absl::NotFoundError(absl::StrCat("cannot read ", path.string()));
  v1::BackUpResponse begin;
  begin.mutable_file()->set_path(name);
  begin.mutable_file()->set_size(size);
  GPIPE_RETURN_IF_ERROR(Send(begin));
  v1::BackUpResponse piece;
  for (int64_t left = size; left > 0;) {
    std::string& data = *piece.mutable_data();
    data.resize(std::min<size_t>(kPieceBytes, left));
    if (!input.read(data.data(), static_cast<std::streamsize>(data.size()))) {
      return absl::DataLossError(absl::StrCat(path.string(), " is shorter than it was"));
    }
    left -= static_cast<int64_t>(data.size());
    GPIPE_RETURN_IF_ERROR(Send(piece));
  }
  return absl::OkStatus();
}

// gRPC is called without the lock: it may call back from within.
absl::Status BackUpCall::Send(const v1::BackUpResponse& part) {
  {
    absl::MutexLock lock(&mutex_);
    if (gone_) return absl::CancelledError("the client has gone");
    writing_ = true;
  }
  StartWrite(&part);
  if (!AwaitWritten(kPatience)) {
    context_->TryCancel();  // Which ends the write, too.
    AwaitWritten(absl::InfiniteDuration());
    return absl::DeadlineExceededError("the client does not read its backup");
  }
  absl::MutexLock lock(&mutex_);
  return gone_ ? absl::CancelledError("the client has gone") : absl::OkStatus();
}

bool BackUpCall::AwaitWritten(absl::Duration patience) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(this, &BackUpCall::IsIdle), patience);
}

void BackUpCall::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  writing_ = false;
  gone_ |= !ok;
}

void BackUpCall::OnCancel() {
  absl::MutexLock lock(&mutex_);
  gone_ = true;
}

}  // namespace gpipe::orchestrator
