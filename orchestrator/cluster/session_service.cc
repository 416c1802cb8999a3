#include "orchestrator/cluster/session_service.h"

#include <deque>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/grpc_status.h"

namespace gpipe::orchestrator {
namespace {

using Reactor = grpc::ServerBidiReactor<v1::WorkerMessage, v1::OrchestratorMessage>;

// Messages on their way to one worker; much more than a healthy one ever has.
constexpr size_t kMaxOutgoing = 4096;

// Between the loop, which sends and closes, and gRPC's threads, which report what became of it. Lives as long as either
// needs it; gRPC's reactor ends by itself some time after Finish.
//
// Finish is called without the lock, because the reactor may be gone right after it; never while a write is under way.
class SessionChannel final : public WorkerChannel {
 public:
  SessionChannel(Reactor* reactor, grpc::CallbackServerContext* context) : reactor_(reactor), context_(context) {}

  void Send(const v1::OrchestratorMessage& message) override {
    {
      absl::MutexLock lock(&mutex_);
      if (closing_) return;
      if (outgoing_.size() < kMaxOutgoing) {
        outgoing_.push_back(message);
        return WriteNext();
      }
    }
    Cancel(absl::ResourceExhaustedError("the worker does not read its messages"));
  }

  void Close(const absl::Status& status) override { End(status, /*now=*/false); }
  void Cancel(const absl::Status& status) override { End(status, /*now=*/true); }

  // The next message may come. Called by the loop when it has worked off the last one.
  void Read(v1::WorkerMessage* message) {
    absl::MutexLock lock(&mutex_);
    if (!finished_) reactor_->StartRead(message);
  }

  void OnWriteDone(bool ok) {
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      outgoing_.pop_front();
      if (!ok) outgoing_.clear();
      WriteNext();
    }
    FinishIfDone();
  }

 private:
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_ || outgoing_.empty()) return;
    writing_ = true;
    reactor_->StartWrite(&outgoing_.front());
  }

  void End(const absl::Status& status, bool now) {
    {
      absl::MutexLock lock(&mutex_);
      if (finished_) return;
      if (!closing_) status_ = status;
      closing_ = true;
      if (now) {
        // The one being written stays until gRPC gives it back, which the cancellation brings about.
        outgoing_.resize(writing_ ? 1 : 0);
        context_->TryCancel();
      }
    }
    FinishIfDone();
  }

  void FinishIfDone() {
    {
      absl::MutexLock lock(&mutex_);
      if (!closing_ || finished_ || writing_ || !outgoing_.empty()) return;
      finished_ = true;
    }
    reactor_->Finish(ToGrpc(status_));
  }

  Reactor* const reactor_;                      // Valid until finished_.
  grpc::CallbackServerContext* const context_;  // Valid until finished_.
  absl::Mutex mutex_;
  std::deque<v1::OrchestratorMessage> outgoing_ ABSL_GUARDED_BY(mutex_);  // The first one is being written, if any is.
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_;  // Constant once closing_.
};

// One session as gRPC sees it. Deletes itself when the call is over.
class SessionReactor final : public Reactor {
 public:
  SessionReactor(EventLoop* loop, Cluster* cluster, Cluster::SessionId id, grpc::CallbackServerContext* context)
      : loop_(loop), cluster_(cluster), id_(id), channel_(std::make_shared<SessionChannel>(this, context)) {
    auto opened = [cluster, id, channel = channel_] { cluster->OnOpened(id, channel); };
    if (!loop_->Post(std::move(opened))) channel_->Close(absl::UnavailableError("the orchestrator is shutting down"));
    channel_->Read(message_.get());
  }

  // gRPC keeps the reactor until Finish, and Read does nothing after it; the message is held on to by the task.
  void OnReadDone(bool ok) override {
    if (!ok) return EndOfStream();
    auto task = [cluster = cluster_, id = id_, channel = channel_, message = message_] {
      cluster->OnMessage(id, *message);
      channel->Read(message.get());
    };
    if (!loop_->Post(std::move(task))) channel_->Close(absl::UnavailableError("the orchestrator is shutting down"));
  }

  void OnWriteDone(bool ok) override { channel_->OnWriteDone(ok); }
  // The connection is gone: what is being written will never be.
  void OnCancel() override { channel_->Cancel(absl::CancelledError("the connection is closed")); }

  void OnDone() override {
    loop_->Post([cluster = cluster_, id = id_] { cluster->OnEnded(id); });
    delete this;
  }

 private:
  // The worker said its last word, or the connection broke. Told at once, because OnDone may wait for a write.
  void EndOfStream() {
    loop_->Post([cluster = cluster_, id = id_] { cluster->OnEnded(id); });
    channel_->Close(absl::OkStatus());
  }

  EventLoop* const loop_;
  Cluster* const cluster_;
  const Cluster::SessionId id_;
  const std::shared_ptr<SessionChannel> channel_;
  const std::shared_ptr<v1::WorkerMessage> message_ = std::make_shared<v1::WorkerMessage>();
};

}  // namespace

Reactor* SessionService::Session(grpc::CallbackServerContext* context) {
  return new SessionReactor(loop_, cluster_, next_id_++, context);
}

}  // namespace gpipe::orchestrator
