#include "pipeline/steps.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

namespace gpipe::pipeline {
namespace {

// What the SENDs or RECVs of one transfer have in common.
using TransferKey = std::tuple<ActionKind, int, int, int>;

TransferKey KeyOf(const std::vector<Edge>& edges, const Action& action) {
  const Edge& edge = edges[action.edge];
  return {action.kind, action.micro_batch, edge.from_stage, edge.to_stage};
}

}  // namespace

std::vector<Step> JoinTransfers(const std::vector<Edge>& edges, const std::vector<Action>& row) {
  std::vector<Step> steps;
  std::map<TransferKey, size_t> places;  // Among the steps, of the transfers that stand together here.
  for (const Action& action : row) {
    if (!IsTransfer(action.kind)) {
      steps.push_back({action, {}});
      places.clear();
      continue;
    }
    const auto [place, is_new] = places.try_emplace(KeyOf(edges, action), steps.size());
    if (is_new) steps.push_back({action, {}});
    steps[place->second].edges.push_back(action.edge);
  }
  for (Step& step : steps) std::ranges::sort(step.edges);
  return steps;
}

std::optional<Action> FindApart(const std::vector<Edge>& edges, const std::vector<Step>& steps) {
  std::set<TransferKey> known;
  for (const Step& step : steps) {
    if (IsTransfer(step.action.kind) && !known.insert(KeyOf(edges, step.action)).second) return step.action;
  }
  return std::nullopt;
}

}  // namespace gpipe::pipeline
