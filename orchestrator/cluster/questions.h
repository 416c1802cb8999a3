#ifndef GPIPE_ORCHESTRATOR_CLUSTER_QUESTIONS_H_
#define GPIPE_ORCHESTRATOR_CLUSTER_QUESTIONS_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/random/random.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gpipe/v1/worker_session.pb.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/cluster/worker_registry.h"

namespace gpipe::orchestrator {

// Questions to workers that wait for an answer, each under a number of its own. Those with the same key are the same:
// who asks one meanwhile waits for the same answer, and one that comes too late for who asked is still taken, for the
// next who does. For the loop's thread.
template <typename Answer>
class Questions {
 public:
  using Callback = std::function<void(absl::StatusOr<Answer>)>;
  struct Request {
    std::string key = {};  // Empty: like no other.
    absl::Duration timeout;
    // Whether what a worker says answers this.
    std::function<absl::Status(const Answer&)> check = [](const Answer&) { return absl::OkStatus(); };
  };

  // `subject` is what is looked at, for messages. Both others must outlive this.
  Questions(EventLoop* loop, WorkerRegistry* registry, std::string subject)
      : loop_(loop), registry_(registry), subject_(std::move(subject)) {}

  // Waits for the answer that others with the key wait for. False, and `done` is left: there are none.
  bool Join(const std::string& key, Callback& done) {
    for (auto& [id, question] : asked_) {
      if (question.request.key != key || question.late()) continue;
      question.done.push_back(std::move(done));
      return true;
    }
    return false;
  }

  // When that worker has been asked the same and is late with its answer, waits for this answer anew.
  bool JoinLate(const std::string& worker, const std::string& key, absl::Duration timeout, Callback& done) {
    for (auto& [id, question] : asked_) {
      if (question.worker != worker || question.request.key != key) continue;
      question.done.push_back(std::move(done));
      question.timer = GiveUpAfter(timeout, id, worker);
      return true;
    }
    return false;
  }

  // Calls `done` once, now or later. UNAVAILABLE: too much is asked already, or the worker went away.
  // DEADLINE_EXCEEDED: no answer in time. Other errors are the worker's, or of the check.
  // `message` is what goes to the worker under that number.
  void Ask(const WorkerEntry& worker, Request request, absl::FunctionRef<v1::OrchestratorMessage(int64_t id)> message,
           Callback done) {
    if (asked_.size() >= kMost) return done(absl::UnavailableError("the workers have too much to look at; try later"));
    const int64_t id = next_id_++;
    const EventLoop::TimerId timer = GiveUpAfter(request.timeout, id, worker.name());
    loop_->AfterCommit([channel = worker.channel, sent = message(id)](const absl::Status& stored) {
      if (stored.ok()) channel->Send(sent);
    });
    asked_.emplace(id, Question{worker.name(), std::move(request), timer, {std::move(done)}});
  }

  // Hands a worker's answer to those who wait for it. Returns the key under which it is a good one; nullopt: it is too
  // late, or another's, or an error, or has no key.
  std::optional<std::string> Take(const WorkerEntry& worker, int64_t id, absl::StatusOr<Answer> answer) {
    const auto found = asked_.find(id);
    if (found == asked_.end() || found->second.worker != worker.name()) return std::nullopt;
    if (answer.ok()) {
      if (absl::Status status = found->second.request.check(*answer); !status.ok()) answer = std::move(status);
    }
    const std::string key = found->second.request.key;
    Finish(id, answer);
    if (!answer.ok() || key.empty()) return std::nullopt;
    return key;
  }

  // Answers all questions with the key: another worker may be at it, because one was late.
  void FinishAll(const std::string& key, const Answer& answer) {
    FinishWhere([&](const Question& question) { return question.request.key == key; }, answer);
  }

  void OnLost(const WorkerEntry& worker) {
    FinishWhere([&](const Question& question) { return question.worker == worker.name(); },
                absl::UnavailableError(absl::StrCat("worker ", worker.name(), " went away looking at ", subject_)));
  }

  // Of those for the device one that is asked little; an idle one answers sooner than a busy one. Null: there are none.
  WorkerEntry* Choose(v1::Device device) const {
    const std::vector<WorkerEntry*> idle = registry_->Idle(device);
    return LeastAsked(idle.empty() ? registry_->Connected(device) : idle);
  }

  // The first of those that have the fewest questions, which a worker answers one after the other. Null: there are
  // none.
  WorkerEntry* LeastAsked(const std::vector<WorkerEntry*>& workers) const {
    std::map<std::string, int> asked;
    for (const auto& [id, question] : asked_) ++asked[question.worker];
    const auto least = std::ranges::min_element(workers, {}, [&](const WorkerEntry* w) { return asked[w->name()]; });
    return least == workers.end() ? nullptr : *least;
  }

 private:
  static constexpr size_t kMost = 256;
  static constexpr ptrdiff_t kMostLate = 64;

  struct Question {
    std::string worker;
    Request request;
    EventLoop::TimerId timer = 0;
    std::vector<Callback> done;  // Of all who asked the same meanwhile; empty when the answer is late.

    bool late() const { return done.empty(); }
  };

  EventLoop::TimerId GiveUpAfter(absl::Duration timeout, int64_t id, const std::string& worker) {
    return loop_->PostAfter(timeout, [this, id, worker, timeout] {
      GiveUp(id, absl::DeadlineExceededError(absl::StrCat("worker ", worker, " did not look at ", subject_, " within ",
                                                          absl::FormatDuration(timeout))));
    });
  }

  // Those who asked are answered; the worker is still at it, and what it finds will be taken.
  void GiveUp(int64_t id, const absl::Status& why) {
    const std::vector<Callback> done = std::exchange(asked_.at(id).done, {});
    const auto late = [](const auto& entry) { return entry.second.late(); };
    // Ids ascend: the first one is the oldest.
    if (std::ranges::count_if(asked_, late) > kMostLate) asked_.erase(std::ranges::find_if(asked_, late));
    for (const Callback& callback : done) callback(why);
  }

  void Finish(int64_t id, const absl::StatusOr<Answer>& answer) {
    auto node = asked_.extract(id);
    if (node.empty()) return;  // A callback of another has led to its end.
    const Question& question = node.mapped();
    if (!question.late()) loop_->CancelTimer(question.timer);
    for (const Callback& done : question.done) done(answer);
  }

  template <typename Predicate>
  void FinishWhere(const Predicate& predicate, const absl::StatusOr<Answer>& answer) {
    std::vector<int64_t> ids;
    for (const auto& [id, question] : asked_) {
      if (predicate(question)) ids.push_back(id);
    }
    for (const int64_t id : ids) Finish(id, answer);
  }

  EventLoop* const loop_;
  WorkerRegistry* const registry_;
  const std::string subject_;
  // Not from 1: a worker may still answer what an earlier orchestrator asked.
  int64_t next_id_ = absl::Uniform<int64_t>(absl::BitGen(), 1, int64_t{1} << 62);
  std::map<int64_t, Question> asked_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_CLUSTER_QUESTIONS_H_
