#include "worker/data/read_ahead.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAFunctions.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "worker/torch_status.h"

namespace gpipe::worker {

ReadAhead::ReadAhead(std::unique_ptr<DataSource> source, NextRound next, c10::Device device)
    : source_(std::move(source)), device_(device), thread_([this, next = std::move(next)] { Loop(next); }) {}

ReadAhead::~ReadAhead() {
  ready_.Close();
  thread_.join();
}

void ReadAhead::Loop(const NextRound& next) {
  SetThreadName("data-reader");
  while (std::optional<Ready> ready = ReadNext(next)) {
    const bool ends = !ready->batch.ok();
    if (!first_read_.HasBeenNotified()) {
      first_ = ready->batch.status();
      first_read_.Notify();
    }
    if (!ready_.Push(*std::move(ready)) || ends) break;
  }
  ready_.Close();                                            // What is ready can still be taken.
  if (!first_read_.HasBeenNotified()) first_read_.Notify();  // There was nothing to read.
}

std::optional<ReadAhead::Ready> ReadAhead::ReadNext(const NextRound& next) {
  while (true) {
    absl::StatusOr<std::optional<pipeline::Round>> round = next();
    if (!round.ok()) return Ready{.batch = round.status()};
    if (!round->has_value()) return std::nullopt;
    if (pipeline::ComputesNothing((*round)->kind)) continue;
    absl::StatusOr<Batch> batch = CatchTorch([&]() -> absl::StatusOr<Batch> {
      if (device_.is_cuda()) c10::cuda::set_device(device_.index());  // Pinned memory is that device's.
      return source_->Read(**round);
    });
    return Ready{.round = (*round)->index, .batch = std::move(batch)};
  }
}

absl::Status ReadAhead::WaitForFirst() {
  first_read_.WaitForNotification();
  return first_;
}

absl::StatusOr<ReadAhead::Taken> ReadAhead::Take(const pipeline::Round& round) {
  const absl::Time begin = absl::Now();
  std::optional<Ready> ready = ready_.Pop();
  Taken taken{.batch = {}, .waited = absl::Now() - begin};
  if (ready) GPIPE_RETURN_IF_ERROR(ready->batch.status());
  if (!ready || ready->round != round.index) {
    return absl::InternalError(absl::StrCat("the data of round ", round.index, " was asked for out of its turn"));
  }
  return CatchTorch([&]() -> absl::StatusOr<Taken> {
    for (const auto& [value, rows] : ready->batch->inputs) taken.batch.inputs[value] = ToDevice(rows);
    for (const auto& [value, whole] : ready->batch->whole) taken.batch.whole[value] = KeptOnDevice(whole);
    taken.batch.target = ToDevice(ready->batch->target);
    return std::move(taken);
  });
}

at::Tensor ReadAhead::ToDevice(const at::Tensor& rows) const {
  if (!rows.defined() || device_.is_cpu()) return rows;
  return rows.to(device_, /*non_blocking=*/true);
}

at::Tensor ReadAhead::KeptOnDevice(const at::Tensor& whole) {
  at::Tensor& kept = kept_[whole.unsafeGetTensorImpl()];
  if (!kept.defined()) kept = ToDevice(whole);
  return kept;
}

}  // namespace gpipe::worker
