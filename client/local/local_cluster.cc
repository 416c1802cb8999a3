#include "client/local/local_cluster.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/api/cluster_client.h"
#include "common/status_macros.h"

namespace gpipe::client {
namespace {

namespace fs = std::filesystem;

constexpr char kOrchestrator[] = "orchestrator";
constexpr int kLogLines = 12;
constexpr absl::Duration kPatience = absl::Seconds(10);
constexpr absl::Duration kStartPatience = absl::Seconds(60);
// A lost worker's job is FAILED within 10 seconds; then that is how the run ends.
constexpr absl::Duration kVerdictPatience = absl::Seconds(15);

// Both ends of a pipe, closed with the object.
struct Pipe {
  ~Pipe() {
    CloseWriteEnd();
    if (fds[0] >= 0) close(fds[0]);
  }
  void CloseWriteEnd() {
    if (fds[1] >= 0) close(fds[1]);
    fds[1] = -1;
  }
  int fds[2] = {-1, -1};
};

// One line, without its end; empty when the other end closes first. CANCELLED or DEADLINE_EXCEEDED when none comes.
// The read end must not block.
absl::StatusOr<std::string> ReadLine(int fd, const std::stop_token& stop, absl::Duration patience) {
  const absl::Time deadline = absl::Now() + patience;
  Pipe wake;
  if (pipe2(wake.fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "cannot make", "a pipe");
  std::stop_callback on_stop(stop, [&wake] { wake.CloseWriteEnd(); });
  std::string line;
  while (true) {
    pollfd fds[] = {{fd, POLLIN, 0}, {wake.fds[0], POLLIN, 0}};
    const int64_t left = std::max<int64_t>(0, absl::ToInt64Milliseconds(deadline - absl::Now()));
    const int ready = poll(fds, 2, static_cast<int>(left));
    if (ready == 0) return absl::DeadlineExceededError("no answer");
    if (stop.stop_requested()) return absl::CancelledError("interrupted");
    char buffer[256];
    const ssize_t count = ready < 0 ? -1 : read(fd, buffer, sizeof(buffer));
    if (count == 0) return std::string();
    if (count < 0) continue;
    line.append(buffer, static_cast<size_t>(count));
    if (const size_t end = line.find('\n'); end != std::string::npos) return line.substr(0, end);
  }
}

std::string DeviceOf(const LocalClusterOptions& options, int worker) {
  return options.gpus == 0 ? "cpu" : absl::StrCat("cuda:", worker % options.gpus);
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalCluster>> LocalCluster::Start(const LocalClusterOptions& options,
                                                                  const std::stop_token& stop,
                                                                  std::function<void()> on_failure) {
  GPIPE_ASSIGN_OR_RETURN(TemporaryFolder folder, TemporaryFolder::Create("gpipe"));
  std::unique_ptr<LocalCluster> cluster(new LocalCluster(std::move(folder), std::move(on_failure)));
  GPIPE_RETURN_IF_ERROR(cluster->StartOrchestrator(options, stop));
  for (int i = 0; i < options.workers; ++i) GPIPE_RETURN_IF_ERROR(cluster->StartWorker(options, i));
  return cluster;
}

LocalCluster::LocalCluster(TemporaryFolder folder, std::function<void()> on_failure)
    : folder_(std::move(folder)), on_failure_(std::move(on_failure)) {}

LocalCluster::~LocalCluster() { Stop(); }

std::filesystem::path LocalCluster::StopAndKeep() {
  Stop();
  folder_.Keep();
  return folder_.path();
}

absl::Status LocalCluster::StartOrchestrator(const LocalClusterOptions& options, const std::stop_token& stop) {
  Pipe ready;
  if (pipe2(ready.fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "cannot make", "a pipe");
  ProcessOptions process;
  process.program = options.bin_dir / "gpipe-orchestrator";
  process.arguments = {
      "--listen", "127.0.0.1:0", "--state-dir", folder_.path() / "state", "--ready-fd", absl::StrCat(ready.fds[1])};
  process.inherited_fd = ready.fds[1];
  GPIPE_RETURN_IF_ERROR(StartChild(std::move(process), kOrchestrator));
  ready.CloseWriteEnd();
  absl::StatusOr<std::string> line = ReadLine(ready.fds[0], stop, kStartPatience);
  // An orchestrator that has closed its end without a word is about to end, and how says more.
  if (line.ok() && line->empty()) Children().front()->WaitFor(kPatience);
  GPIPE_RETURN_IF_ERROR(Failure());
  GPIPE_ASSIGN_OR_RETURN(address_, std::move(line));
  return address_.empty() ? absl::InternalError("the orchestrator does not say where it listens") : absl::OkStatus();
}

absl::Status LocalCluster::StartWorker(const LocalClusterOptions& options, int index) {
  const std::string name = absl::StrCat("w", index);
  ProcessOptions process;
  process.program = options.bin_dir / "gpipe-worker";
  process.arguments = {"--orchestrator",  address_,
                       "--name",          name,
                       "--device",        DeviceOf(options, index),
                       "--threads",       absl::StrCat(options.threads),
                       "--data-address",  "127.0.0.1",
                       "--work-dir",      folder_.path() / name,
                       "--artifacts-dir", artifacts(),
                       "--leave-within",  absl::StrCat(absl::ToInt64Seconds(kPatience) / 2)};
  if (!options.trace_dir.empty()) process.arguments.insert(process.arguments.end(), {"--trace-dir", options.trace_dir});
  return StartChild(std::move(process), name);
}

absl::Status LocalCluster::StartChild(ProcessOptions options, const std::string& name) {
  options.log = LogOf(name);
  options.unset = {"GPIPE_TLS_CA", "GPIPE_TLS_CERT", "GPIPE_TLS_KEY"};  // Of a standing cluster.
  options.on_exit = [this, name] { OnExit(name); };
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<ChildProcess> process, ChildProcess::Start(std::move(options)));
  absl::MutexLock lock(&mutex_);
  children_.push_back({name, std::move(process)});
  return absl::OkStatus();
}

void LocalCluster::OnExit(const std::string& name) {
  if (stopping_.HasBeenNotified()) return;
  {
    absl::MutexLock lock(&mutex_);
    if (first_ended_.empty()) first_ended_ = name;
  }
  if (name != kOrchestrator && stopping_.WaitForNotificationWithTimeout(kVerdictPatience)) return;
  absl::ReleasableMutexLock lock(&mutex_);
  if (std::exchange(failure_told_, true)) return;
  lock.Release();
  on_failure_();
}

absl::Status LocalCluster::Failure() const {
  std::string name, how;
  {
    absl::MutexLock lock(&mutex_);
    const auto ended = [this](const Child& child) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      // The very first moment after an end, OnExit has not named it yet.
      return first_ended_.empty() ? child.process->WaitFor(absl::ZeroDuration()) : child.name == first_ended_;
    };
    const auto child = std::find_if(children_.begin(), children_.end(), ended);
    if (child == children_.end()) return absl::OkStatus();
    name = child->name;
    how = child->process->HowItEnded();
  }
  const std::string tail = LogTail(name);
  return absl::InternalError(
      absl::StrCat(name, " ", how, tail.empty() ? " without a word" : "; the end of its log:\n", tail));
}

std::string LocalCluster::LogTail(const std::string& child) const {
  const absl::StatusOr<std::string> log = ReadFile(LogOf(child));
  if (!log.ok()) return "";
  std::vector<std::string> lines = absl::StrSplit(*log, '\n', absl::SkipEmpty());
  const size_t skipped = lines.size() - std::min<size_t>(lines.size(), kLogLines);
  return absl::StrJoin(lines.begin() + static_cast<ptrdiff_t>(skipped), lines.end(), "\n");
}

absl::Status LocalCluster::CopyLogs(const fs::path& folder) const {
  std::error_code error;
  fs::create_directories(folder, error);
  for (const auto& entry : fs::directory_iterator(folder_.path(), error)) {
    if (error || entry.path().extension() != ".log") continue;
    fs::copy_file(entry.path(), folder / entry.path().filename(), fs::copy_options::overwrite_existing, error);
  }
  return error ? ErrnoStatus(error.value(), "cannot copy logs to", folder) : absl::OkStatus();
}

std::vector<ChildProcess*> LocalCluster::Children() const {
  absl::MutexLock lock(&mutex_);
  std::vector<ChildProcess*> children;
  for (const Child& child : children_) children.push_back(child.process.get());
  return children;
}

void LocalCluster::Stop() {
  if (!stopping_.HasBeenNotified()) stopping_.Notify();
  const std::vector<ChildProcess*> children = Children();
  if (children.empty()) return;
  // All workers at once: each ends its session while the orchestrator is there to take its leave.
  const absl::Time deadline = absl::Now() + kPatience;
  for (size_t i = 1; i < children.size(); ++i) children[i]->Signal(SIGTERM);
  for (size_t i = 1; i < children.size(); ++i) {
    if (!children[i]->WaitFor(deadline - absl::Now())) children[i]->Stop(absl::ZeroDuration());
  }
  children.front()->Stop(kPatience);
}

void LocalCluster::Kill() {
  for (ChildProcess* child : Children()) child->Signal(SIGKILL);
}

}  // namespace gpipe::client
