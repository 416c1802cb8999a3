#include "worker/data/data_source.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/mix64.h"
#include "common/status_macros.h"
#include "pipeline/step_number.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

// Whether whole numbers are in [0, limit), or `ignored`; all are when the limit is 0. What looks a wrong one up on CUDA
// ends the process, with a message that says nothing.
absl::Status CheckBelow(int64_t limit, std::optional<int64_t> ignored, const at::Tensor& rows, const char* what,
                        const pipeline::Round& round) {
  if (limit == 0 || !at::isIntegralType(rows.scalar_type(), /*includeBool=*/false)) return absl::OkStatus();
  const at::Tensor wide = rows.to(at::kLong);
  const absl::Span<const int64_t> values(wide.const_data_ptr<int64_t>(), static_cast<size_t>(wide.numel()));
  const auto bad = std::find_if(values.begin(), values.end(),
                                [&](int64_t value) { return (value < 0 || value >= limit) && value != ignored; });
  if (bad == values.end()) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat("the ", what, " ", *bad, " in the mini-batch of ", pipeline::NameOf(round),
                                            " is not in [0, ", limit, "), which the model has a place for"));
}

}  // namespace

uint64_t ShuffleSeed(uint64_t seed, int64_t epoch) { return Mix64(seed + Mix64(static_cast<uint64_t>(epoch))); }

at::Tensor EpochOrder(int64_t samples, uint64_t seed, int64_t epoch) {
  return at::randperm(samples, at::detail::createCPUGenerator(ShuffleSeed(seed, epoch)), at::kLong);
}

DataSource::DataSource(const v1::JobSpec& spec, const Options& options)
    : options_(options), ignored_(spec.train().loss().cross_entropy().ignore_index()) {}

absl::StatusOr<std::unique_ptr<DataSource>> DataSource::Create(const v1::JobSpec& spec, const FileResolver& files,
                                                               const DataRole& role, const Options& options) {
  std::unique_ptr<DataSource> source(new DataSource(spec, options));
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
    Batch batch{.inputs = {}, .whole = set.whole(), .target = {}};
    for (const auto& [value, samples] : set.inputs()) {
      GPIPE_ASSIGN_OR_RETURN(batch.inputs[value], Rows(*samples, round));
      const int64_t limit = options_.input_limit == 0 && set.tokens() ? options_.classes : options_.input_limit;
      GPIPE_RETURN_IF_ERROR(CheckBelow(limit, std::nullopt, batch.inputs[value], "input", round));
    }
    if (set.targets() == nullptr) return batch;
    GPIPE_ASSIGN_OR_RETURN(batch.target, Rows(*set.targets(), round));
    GPIPE_RETURN_IF_ERROR(CheckBelow(options_.classes, ignored_, batch.target, "target", round));
    return batch;
  });
}

absl::StatusOr<at::Tensor> DataSource::Rows(const Samples& samples, const pipeline::Round& round) {
  if (round.first_sample + round.batch_size > samples.size()) {
    return absl::OutOfRangeError(absl::StrCat("the data set ends before sample ", round.first_sample + round.batch_size,
                                              ", which the plan has"));
  }
  return samples.Gather(NumbersOf(round, samples.size()), options_.pinned);
}

std::vector<int64_t> DataSource::NumbersOf(const pipeline::Round& round, int64_t samples) {
  std::vector<int64_t> numbers(static_cast<size_t>(round.batch_size));
  const bool in_epoch = round.kind == pipeline::RoundKind::kTrain || round.kind == pipeline::RoundKind::kCheckLoss;
  if (!in_epoch || !shuffle_seed_) {
    std::iota(numbers.begin(), numbers.end(), round.first_sample);
    return numbers;
  }
  if (order_epoch_ != round.epoch) {
    order_ = EpochOrder(samples, *shuffle_seed_, round.epoch);
    order_epoch_ = round.epoch;
  }
  std::copy_n(order_.const_data_ptr<int64_t>() + round.first_sample, numbers.size(), numbers.begin());
  return numbers;
}

}  // namespace gpipe::worker
