#include "client/cli/private_cluster.h"

#include <signal.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace gpipe::client {
namespace {

namespace fs = std::filesystem;

// After a Ctrl-C a job may take so long to be cancelled before everything is killed.
constexpr absl::Duration kCancelPatience = absl::Seconds(15);
constexpr absl::Duration kJoinPatience = absl::Minutes(2);
constexpr absl::Duration kBetweenLooks = absl::Milliseconds(25);

// Where the daemons are: beside this program, or in GPIPE_BIN_DIR.
fs::path BinDir() {
  const char* given = std::getenv("GPIPE_BIN_DIR");
  if (given != nullptr && *given != '\0') return given;
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error).parent_path();
}

}  // namespace

PrivateCluster::PrivateCluster() {
  // A reader of our output that goes away must not take the cleaning up with it.
  signal(SIGPIPE, SIG_IGN);
  watcher_.emplace([this](int count) { OnSignal(count); }, kCancelPatience);
}

PrivateCluster::~PrivateCluster() {
  // First: a server that shuts down waits for connections, and nothing moves on one without a call.
  client_.reset();
  if (cluster_ != nullptr) cluster_->Stop();
  std::unique_ptr<LocalCluster> stopped;
  absl::MutexLock lock(&mutex_);
  stopped = std::move(cluster_);
}

absl::Status PrivateCluster::Start(LocalClusterOptions options, OnFileProgress on_file) {
  options.bin_dir = BinDir();
  const auto on_failure = [abandon = abandon_]() mutable { abandon.request_stop(); };
  auto cluster = LocalCluster::Start(options, abandon_.get_token(), on_failure);
  if (!cluster.ok()) return Explain(cluster.status());
  {
    absl::MutexLock lock(&mutex_);
    cluster_ = *std::move(cluster);
  }
  ClientOptions client;
  client.address = cluster_->address();
  client.stop = abandon_.get_token();
  client.on_file = std::move(on_file);
  client.private_store = cluster_->artifacts();
  client.await_cluster = [this, workers = options.workers] { return WaitForWorkers(workers); };
  client_ = std::make_unique<ClusterClient>(std::move(client));
  return absl::OkStatus();
}

// The API has no stream of workers; they join within a second or two, and only here somebody waits for them.
absl::Status PrivateCluster::WaitForWorkers(int count) {
  const absl::Time deadline = absl::Now() + kJoinPatience;
  const auto idle = [](const v1::Worker& worker) { return worker.state() == v1::Worker::STATE_IDLE; };
  while (absl::Now() < deadline) {
    GPIPE_RETURN_IF_ERROR(cluster_->Failure());
    GPIPE_ASSIGN_OR_RETURN(const v1::ListWorkersResponse workers, client_->ListWorkers());
    if (std::count_if(workers.workers().begin(), workers.workers().end(), idle) >= count) return absl::OkStatus();
    if (!WaitUnlessStopped(abandon_.get_token(), kBetweenLooks)) return absl::CancelledError("interrupted");
  }
  return absl::DeadlineExceededError(
      absl::StrCat("not all of ", count, " workers joined; the end of the log of w0:\n", cluster_->LogTail("w0")));
}

void PrivateCluster::CancelOnInterrupt(const std::string& job) {
  bool too_late = false;
  {
    absl::MutexLock lock(&mutex_);
    job_ = job;
    too_late = interrupted_;
  }
  if (too_late) Cancel(cluster_->address(), job);
}

void PrivateCluster::OnSignal(int count) {
  std::string address, job;
  {
    absl::MutexLock lock(&mutex_);
    interrupted_ = true;
    job = job_;
    if (cluster_ != nullptr) address = cluster_->address();
    if (count > 1 && cluster_ != nullptr) cluster_->Kill();
  }
  if (count > 1 || job.empty()) {
    abandon_.request_stop();
  } else {
    Cancel(address, job);
  }
}

// With a client of its own: the other one's thread is busy watching. When cancelling fails because the job has just
// ended, the watcher sees that; when the orchestrator does not answer, nothing more is to be waited for.
void PrivateCluster::Cancel(const std::string& address, const std::string& job) {
  ClientOptions options;
  options.address = address;
  options.timeout = absl::Seconds(5);
  ClusterClient client(std::move(options));
  const absl::Status status = client.CancelJob(job).status();
  if (!status.ok() && !absl::IsFailedPrecondition(status)) abandon_.request_stop();
}

absl::Status PrivateCluster::Explain(const absl::Status& status) const {
  if (status.ok()) return status;
  absl::MutexLock lock(&mutex_);
  if (interrupted_) return absl::CancelledError("interrupted");
  const bool transport = absl::IsUnavailable(status) || absl::IsCancelled(status);
  if (!transport || cluster_ == nullptr) return status;
  const absl::Status failure = cluster_->Failure();
  return failure.ok() ? status : failure;
}

}  // namespace gpipe::client
