#include "orchestrator/planning/statistics_check.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/status_macros.h"
#include "orchestrator/planning/planner.h"
#include "orchestrator/planning/programs.h"
#include "pipeline/schedule.h"

namespace gpipe::orchestrator {
namespace {

// The layer whose batch normalisation needs the most samples, and how many.
struct Need {
  int64_t samples = 1;
  std::string layer;
};

// Samples that make more than one value of `count`; 0 where none do.
int64_t SamplesFor(const v1::Dimension& count) {
  if (count.fixed() + count.per_sample() > 1) return 1;
  return count.per_sample() > 0 ? (1 - count.fixed()) / count.per_sample() + 1 : 0;
}

Need NeedOf(const std::vector<v1::LayerInfo>& layers) {
  Need need;
  for (size_t i = 0; i < layers.size(); ++i) {
    for (const v1::Dimension& count : layers[i].values_per_channel()) {
      const int64_t samples = SamplesFor(count);
      if (samples <= need.samples) continue;
      need = {samples,
              absl::StrCat("layer ", i, layers[i].kind().empty() ? "" : absl::StrCat(" (", layers[i].kind(), ")"))};
    }
  }
  return need;
}

std::string Why(const Need& need, int64_t micro_batch) {
  return absl::StrCat("makes a micro-batch of ", micro_batch, micro_batch == 1 ? " sample" : " samples",
                      ", and the batch normalisation of ", need.layer,
                      " needs more than one value per channel, that is at least ", need.samples, " samples");
}

// Of a full mini-batch, or of the rest of the data set.
absl::Status Refuse(const v1::JobSpec& spec, const Need& need, int64_t size, int64_t micro_batch) {
  const int64_t batch_size = spec.train().batch_size(), chunks = size / need.samples;
  const std::string fewer = absl::StrCat("pipeline.chunks of at most ", chunks);
  if (size < batch_size) {
    return FieldError(
        "train.batch_size",
        absl::StrCat("leaves a last mini-batch of ", size, " samples, which ", Why(need, micro_batch),
                     "; set train.drop_last, use another batch size", chunks > 0 ? absl::StrCat(", or ", fewer) : ""));
  }
  if (chunks == 0) {
    return FieldError("train.batch_size", absl::StrCat(Why(need, micro_batch), "; use one of at least ", need.samples));
  }
  return FieldError("pipeline.chunks",
                    absl::StrCat(Why(need, micro_batch), "; use ", fewer, ", or a larger train.batch_size"));
}

}  // namespace

absl::Status CheckStatistics(const v1::JobSpec& spec, const InputFacts& facts,
                             const std::vector<v1::LayerInfo>& layers) {
  if (!spec.has_train()) return absl::OkStatus();
  for (const int64_t size : TrainingSizes(TimelineOf(spec, facts))) {
    GPIPE_RETURN_IF_ERROR(CheckStatistics(spec, size, layers));
  }
  return absl::OkStatus();
}

absl::Status CheckStatistics(const v1::JobSpec& spec, int64_t batch_size, const std::vector<v1::LayerInfo>& layers) {
  const Need need = NeedOf(layers);
  if (need.samples <= 1) return absl::OkStatus();
  const std::vector<int64_t> sizes = pipeline::MicroBatchSizes(batch_size, spec.pipeline().chunks());
  const int64_t smallest = *std::ranges::min_element(sizes);
  return smallest < need.samples ? Refuse(spec, need, batch_size, smallest) : absl::OkStatus();
}

}  // namespace gpipe::orchestrator
