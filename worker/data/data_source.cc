#include "worker/data/data_source.h"

#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

// Steele, Lea and Flood's finaliser: every bit of the input reaches every bit of the output.
uint64_t SplitMix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t ShuffleSeed(uint64_t seed, int64_t epoch) {
  return SplitMix64(seed + SplitMix64(static_cast<uint64_t>(epoch)));
}

at::Tensor EpochOrder(int64_t samples, uint64_t seed, int64_t epoch) {
  return at::randperm(samples, at::detail::createCPUGenerator(ShuffleSeed(seed, epoch)), at::kLong);
}

absl::StatusOr<std::unique_ptr<DataSource>> DataSource::Create(const v1::JobSpec& spec, const FileResolver& files,
                                                               const DataRole& role, c10::Device device) {
  std::unique_ptr<DataSource> source(new DataSource(device));
  if (spec.has_infer()) {
    GPIPE_ASSIGN_OR_RETURN(source->samples_, SampleSet::Open(spec.infer(), files, role));
    return source;
  }
  const v1::Train& train = spec.train();
  GPIPE_ASSIGN_OR_RETURN(source->samples_, SampleSet::Open(train.dataset(), files, role));
  if (train.has_evaluate()) {
    GPIPE_ASSIGN_OR_RETURN(source->evaluation_, SampleSet::Open(train.evaluate().dataset(), files, role));
  }
  if (train.shuffle()) source->shuffle_seed_ = train.seed();
  return source;
}

absl::StatusOr<Batch> DataSource::Read(const pipeline::Round& round) {
  return CatchTorch([&]() -> absl::StatusOr<Batch> {
    const SampleSet& set = round.kind == pipeline::RoundKind::kEvaluate ? evaluation_ : samples_;
    Batch batch;
    for (const auto& [value, samples] : set.inputs()) {
      GPIPE_ASSIGN_OR_RETURN(batch.inputs[value], Rows(samples, round));
    }
    GPIPE_ASSIGN_OR_RETURN(batch.target, Rows(set.targets(), round));
    return batch;
  });
}

absl::StatusOr<at::Tensor> DataSource::Rows(const at::Tensor& samples, const pipeline::Round& round) {
  if (!samples.defined()) return at::Tensor();
  if (samples.dim() == 0 || round.first_sample + round.batch_size > samples.size(0)) {
    return absl::OutOfRangeError(absl::StrCat("the data set ends before sample ", round.first_sample + round.batch_size,
                                              ", which the plan has"));
  }
  return ToDevice(Gather(samples, round));
}

at::Tensor DataSource::Gather(const at::Tensor& samples, const pipeline::Round& round) {
  // A copy in every case: what is mapped from a file is neither aligned nor writable.
  if (round.kind != pipeline::RoundKind::kTrain || !shuffle_seed_) {
    return samples.narrow(0, round.first_sample, round.batch_size).clone();
  }
  if (order_epoch_ != round.epoch) {
    order_ = EpochOrder(samples.size(0), *shuffle_seed_, round.epoch);
    order_epoch_ = round.epoch;
  }
  return samples.index_select(0, order_.narrow(0, round.first_sample, round.batch_size));
}

at::Tensor DataSource::ToDevice(at::Tensor rows) const {
  if (device_.is_cpu()) return rows;
  return rows.pin_memory().to(device_, /*non_blocking=*/true);
}

}  // namespace gpipe::worker
