#include "client/local/process.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/logging.h"

namespace gpipe::client {
namespace {

constexpr int kExecFailed = 127;

// Everything the child needs, made before the fork: between fork and exec nothing may allocate or lock.
struct ChildPlan {
  std::vector<char*> argv, environment;
  int log_fd = -1;
  int null_fd = -1;
  int inherited_fd = -1;
  pid_t parent = 0;
};

void RestoreSignals() {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT}) ::signal(signal, SIG_DFL);
}

[[noreturn]] void RunChild(const ChildPlan& plan) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != plan.parent) _exit(kExecFailed);  // We died before the line above.
  RestoreSignals();
  dup2(plan.null_fd, STDIN_FILENO);
  dup2(plan.log_fd, STDOUT_FILENO);
  dup2(plan.log_fd, STDERR_FILENO);
  close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
  if (plan.inherited_fd >= 0) fcntl(plan.inherited_fd, F_SETFD, 0);
  execve(plan.argv[0], plan.argv.data(), plan.environment.data());
  _exit(kExecFailed);
}

std::vector<char*> Argv(std::string& program, std::vector<std::string>& arguments) {
  std::vector<char*> argv = {program.data()};
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  return argv;
}

// Ours, but for some variables.
std::vector<char*> Environment(const std::vector<std::string>& unset) {
  std::vector<char*> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text(*variable);
    const std::string_view name = text.substr(0, text.find('='));
    if (std::find(unset.begin(), unset.end(), name) == unset.end()) variables.push_back(*variable);
  }
  variables.push_back(nullptr);
  return variables;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildProcess>> ChildProcess::Start(ProcessOptions options) {
  std::string program = options.program.string();
  if (access(program.c_str(), X_OK) != 0) return ErrnoStatus(errno, "cannot start", options.program);
  ChildPlan plan;
  plan.argv = Argv(program, options.arguments);
  plan.environment = Environment(options.unset);
  plan.inherited_fd = options.inherited_fd;
  plan.parent = getpid();
  plan.log_fd = open(options.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (plan.log_fd < 0) return ErrnoStatus(errno, "cannot write", options.log);
  plan.null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t pid = fork();
  const int error = errno;
  if (pid == 0) RunChild(plan);
  close(plan.log_fd);
  close(plan.null_fd);
  if (pid < 0) return ErrnoStatus(error, "cannot start", options.program);
  return std::unique_ptr<ChildProcess>(new ChildProcess(pid, std::move(options.on_exit)));
}

ChildProcess::ChildProcess(pid_t pid, std::function<void()> on_exit)
    : pid_(pid), on_exit_(std::move(on_exit)), waiter_([this] { Reap(); }) {}

ChildProcess::~ChildProcess() {
  Signal(SIGKILL);
  waiter_.join();
}

// The child stays a zombie, and its number its own, until it is taken under the lock: so Signal never hits another.
void ChildProcess::Reap() {
  SetThreadName("child-waiter");
  siginfo_t info;
  while (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  {
    absl::MutexLock lock(&mutex_);
    while (waitpid(pid_, &wait_status_, 0) < 0 && errno == EINTR) {
    }
    ended_ = true;
  }
  if (on_exit_) on_exit_();
}

void ChildProcess::Signal(int signal) {
  absl::MutexLock lock(&mutex_);
  if (!ended_) kill(pid_, signal);
}

bool ChildProcess::WaitFor(absl::Duration duration) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(this, &ChildProcess::EndedLocked), duration);
}

void ChildProcess::Stop(absl::Duration patience) {
  Signal(SIGTERM);
  if (WaitFor(patience)) return;
  Signal(SIGKILL);
  WaitFor(absl::InfiniteDuration());
}

std::string ChildProcess::HowItEnded() const {
  absl::MutexLock lock(&mutex_);
  if (!ended_) return "runs";
  if (WIFSIGNALED(wait_status_)) {
    const int signal = WTERMSIG(wait_status_);
    return absl::StrCat("was killed by signal ", signal, " (", strsignal(signal), ")");
  }
  return absl::StrCat("ended with ", WEXITSTATUS(wait_status_));
}

}  // namespace gpipe::client
