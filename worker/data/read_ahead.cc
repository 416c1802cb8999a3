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

ReadAhead::ReadAhead(std::unique_ptr<DataSource> source, const pipeline::TimelineSpec& timeline, c10::Device device)
    : source_(std::move(source)),
      device_(device),
      thread_([this, timeline] { Loop(pipeline::RoundCursor(timeline)); }) {}

ReadAhead::~ReadAhead() {
  ready_.Close();
  thread_.join();
}

void ReadAhead::Loop(pipeline::RoundCursor cursor) {
  SetThreadName("data-reader");
  const absl::Status set_up = CatchTorch([&]() -> absl::Status {
    if (device_.is_cuda()) c10::cuda::set_device(device_.index());  // Pinned memory is that device's.
    return absl::OkStatus();
  });
  while (const std::optional<pipeline::Round> round = cursor.Next()) {
    if (round->kind == pipeline::RoundKind::kCheckpoint) continue;
    absl::StatusOr<Batch> batch = set_up.ok() ? source_->Read(*round) : absl::StatusOr<Batch>(set_up);
    const bool ends = !batch.ok();
    if (!first_read_.HasBeenNotified()) {
      first_ = batch.status();
      first_read_.Notify();
    }
    if (!ready_.Push({.round = round->index, .batch = std::move(batch)}) || ends) break;
  }
  ready_.Close();                                            // What is ready can still be taken.
  if (!first_read_.HasBeenNotified()) first_read_.Notify();  // There was nothing to read.
}

absl::Status ReadAhead::WaitForFirst() {
  first_read_.WaitForNotification();
  return first_;
}

absl::StatusOr<ReadAhead::Taken> ReadAhead::Take(const pipeline::Round& round) {
  const absl::Time begin = absl::Now();
  std::optional<Ready> ready = ready_.Pop();
  Taken taken{.batch = {}, .waited = absl::Now() - begin};
  if (!ready || ready->round != round.index) {
    return absl::InternalError(absl::StrCat("the data of round ", round.index, " was asked for out of its turn"));
  }
  GPIPE_RETURN_IF_ERROR(ready->batch.status());
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
