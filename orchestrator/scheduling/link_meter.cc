#include "orchestrator/scheduling/link_meter.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/attempt_id.h"
#include "common/grpc_status.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

// Also refuses what is no number.
bool IsSpeed(const v1::LinkSpeed& link) { return link.latency_seconds() >= 0 && link.bytes_per_second() > 0; }

}  // namespace

std::optional<Links> LinkMeter::Find(const std::vector<v1::Hello>& workers) const {
  Links links;
  for (size_t i = 0; i + 1 < workers.size(); ++i) {
    const auto known = known_.find({workers[i].incarnation(), workers[i + 1].incarnation()});
    if (known == known_.end()) return std::nullopt;
    links.push_back(known->second);
  }
  return links;
}

void LinkMeter::Measure(std::string_view job, const std::vector<WorkerEntry*>& workers, Callback done) {
  const int number = next_++;
  v1::MeasureLinks request;
  request.mutable_attempt()->set_job(absl::StrCat(AbslView(job), "/links"));
  request.mutable_attempt()->set_attempt(number);
  request.set_workers(static_cast<int>(workers.size()));
  std::vector<std::string> names, incarnations;
  for (const WorkerEntry* worker : workers) {
    names.push_back(worker->name());
    incarnations.push_back(worker->hello.incarnation());
  }
  RendezvousRelay rendezvous(request.attempt(), [this, names](int index, v1::OrchestratorMessage message) {
    SendTo(names[index], std::move(message));
  });
  const EventLoop::TimerId deadline = loop_->PostAfter(kTimeout, [this, number] { OnLate(number); });
  auto [entry, added] = running_.emplace(number, Measurement{.id = request.attempt(),
                                                             .workers = names,
                                                             .incarnations = incarnations,
                                                             .rendezvous = std::move(rendezvous),
                                                             .done = std::move(done),
                                                             .held = {},
                                                             .measured = {},
                                                             .result = {},
                                                             .deadline = deadline});
  for (int i = 0; i < request.workers(); ++i) {
    entry->second.held.insert(i);
    request.set_worker_index(i);
    cluster_->Assign(*workers[i], request);
  }
}

bool LinkMeter::Has(const v1::AttemptId& attempt) const {
  const auto found = running_.find(attempt.attempt());
  return found != running_.end() && SameAttempt(found->second.id, attempt);
}

int LinkMeter::IndexOf(const Measurement& measurement, const WorkerEntry& worker) {
  const auto found = std::find(measurement.workers.begin(), measurement.workers.end(), worker.name());
  return static_cast<int>(found - measurement.workers.begin());
}

void LinkMeter::SendTo(const std::string& worker, v1::OrchestratorMessage message) {
  if (const WorkerEntry* entry = cluster_->registry().Find(worker)) cluster_->Send(*entry, std::move(message));
}

void LinkMeter::OnMessage(const WorkerEntry& worker, const v1::WorkerMessage& message) {
  Measurement& measurement = Of(worker);
  const int index = IndexOf(measurement, worker);
  if (message.has_released()) return OnGone(measurement, index, absl::InternalError("a worker let go by itself"));
  if (measurement.result.has_value()) return;
  switch (message.message_case()) {
    case v1::WorkerMessage::kRendezvousPut:
      if (absl::Status put = measurement.rendezvous.OnPut(message.rendezvous_put()); !put.ok()) End(measurement, put);
      return;
    case v1::WorkerMessage::kRendezvousGet:
      return measurement.rendezvous.OnGet(index, message.rendezvous_get());
    case v1::WorkerMessage::kLinksMeasured:
      return OnMeasured(measurement, index, message.links_measured());
    case v1::WorkerMessage::kFailed:
      return OnFailed(measurement, index, message.failed());
    default:
      return;
  }
}

// Workers that do not reach each other all fail at about the same time: who of them is at fault shows when the last one
// has said what it has to say. One that says nothing is waited for no longer than for a cause elsewhere.
void LinkMeter::OnFailed(Measurement& measurement, int index, const v1::Failed& failed) {
  const absl::Status status = FromProto(failed.status());
  const absl::Status why(status.code(), absl::StrCat("worker ", measurement.workers[index], ": ", status.message()));
  UnreachableReports& reports = measurement.reach_reports;
  reports.Add(index, failed, static_cast<int>(measurement.workers.size()));
  measurement.failed.emplace(index, why);
  if (!failed.consequence() || reports.certain() || measurement.failed.size() >= measurement.held.size()) {
    return Conclude(measurement, why);
  }
  loop_->CancelTimer(measurement.deadline);
  measurement.deadline =
      loop_->PostAfter(cluster_->options().lease + absl::Seconds(1),
                       [this, number = measurement.id.attempt(), why] { Conclude(running_.at(number), why); });
}

void LinkMeter::Conclude(Measurement& measurement, const absl::Status& why) {
  const UnreachableReports& reports = measurement.reach_reports;
  if (reports.empty()) return End(measurement, why);
  for (const UnreachableWorker& worker :
       reports.Judge(UnreachableReports::FromRegistry(cluster_->registry(), measurement.workers))) {
    WorkerEntry* entry = cluster_->registry().Find(measurement.workers[worker.index]);
    if (entry != nullptr) cluster_->registry().SetUnreachable(*entry, worker.why, loop_->Now());
  }
  End(measurement, absl::UnavailableError(why.message()));
}

void LinkMeter::OnMeasured(Measurement& measurement, int index, const v1::LinksMeasured& measured) {
  measurement.measured[index] = measured;
  if (measurement.measured.size() == measurement.workers.size()) End(measurement, Remember(measurement));
}

void LinkMeter::OnLost(const WorkerEntry& worker, std::string_view why) {
  Measurement& measurement = Of(worker);
  OnGone(measurement, IndexOf(measurement, worker),
         absl::UnavailableError(absl::StrCat("worker ", worker.name(), " was lost: ", AbslView(why))));
}

void LinkMeter::OnLeaving(WorkerEntry& worker, std::string_view reason) {
  cluster_->GrantLeave(worker);
  Measurement& measurement = Of(worker);
  OnGone(measurement, IndexOf(measurement, worker),
         absl::UnavailableError(absl::StrCat("worker ", worker.name(), " left: ", AbslView(reason))));
}

void LinkMeter::OnLate(int number) {
  Measurement& measurement = running_.at(number);
  std::vector<std::string> late;
  for (size_t i = 0; i < measurement.workers.size(); ++i) {
    if (!measurement.measured.contains(static_cast<int>(i))) late.push_back(measurement.workers[i]);
  }
  End(measurement, absl::DeadlineExceededError(absl::StrCat("not measured within ", absl::FormatDuration(kTimeout),
                                                            ": ", absl::StrJoin(late, ", "))));
}

// The worker does not belong to it any more; `why` ends the measurement if nothing has yet.
void LinkMeter::OnGone(Measurement& measurement, int index, const absl::Status& why) {
  End(measurement, why);
  measurement.held.erase(index);
  if (!measurement.held.empty()) return;
  const auto node = running_.extract(measurement.id.attempt());
  node.mapped().done(*node.mapped().result);
}

void LinkMeter::End(Measurement& measurement, const absl::Status& result) {
  if (measurement.result.has_value()) return;
  measurement.result = result;
  loop_->CancelTimer(measurement.deadline);
  for (int index : measurement.held) {
    WorkerEntry* worker = cluster_->registry().Find(measurement.workers[index]);
    if (worker == nullptr) continue;
    if (result.ok()) {
      cluster_->Release(*worker, measurement.id);
    } else {
      cluster_->Abort(*worker, measurement.id, StdView(result.message()));
    }
  }
}

absl::Status LinkMeter::Remember(const Measurement& measurement) {
  ForgetGone();
  for (const std::string& name : measurement.workers) {
    cluster_->registry().SetReached(name);
  }
  for (size_t i = 0; i + 1 < measurement.workers.size(); ++i) {
    const v1::LinkSpeed& link = measurement.measured.at(static_cast<int>(i)).next();
    const std::string& from = measurement.workers[i];
    if (!IsSpeed(link)) return absl::InternalError(absl::StrCat("worker ", from, " reported no speed of its link"));
    spdlog::info("link {} - {}: {:.1f} us, {:.1f} MB/s", from, measurement.workers[i + 1], link.latency_seconds() * 1e6,
                 link.bytes_per_second() / 1e6);
    known_[{measurement.incarnations[i], measurement.incarnations[i + 1]}] = link;
  }
  return absl::OkStatus();
}

void LinkMeter::ForgetGone() {
  std::set<std::string> here;
  for (const WorkerEntry* worker : cluster_->registry().All()) {
    if (worker->connected()) here.insert(worker->hello.incarnation());
  }
  std::erase_if(
      known_, [&](const auto& link) { return !here.contains(link.first.first) || !here.contains(link.first.second); });
}

}  // namespace gpipe::orchestrator
