#include "common/plan/shared_tensors.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

namespace gpipe {

std::vector<SharedTensor> SharedTensors(const v1::Plan& plan) {
  std::map<std::string, SharedTensor> users;
  for (int stage = 0; stage < plan.stages_size(); ++stage) {
    const int first = plan.stages(stage).first_layer();
    for (int layer = first; layer < first + plan.stages(stage).layer_count(); ++layer) {
      for (const v1::ModelTensor& tensor : plan.layers(layer).tensors()) {
        SharedTensor& shared = users.emplace(tensor.name(), SharedTensor{&tensor, {}}).first->second;
        const int worker = plan.stage_worker(stage);  // Ascending.
        if (shared.workers.empty() || shared.workers.back() != worker) shared.workers.push_back(worker);
      }
    }
  }
  std::vector<SharedTensor> result;
  for (auto& [name, shared] : users) {
    if (shared.workers.size() > 1) result.push_back(std::move(shared));
  }
  return result;
}

bool SharesGradients(const v1::Plan& plan) {
  const std::vector<SharedTensor> shared = SharedTensors(plan);
  return std::any_of(shared.begin(), shared.end(), [](const SharedTensor& one) { return one.tensor->trainable(); });
}

}  // namespace gpipe
