#include "orchestrator/scheduling/housekeeper.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/types/span.h"
#include "common/string_view.h"
#include "orchestrator/jobs/job_state.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

// In the background: those that no job has, as is stored. None when the loop has stopped.
std::vector<v1::ArtifactRef> AskLoop(EventLoop& loop, Store& store, absl::Span<const v1::ArtifactRef> files) {
  absl::StatusOr<std::vector<v1::ArtifactRef>> without = absl::UnavailableError("not asked");
  absl::Notification answered;
  const bool asked = loop.Post([&] {
    without = store.WithoutJob(files);
    loop.AfterCommit([&](const absl::Status& stored) {
      if (!stored.ok()) without = stored;
      answered.Notify();
    });
  });
  if (asked) answered.WaitForNotification();
  return without.value_or(std::vector<v1::ArtifactRef>());
}

void RemoveWithoutJob(const Housekeeper::Parts& parts, const std::vector<Store::Dropped>& dropped) {
  std::vector<v1::ArtifactRef> files;
  std::map<std::string, absl::Time> since;  // By content, which may have been dropped several times.
  for (const Store::Dropped& some : dropped) {
    for (const v1::ArtifactRef& file : some.files) {
      const auto [known, is_new] = since.emplace(file.sha256(), some.since);
      known->second = std::max(known->second, some.since);
      if (is_new) files.push_back(file);
    }
  }
  for (size_t begin = 0; begin < files.size(); begin += Housekeeper::kMostFiles) {
    const auto some = absl::MakeConstSpan(files).subspan(begin, Housekeeper::kMostFiles);
    for (const v1::ArtifactRef& file : AskLoop(*parts.loop, *parts.store, some)) {
      parts.artifacts->Remove(file, since.at(file.sha256()));
    }
  }
}

}  // namespace

void Housekeeper::Start() {
  parts_.loop->PostAfter(kLookForJobs, [this] { ForgetJobs(); });
  parts_.loop->PostAfter(kLookForFiles, [this] { ForgetFiles(); });
}

void Housekeeper::Remove(std::vector<Store::Dropped> dropped) {
  if (dropped.empty()) return;
  parts_.loop->AfterCommit([parts = parts_, dropped = std::move(dropped)](const absl::Status& stored) {
    if (!stored.ok()) return;
    parts.merges->Run([parts, dropped] { RemoveWithoutJob(parts, dropped); });
  });
}

void Housekeeper::Delete(const std::string& id, std::function<void(const absl::Status&)> done) {
  const absl::StatusOr<StoredJob> job = parts_.store->GetJob(id);
  if (!job.ok()) return done(job.status());
  if (!IsTerminal(job->job.state())) {
    return done(absl::FailedPreconditionError(absl::StrCat("job ", id, " is ", AbslView(StateName(job->job.state())),
                                                           ", and cannot be deleted before it is cancelled")));
  }
  DeleteSome(id, std::move(done));
}

void Housekeeper::DeleteSome(const std::string& id, std::function<void(const absl::Status&)> done) {
  const absl::StatusOr<bool> more = parts_.store->DropSomeMetrics(id, kMostMetrics);
  if (!more.ok()) return done(more.status());
  if (*more) {
    parts_.loop->PostAfter(absl::ZeroDuration(), [this, id, done = std::move(done)] { DeleteSome(id, done); });
    return;
  }
  absl::StatusOr<Store::Dropped> dropped = parts_.store->DeleteJob(id);
  if (!dropped.ok()) return done(dropped.status());
  spdlog::info("job {} is deleted", id);
  if (parts_.on_deleted) parts_.on_deleted(id);
  Remove({*std::move(dropped)});
  parts_.loop->AfterCommit([done = std::move(done)](const absl::Status& stored) { done(stored); });
}

void Housekeeper::ForgetJobs() {
  const auto expired = parts_.store->ExpiredJobs(parts_.loop->Now() - options_.keep, options_.most_jobs, kMostJobs);
  if (!expired.ok()) spdlog::error("looking for old jobs: {}", StdView(expired.status().message()));
  const std::vector<std::string> ids = expired.value_or(std::vector<std::string>());
  for (const std::string& id : ids) {
    Delete(id, [id](const absl::Status& deleted) {
      if (!deleted.ok()) spdlog::error("deleting job {}: {}", id, StdView(deleted.message()));
    });
  }
  const bool more = ids.size() == kMostJobs;
  parts_.loop->PostAfter(more ? absl::Seconds(1) : kLookForJobs, [this] { ForgetJobs(); });
}

void Housekeeper::ForgetFiles() {
  parts_.merges->Run([parts = parts_] {
    RemoveWithoutJob(parts, {{.files = parts.artifacts->Unclaimed(), .since = absl::InfinitePast()}});
  });
  parts_.loop->PostAfter(kLookForFiles, [this] { ForgetFiles(); });
}

}  // namespace gpipe::orchestrator
