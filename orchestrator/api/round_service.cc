#include "orchestrator/api/round_service.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/field_error.h"
#include "common/grpc_status.h"
#include "orchestrator/api/request_check.h"
#include "orchestrator/api/unary.h"
#include "orchestrator/scheduling/answer_queue.h"

namespace gpipe::orchestrator {
namespace {

using Reactor = grpc::ServerBidiReactor<v1::AskRoundsRequest, v1::AskRoundsResponse>;

// One call: hands each request to the loop, and reads the next one when that has been worked off; writes what the queue
// holds, one answer at a time. Ends when the queue does. Deletes itself when the call is over.
class RoundStream final : public Reactor {
 public:
  RoundStream(EventLoop* loop, Scheduler* scheduler) : loop_(loop), scheduler_(scheduler) {
    Next();
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return EndOfRequests();
    const absl::Status good = Check();
    if (!good.ok()) return answers_->Close(good);
    if (request_.has_open()) job_ = request_.open().job();
    closed_ |= request_.has_close();
    {
      absl::MutexLock lock(&mutex_);
      if (end_) return;
      ++at_loop_;
    }
    if (loop_->TryPost([this] { Take(); })) return;
    answers_->Close(Overloaded());
    Rest();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) answers_->Abandon();
    Next();
  }
  void OnCancel() override { answers_->Abandon(); }

  void OnDone() override {
    loop_->Post([scheduler = scheduler_, job = job_, answers = answers_] { scheduler->LoseClient(job, answers); });
    delete this;
  }

 private:
  absl::Status Check() const {
    if (!job_.empty()) {
      const bool good = request_.has_round() || request_.has_close();
      return good ? absl::OkStatus() : FieldError("request", "must be a round, or `close`: it is open already");
    }
    return request_.has_open() ? CheckJobId(request_.open().job()) : FieldError("request", "the first must be `open`");
  }

  // On the loop.
  void Take() {
    absl::Status taken;
    if (request_.has_open()) {
      taken = scheduler_->OpenRounds(job_, answers_);
    } else if (request_.has_round()) {
      taken = scheduler_->Ask(job_, answers_, request_.round());
    } else {
      scheduler_->CloseRounds(job_, answers_);
    }
    if (!taken.ok()) answers_->Close(taken);
    Rest();
  }

  // The request is worked off, and the next one may come.
  void Rest() {
    if (!ended()) StartRead(&request_);
    std::optional<absl::Status> end;
    {
      absl::MutexLock lock(&mutex_);
      if (--at_loop_ == 0) end = end_;
    }
    if (end) Finish(ToGrpc(*end));
  }

  // gRPC keeps the object until Finish, which waits for requests that are at the loop; none gets there afterwards.
  void End(const absl::Status& end) {
    {
      absl::MutexLock lock(&mutex_);
      end_ = end;
      if (at_loop_ > 0) return;
    }
    Finish(ToGrpc(end));
  }

  bool ended() {
    absl::MutexLock lock(&mutex_);
    return end_.has_value();
  }

  // A client that has not closed its rounds is gone.
  void EndOfRequests() {
    if (!closed_) answers_->Close(absl::CancelledError("the requests have ended without `close`"));
  }

  // Either a write is under way, or the queue will call.
  void Next() {
    answers_->Next([this](std::optional<v1::AskRoundsResponse> answer, const absl::Status& end) {
      if (!answer.has_value()) return End(end);
      answer_ = *std::move(answer);
      StartWrite(&answer_);
    });
  }

  EventLoop* const loop_;
  Scheduler* const scheduler_;
  const std::shared_ptr<AnswerQueue> answers_ = std::make_shared<AnswerQueue>();
  std::string job_;               // Once it is open.
  bool closed_ = false;           // By `close`.
  v1::AskRoundsRequest request_;  // Being read, or at the loop.
  v1::AskRoundsResponse answer_;  // Being written.
  absl::Mutex mutex_;
  int at_loop_ ABSL_GUARDED_BY(mutex_) = 0;  // Requests.
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

Reactor* RoundService::AskRounds(grpc::CallbackServerContext*) { return new RoundStream(loop_, scheduler_); }

}  // namespace gpipe::orchestrator
