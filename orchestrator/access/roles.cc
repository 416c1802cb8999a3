#include "orchestrator/access/roles.h"

#include <algorithm>
#include <iterator>

namespace gpipe::orchestrator {
namespace {

// The table of docs/security.md. Those that change nothing need `read`; PlanJob changes nothing either, but has workers
// measure. What tells only that an orchestrator is there, and which, is for everybody: so are gRPC's services of health
// and reflection, which no rule is asked about.
constexpr Rule kRules[] = {
    {"/gpipe.v1.JobService/GetJob", Role::kRead},
    {"/gpipe.v1.JobService/ListJobs", Role::kRead},
    {"/gpipe.v1.JobService/WatchJob", Role::kRead},
    {"/gpipe.v1.JobService/ListJobEvents", Role::kRead},
    {"/gpipe.v1.JobService/ListJobMetrics", Role::kRead},
    {"/gpipe.v1.JobService/PlanJob", Role::kSubmit},
    {"/gpipe.v1.JobService/SubmitJob", Role::kSubmit},
    {"/gpipe.v1.JobService/CancelJob", Role::kSubmit},
    {"/gpipe.v1.JobService/PauseJob", Role::kSubmit},
    {"/gpipe.v1.JobService/CheckpointJob", Role::kSubmit},
    {"/gpipe.v1.JobService/ResumeJob", Role::kSubmit},
    {"/gpipe.v1.JobService/DeleteJob", Role::kSubmit},
    {"/gpipe.v1.ArtifactService/FindMissingArtifacts", Role::kSubmit, true},
    {"/gpipe.v1.ArtifactService/UploadArtifact", Role::kSubmit, true},
    {"/gpipe.v1.ArtifactService/DownloadArtifact", Role::kRead, true},
    {"/gpipe.v1.ClusterService/ListWorkers", Role::kRead},
    {"/gpipe.v1.ClusterService/GetVersion", Role::kNone},
    {"/gpipe.v1.ClusterService/DrainWorker", Role::kAdmin},
    {"/gpipe.v1.ClusterService/UndrainWorker", Role::kAdmin},
    {"/gpipe.v1.MonitoringService/WatchCluster", Role::kRead},
    {"/gpipe.v1.MonitoringService/GetTimeline", Role::kRead},
    {"/gpipe.v1.RoundService/AskRounds", Role::kSubmit},
    {"/gpipe.v1.AdminService/BackUp", Role::kAdmin},
    {"/gpipe.v1.WorkerSessionService/Session", Role::kWorker},
};

struct Word {
  std::string_view text;
  Role role;
};
constexpr Word kWords[] = {
    {"read", Role::kRead}, {"submit", Role::kSubmit}, {"admin", Role::kAdmin}, {"worker", Role::kWorker}};

}  // namespace

std::optional<Role> ParseRole(std::string_view word) {
  const auto* found = std::ranges::find(kWords, word, &Word::text);
  return found == std::end(kWords) ? std::nullopt : std::optional(found->role);
}

std::string_view RoleName(Role role) {
  const auto* found = std::ranges::find(kWords, role, &Word::role);
  return found == std::end(kWords) ? "none" : found->text;
}

absl::Span<const Rule> AllRules() { return kRules; }

const Rule* RuleOf(std::string_view method) {
  const auto* found = std::ranges::find(kRules, method, &Rule::method);
  return found == std::end(kRules) ? nullptr : found;
}

bool Allows(const Rule& rule, Role role) {
  if (rule.least == Role::kNone) return true;
  if (role == Role::kWorker || rule.least == Role::kWorker) {
    return role == Role::kWorker && (rule.workers_too || rule.least == Role::kWorker);
  }
  return role >= rule.least;
}

std::string_view WhoMay(const Rule& rule) {
  switch (rule.least) {
    case Role::kNone:
      return "everybody";
    case Role::kRead:
      return rule.workers_too ? "read, submit, admin or worker" : "read, submit or admin";
    case Role::kSubmit:
      return rule.workers_too ? "submit, admin or worker" : "submit or admin";
    case Role::kAdmin:
      return "admin";
    case Role::kWorker:
      return "worker";
  }
  return "";
}

}  // namespace gpipe::orchestrator
