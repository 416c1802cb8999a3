#include "orchestrator/scheduling/unreachable.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/address.h"
#include "common/printable.h"

namespace gpipe::orchestrator {
namespace {

// Of those who cannot reach a worker, so many are quoted.
constexpr size_t kQuoted = 3;

}  // namespace

std::vector<UnreachableReports::Candidate> UnreachableReports::FromRegistry(WorkerRegistry& registry,
                                                                            const std::vector<std::string>& names) {
  std::vector<Candidate> candidates;
  for (const std::string& name : names) {
    Candidate& candidate = candidates.emplace_back(Candidate{.name = name, .data_address = {}});
    const WorkerEntry* worker = registry.Find(name);
    if (worker == nullptr) continue;
    candidate.data_address = worker->hello.data_address();
    candidate.was_reached = worker->was_reached;
  }
  return candidates;
}

void UnreachableReports::Add(int reporter, const v1::Failed& failed, int workers) {
  if (!failed.has_unreachable_peer()) return;
  const int peer = failed.unreachable_peer();
  if (peer < 0 || peer >= workers) return;
  reports_.push_back({.reporter = reporter, .peer = peer, .message = Printable(failed.status().message())});
}

bool UnreachableReports::certain() const {
  return std::ranges::any_of(reports_, [](const Report& report) { return report.reporter == report.peer; });
}

int UnreachableReports::AtFault(const Report& report, const std::vector<Candidate>& workers) const {
  const Candidate &reporter = workers[report.reporter], &peer = workers[report.peer];
  if (report.reporter == report.peer) return report.peer;
  if (IsLoopback(peer.data_address) && !IsLoopback(reporter.data_address)) return report.peer;
  if (workers.size() == 2) return peer.was_reached && !reporter.was_reached ? report.reporter : report.peer;
  const auto names_it = [&](const Report& other) { return other.peer == report.peer; };
  const size_t votes = std::ranges::count_if(reports_, names_it), others = workers.size() - 1;
  return 2 * votes > others ? report.peer : report.reporter;
}

std::vector<UnreachableWorker> UnreachableReports::Judge(const std::vector<Candidate>& workers) const {
  std::set<int> at_fault;
  for (const Report& report : reports_) {
    // Who cannot use its own address has ended the attempt before others could try.
    if (!certain() || report.reporter == report.peer) at_fault.insert(AtFault(report, workers));
  }
  std::vector<UnreachableWorker> unreachable;
  for (const int index : at_fault) unreachable.push_back({.index = index, .why = Describe(index, workers)});
  return unreachable;
}

std::string UnreachableReports::Describe(int index, const std::vector<Candidate>& workers) const {
  std::vector<std::string> quoted;
  for (const Report& report : reports_) {
    if (report.reporter == index && report.peer == index) return report.message;
    if (report.peer == index && quoted.size() < kQuoted) {
      quoted.push_back(absl::StrCat(workers[report.reporter].name, ": ", report.message));
    }
  }
  if (!quoted.empty()) {
    return absl::StrCat("peers cannot connect to its data address ", workers[index].data_address, " (",
                        absl::StrJoin(quoted, "; "), ")");
  }
  const auto own = std::ranges::find_if(reports_, [&](const Report& report) { return report.reporter == index; });
  const Candidate& peer = workers[own->peer];
  return absl::StrCat("it cannot connect to ", peer.name, " at ", peer.data_address, ", as others can (", own->message,
                      ")");
}

}  // namespace gpipe::orchestrator
