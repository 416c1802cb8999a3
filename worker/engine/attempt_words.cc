#include "worker/engine/attempt_words.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

namespace gpipe::worker {

std::string HostedStagesOf(const v1::Assignment& assignment) {
  const v1::Plan& plan = assignment.plan();
  std::vector<std::string> hosted;
  for (int stage = 0; stage < plan.stage_worker_size() && stage < plan.stages_size(); ++stage) {
    if (plan.stage_worker(stage) != assignment.worker_index()) continue;
    const int64_t first = plan.stages(stage).first_layer();
    hosted.push_back(absl::StrCat("stage ", stage, " of ", plan.stages_size(), " (layers ", first, " to ",
                                  first + plan.stages(stage).layer_count() - 1, ")"));
  }
  return absl::StrJoin(hosted, ", ");
}

std::string PeersOf(const v1::Assignment& assignment) {
  std::vector<std::string> names;
  for (int i = 0; i < assignment.peers_size(); ++i) {
    if (i != assignment.worker_index()) names.push_back(assignment.peers(i).name());
  }
  return absl::StrJoin(names, ", ");
}

std::string InSeconds(absl::Time begun) {
  return absl::StrFormat("in %.2f s", absl::ToDoubleSeconds(absl::Now() - begun));
}

std::string SizeOf(const Refs& files) {
  int64_t bytes = 0;
  for (const v1::ArtifactRef& file : files) bytes += file.size();
  return SizeOf(bytes);
}

std::string SizeOf(int64_t bytes) {
  const double value = static_cast<double>(bytes);
  return bytes < 100'000 ? absl::StrFormat("%.1f kB", value / 1e3) : absl::StrFormat("%.1f MB", value / 1e6);
}

}  // namespace gpipe::worker
