#include "worker/engine/round_plan.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/plan/convert.h"
#include "common/plan/evaluation.h"
#include "common/status_macros.h"
#include "pipeline/transfers.h"

namespace gpipe::worker {
namespace {

std::string Describe(v1::ProgramKind kind, int64_t batch_size) {
  return absl::StrCat(v1::ProgramKind_Name(kind), " program for ", batch_size, " samples");
}

absl::StatusOr<WorkerProgram> RowOf(const v1::Program& program, int worker) {
  const std::string name = Describe(program.kind(), program.batch_size());
  if (worker < 0 || worker >= program.rows_size()) {
    return absl::InvalidArgumentError(absl::StrCat("the ", name, " has no row for worker ", worker));
  }
  WorkerProgram result;
  result.kind = program.kind();
  result.batch_size = program.batch_size();
  int64_t offset = 0;
  for (int64_t size : program.micro_batch_sizes()) {
    result.micro_batch_sizes.push_back(size);
    result.offsets.push_back(offset);
    offset += size;
  }
  if (offset != program.batch_size()) {
    return absl::InvalidArgumentError(absl::StrCat("the micro-batches of the ", name, " add up to ", offset));
  }
  result.cycles = program.cycles();
  const auto unknown = std::ranges::find_if(program.rows(worker).actions(),
                                            [](const v1::Action& action) { return !FromProto(action.kind()); });
  if (unknown != program.rows(worker).actions().end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ", name, " has an action of an unknown kind (", unknown->kind(), "), as of a newer version"));
  }
  return result;
}

// The plan's, by the number that actions have for them.
std::vector<pipeline::Edge> EdgesByNumber(const v1::Plan& plan) {
  std::vector<pipeline::Edge> edges;
  for (int i = 0; i < CountEdges(plan); ++i) {
    const v1::Edge& edge = EdgeAt(plan, i);
    edges.push_back({edge.value(), edge.from_stage(), edge.to_stage(), edge.requires_grad()});
  }
  return edges;
}

// Whether an action names a micro-batch, an edge and a stage that are there, so that nothing later looks them up in
// vain.
bool Possible(const pipeline::Action& action, const v1::Plan& plan, const std::vector<pipeline::Edge>& edges,
              int micro_batches, int worker) {
  const bool in_batch = action.micro_batch >= 0 && action.micro_batch < micro_batches;
  if (pipeline::HasMicroBatch(action.kind) && !in_batch) return false;
  if (pipeline::IsTransfer(action.kind)) {
    if (action.edge < 0 || std::cmp_greater_equal(action.edge, edges.size())) return false;
    if (pipeline::StageOfTransfer(edges[action.edge], action.kind) != action.stage) return false;
  }
  return action.stage >= 0 && action.stage < plan.stage_worker_size() && plan.stage_worker(action.stage) == worker;
}

absl::Status CheckActions(const v1::Plan& plan, const std::vector<pipeline::Edge>& edges, const v1::Program& program,
                          const std::vector<pipeline::Action>& row, int worker) {
  for (const pipeline::Action& action : row) {
    if (Possible(action, plan, edges, program.micro_batch_sizes_size(), worker)) continue;
    return absl::InvalidArgumentError(absl::StrCat("the ", Describe(program.kind(), program.batch_size()),
                                                   " has an impossible action ", pipeline::ToString(action),
                                                   " for worker ", worker));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Step>> StepsOf(const std::vector<pipeline::Edge>& edges,
                                          const std::vector<pipeline::Action>& row) {
  std::vector<Step> steps = pipeline::JoinTransfers(edges, row);
  const std::optional<pipeline::Action> apart = pipeline::FindApart(edges, steps);
  if (!apart) return steps;
  return absl::InvalidArgumentError(absl::StrCat(
      pipeline::ToString(*apart), " is apart from other values of its micro-batch between the same stages"));
}

// What everything else in the engine takes for granted.
absl::Status CheckPlan(const v1::Plan& plan) {
  const int stages = plan.stages_size();
  if (stages < 1 || plan.stage_worker_size() != stages || plan.layers_size() < stages) {
    return absl::InvalidArgumentError(absl::StrCat("the plan has ", stages, " stages, ", plan.stage_worker_size(),
                                                   " of them placed, and ", plan.layers_size(), " layers"));
  }
  for (int i = 0; i < CountEdges(plan); ++i) {
    const v1::Edge& edge = EdgeAt(plan, i);
    if (edge.from_stage() >= 0 && edge.from_stage() < edge.to_stage() && edge.to_stage() < stages) continue;
    return absl::InvalidArgumentError(absl::StrCat("the plan's edge ", edge.value(), " goes from stage ",
                                                   edge.from_stage(), " to ", edge.to_stage(), " of ", stages));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ProgramTable> ProgramTable::Create(const v1::Plan& plan, int worker) {
  GPIPE_RETURN_IF_ERROR(CheckPlan(plan));
  ProgramTable table(plan, worker);
  GPIPE_RETURN_IF_ERROR(table.Add(plan.programs()));
  return table;
}

absl::Status ProgramTable::Add(const google::protobuf::RepeatedPtrField<v1::Program>& programs) {
  const std::vector<pipeline::Edge> edges = EdgesByNumber(*plan_);
  for (const v1::Program& program : programs) {
    GPIPE_ASSIGN_OR_RETURN(WorkerProgram made, RowOf(program, worker_));
    const std::vector<pipeline::Action> row = FromProto(program.rows(worker_));
    GPIPE_RETURN_IF_ERROR(CheckActions(*plan_, edges, program, row, worker_));
    GPIPE_ASSIGN_OR_RETURN(made.row, StepsOf(edges, row));
    programs_.push_back(std::move(made));
  }
  return absl::OkStatus();
}

absl::StatusOr<RoundPlan> ProgramTable::Find(const v1::Round& told) const {
  const std::optional<pipeline::Round> round = FromProto(told);
  if (!round) return absl::InternalError(absl::StrCat("round ", told.index(), " is of an unknown kind"));
  if (pipeline::ComputesNothing(round->kind)) return RoundPlan{*round, told, &nothing_};
  const v1::ProgramKind kind = ProgramKindOf(round->kind);
  const bool there = told.program() >= 0 && std::cmp_less(told.program(), programs_.size());
  const WorkerProgram* program = there ? &programs_[told.program()] : nullptr;
  if (!there || program->kind != kind || program->batch_size != round->batch_size) {
    return absl::InternalError(absl::StrCat("round ", told.index(), " needs a ", Describe(kind, round->batch_size),
                                            ", and the plan's program ", told.program(), " is none"));
  }
  return RoundPlan{*round, told, program};
}

}  // namespace gpipe::worker
