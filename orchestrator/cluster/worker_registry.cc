#include "orchestrator/cluster/worker_registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/field_error.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "common/version.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

constexpr size_t kMaxName = 63;
constexpr size_t kMaxText = 256;
// Of what a worker computes with.
constexpr int kMaxSoftware = 32;
constexpr size_t kMaxSoftwareName = 32, kMaxSoftwareVersion = 64;
constexpr size_t kMaxHelloBytes = 16 << 10;  // It is kept, and told to all who watch.

bool IsName(std::string_view text) {
  return !text.empty() && text.size() <= kMaxName && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
  });
}

bool IsDevice(std::string_view device) {
  if (device == "cpu") return true;
  if (!device.starts_with("cuda:")) return false;
  const std::string_view index = device.substr(5);
  return !index.empty() && index.size() <= 4 && std::all_of(index.begin(), index.end(), absl::ascii_isdigit);
}

bool IsSoftwareName(std::string_view text) {
  return !text.empty() && text.size() <= kMaxSoftwareName && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_';
  });
}

bool IsVersion(std::string_view text) {
  return !text.empty() && text.size() <= kMaxSoftwareVersion &&
         std::all_of(text.begin(), text.end(), absl::ascii_isprint);
}

void CheckSoftware(const v1::Hello& hello, FieldErrors& errors) {
  if (hello.software_size() > kMaxSoftware) errors.Add("hello.software", "has too many parts");
  for (const auto& [name, version] : hello.software()) {
    if (!IsSoftwareName(name)) return errors.Add("hello.software", "has a name that is not of a-z, 0-9 and '_'");
    if (!IsVersion(version)) return errors.Add("hello.software", "has a version that is none");
  }
}

absl::Status CheckHello(const v1::Hello& hello) {
  FieldErrors errors;
  if (!IsName(hello.name())) errors.Add("hello.name", "must be 1 to 63 letters, digits, '-', '_' or '.'");
  if (!IsDevice(hello.device())) errors.Add("hello.device", "must be cpu or cuda:N");
  if (hello.data_address().empty()) errors.Add("hello.data_address", "is missing");
  if (hello.incarnation().empty()) errors.Add("hello.incarnation", "is missing");
  if (hello.threads() < 0) errors.Add("hello.threads", "must not be negative");
  if (hello.memory_bytes() < 0) errors.Add("hello.memory_bytes", "must not be negative");
  const std::string* texts[] = {&hello.device_name(), &hello.data_address(), &hello.version(), &hello.incarnation()};
  if (std::any_of(std::begin(texts), std::end(texts), [](const std::string* t) { return t->size() > kMaxText; })) {
    errors.Add("hello", "has a text of more than 256 bytes");
  }
  CheckSoftware(hello, errors);
  if (hello.ByteSizeLong() > kMaxHelloBytes) errors.Add("hello", "is too large");
  return errors.ToStatus();
}

// Plans and messages change between versions; a job on workers of several would fail, or worse.
absl::Status CheckVersion(const v1::Hello& hello) {
  if (hello.version().empty() || hello.version() == AbslView(kVersion)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("the worker '", hello.name(), "' is gpipe ", hello.version(),
                                                    ", the orchestrator ", AbslView(kVersion), ": install the same"));
}

}  // namespace

void SetDrained(v1::Worker& worker, const std::string& reason) {
  worker.set_drained(true);
  worker.set_reason(reason.empty() ? "drained" : absl::StrCat("drained: ", reason));
}

v1::Worker DescribeWorker(const WorkerEntry& entry, absl::Time now) {
  v1::Worker worker;
  worker.set_name(entry.name());
  worker.set_state(entry.state);
  *worker.mutable_hello() = entry.hello;
  if (!entry.attempt.job().empty()) *worker.mutable_attempt() = entry.attempt;
  *worker.mutable_activity() = entry.activity;
  *worker.mutable_use() = entry.use;
  if (entry.drained) SetDrained(worker, *entry.drained);
  if (entry.state == v1::Worker::STATE_UNREACHABLE) worker.set_reason(entry.unreachable);
  worker.set_heartbeat_age_seconds(absl::ToDoubleSeconds(now - entry.last_heard));
  return worker;
}

bool IsCuda(const v1::Hello& hello) { return hello.device().starts_with("cuda:"); }

bool Suits(const WorkerEntry& worker, v1::Device device) {
  if (device == v1::DEVICE_CPU) return !IsCuda(worker.hello);
  if (device == v1::DEVICE_CUDA) return IsCuda(worker.hello);
  return true;
}

std::vector<v1::Device> DevicesFor(v1::Device device) {
  if (device == v1::DEVICE_CPU || device == v1::DEVICE_CUDA) return {device};
  return {v1::DEVICE_CUDA, v1::DEVICE_CPU};
}

std::string KindOf(const v1::Hello& hello) {
  return absl::StrCat(IsCuda(hello) ? "cuda " : "cpu ", hello.device_name(), ", ", hello.threads(), " threads, gpipe ",
                      hello.version());
}

int64_t UsableMemory(const v1::Hello& hello) { return hello.memory_bytes() / 10 * 9; }

absl::StatusOr<WorkerEntry*> WorkerRegistry::Join(const v1::Hello& hello, std::shared_ptr<WorkerChannel> channel,
                                                  absl::Time now) {
  GPIPE_RETURN_IF_ERROR(CheckHello(hello));
  GPIPE_RETURN_IF_ERROR(CheckVersion(hello));
  ForgetLost();
  WorkerEntry* known = Find(hello.name());
  if (known != nullptr && known->connected()) {
    return absl::AlreadyExistsError(absl::StrCat("a worker named '", hello.name(), "' is connected already, from ",
                                                 known->hello.data_address(), "; start this one under another --name"));
  }
  if (known == nullptr && workers_.size() >= kMaxLive) {
    return absl::ResourceExhaustedError(absl::StrCat("there are ", workers_.size(), " workers already"));
  }
  WorkerEntry& worker = workers_[hello.name()];
  const v1::Worker::State before = worker.state;
  const bool came_back = worker.hello.incarnation() == hello.incarnation();
  const WorkerEntry old = std::exchange(
      worker, WorkerEntry{.hello = hello, .state = before, .channel = std::move(channel), .last_heard = now});
  if (const auto drain = drained_.find(hello.name()); drain != drained_.end()) worker.drained = drain->second;
  GPIPE_RETURN_IF_ERROR(Apply(worker, WorkerEvent::kHello, absl::StrCat(hello.device(), ", ", hello.device_name())));
  if (!came_back || old.unreachable.empty()) return &worker;
  worker.times_unreachable = old.times_unreachable - 1;
  SetUnreachable(worker, old.unreachable, now);
  return &worker;
}

absl::Status WorkerRegistry::Apply(WorkerEntry& worker, WorkerEvent event, std::string_view why) {
  GPIPE_ASSIGN_OR_RETURN(v1::Worker::State next, Transition(worker.state, event));
  if (next != worker.state) spdlog::info("worker {} is {}: {}", worker.name(), StateName(next), why);
  worker.state = next;
  if (next == v1::Worker::STATE_LOST) worker.channel.reset();
  if (listener_ != nullptr) listener_->OnWorkerChanged(worker.name());
  return absl::OkStatus();
}

void WorkerRegistry::Beat(WorkerEntry& worker, const v1::Heartbeat& heartbeat) {
  worker.activity = heartbeat.activity();
  worker.use = heartbeat.use();
  if (listener_ != nullptr) listener_->OnWorkerAlive(worker.name());
}

void WorkerRegistry::SetUnreachable(WorkerEntry& worker, std::string_view why, absl::Time now) {
  if (!Apply(worker, WorkerEvent::kUnreachable, why).ok()) return;
  worker.unreachable = std::string(why);
  const int doublings = std::min(worker.times_unreachable++, 10);
  worker.unreachable_until = now + std::min((1 << doublings) * kUnreachable, kLongestUnreachable);
}

void WorkerRegistry::SetReached(std::string_view name) {
  WorkerEntry* worker = Find(name);
  if (worker == nullptr) return;
  worker->was_reached = true;
  worker->times_unreachable = 0;
}

// One that has not let go of its attempt yet is not idle.
bool WorkerRegistry::TryUnreachableAgain(absl::Time now) {
  bool any = false;
  for (auto& [name, worker] : workers_) {
    const bool due = worker.state == v1::Worker::STATE_UNREACHABLE && worker.attempt.job().empty() &&
                     now >= worker.unreachable_until;
    if (!due || !Apply(worker, WorkerEvent::kTryAgain, "perhaps it can be reached now").ok()) continue;
    worker.unreachable.clear();
    any = true;
  }
  return any;
}

absl::Status WorkerRegistry::Drain(std::string_view name, std::string_view reason) {
  if (drained_.size() >= kMaxLive && !drained_.contains(name)) {
    return absl::ResourceExhaustedError(absl::StrCat("there are ", drained_.size(), " drained workers already"));
  }
  drained_[std::string(name)] = std::string(reason);
  if (WorkerEntry* worker = Find(name); worker != nullptr) worker->drained = std::string(reason);
  if (listener_ != nullptr) listener_->OnWorkerChanged(std::string(name));
  spdlog::info("worker {} is drained{}{}", name, reason.empty() ? "" : ": ", reason);
  return absl::OkStatus();
}

void WorkerRegistry::Undrain(std::string_view name) {
  const auto found = drained_.find(name);
  if (found == drained_.end()) return;
  drained_.erase(found);
  if (WorkerEntry* worker = Find(name); worker != nullptr) worker->drained.reset();
  if (listener_ != nullptr) listener_->OnWorkerChanged(std::string(name));
  spdlog::info("worker {} is undrained", name);
}

WorkerEntry* WorkerRegistry::Find(std::string_view name) {
  auto found = workers_.find(name);
  return found == workers_.end() ? nullptr : &found->second;
}

// The ones heard of longest ago go first.
void WorkerRegistry::ForgetLost() {
  std::vector<WorkerEntry*> lost = All();
  std::erase_if(lost, [](const WorkerEntry* worker) { return worker->connected(); });
  std::sort(lost.begin(), lost.end(), [](auto* a, auto* b) { return a->last_heard > b->last_heard; });
  for (size_t i = kMaxLost; i < lost.size(); ++i) {
    const std::string name = lost[i]->name();
    workers_.erase(name);
    if (listener_ != nullptr) listener_->OnWorkerChanged(name);
  }
}

std::vector<WorkerEntry*> WorkerRegistry::All() {
  std::vector<WorkerEntry*> all;
  for (auto& [name, worker] : workers_) all.push_back(&worker);
  return all;
}

std::vector<WorkerEntry*> WorkerRegistry::Connected(v1::Device device) {
  std::vector<WorkerEntry*> connected = All();
  std::erase_if(connected, [&](const WorkerEntry* worker) { return !worker->connected() || !Suits(*worker, device); });
  return connected;
}

std::vector<WorkerEntry*> WorkerRegistry::Idle(v1::Device device) {
  std::vector<WorkerEntry*> idle = All();
  std::erase_if(idle, [&](const WorkerEntry* worker) {
    return worker->state != v1::Worker::STATE_IDLE || worker->drained || !Suits(*worker, device);
  });
  return idle;
}

}  // namespace gpipe::orchestrator
