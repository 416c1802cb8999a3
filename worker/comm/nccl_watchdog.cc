#include "worker/comm/nccl_watchdog.h"

#include <cstdlib>
#include <utility>

#include "absl/synchronization/notification.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "spdlog/spdlog.h"

namespace gpipe::worker {
namespace {

constexpr absl::Duration kLookEvery = absl::Milliseconds(100);
constexpr absl::Duration kAbortTimeout = absl::Seconds(30);

}  // namespace

NcclWatchdog::NcclWatchdog(std::vector<NcclComm*> comms, std::function<void(const absl::Status&)> on_error)
    : comms_(std::move(comms)), on_error_(std::move(on_error)), thread_([this] { Run(); }) {}

NcclWatchdog::~NcclWatchdog() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

void NcclWatchdog::AbortAll() {
  absl::MutexLock lock(&mutex_);
  abort_ = true;
}

void NcclWatchdog::Run() {
  SetThreadName("nccl-watchdog");
  bool abort = false;
  bool stop = false;
  while (!abort && !stop) {
    Pause(&abort, &stop);
    const absl::Status error = abort || stop ? absl::OkStatus() : FirstError();
    if (error.ok()) continue;
    on_error_(error);
    abort = true;
  }
  if (abort) AbortWithinDeadline();
}

void NcclWatchdog::AbortWithinDeadline() {
  absl::Notification aborted;
  std::thread aborter([&] {
    NcclComm::AbortAll(comms_);
    aborted.Notify();
  });
  if (!aborted.WaitForNotificationWithTimeout(kAbortTimeout)) {
    spdlog::critical("NCCL did not abort within {}: ending this process", absl::FormatDuration(kAbortTimeout));
    std::abort();
  }
  aborter.join();
}

void NcclWatchdog::Pause(bool* abort, bool* stop) {
  absl::MutexLock lock(&mutex_);
  const auto told = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || abort_; };
  mutex_.AwaitWithTimeout(absl::Condition(&told), kLookEvery);
  *abort = abort_;
  *stop = stop_;
}

absl::Status NcclWatchdog::FirstError() {
  for (NcclComm* comm : comms_) GPIPE_RETURN_IF_ERROR(comm->AsyncError());
  return absl::OkStatus();
}

}  // namespace gpipe::worker
