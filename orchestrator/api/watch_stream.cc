#include "orchestrator/api/watch_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "common/grpc_status.h"
#include "common/status_macros.h"
#include "orchestrator/api/request_check.h"
#include "orchestrator/api/unary.h"

namespace gpipe::orchestrator {
namespace {

WatchQueue::Wants WantsOf(const v1::WatchJobRequest& request) {
  return {.cycles = request.cycles(), .stages = request.stages()};
}

}  // namespace

WatchStream::WatchStream(EventLoop* loop, JobBook* book, WatchCount* watches, const v1::WatchJobRequest& request)
    : loop_(loop),
      book_(book),
      watches_(watches),
      counted_(watches->Enter()),
      id_(request.id()),
      queue_(std::make_shared<WatchQueue>(WantsOf(request))) {
  Next();
  if (absl::Status status = Begin(request); !status.ok()) queue_->Close(status);
}

absl::Status WatchStream::Begin(const v1::WatchJobRequest& request) {
  if (!counted_) {
    return WithReason(absl::ResourceExhaustedError(absl::StrCat("jobs have ", WatchCount::kMost, " watchers already")),
                      reason::kTooManyWatchers);
  }
  GPIPE_RETURN_IF_ERROR(CheckJobId(id_));
  const bool posted = loop_->TryPost([book = book_, id = id_, queue = queue_, token = request.resume_token()] {
    if (absl::Status status = book->Watch(id, queue, token); !status.ok()) queue->Close(status);
  });
  return posted ? absl::OkStatus() : Overloaded();
}

// Either a write is under way, or the queue will call: so nobody else touches this object, and it is not gone.
void WatchStream::Next() {
  queue_->Next([this](JobUpdate update, const absl::Status& end) {
    if (update == nullptr) return Finish(ToGrpc(end));
    update_ = std::move(update);
    StartWrite(update_.get());
  });
}

void WatchStream::OnWriteDone(bool ok) {
  if (!ok) queue_->Abandon();
  Next();
}

void WatchStream::OnCancel() { queue_->Abandon(); }

void WatchStream::OnDone() {
  if (counted_) watches_->Leave();
  loop_->Post([book = book_, id = id_, queue = queue_] { book->Unwatch(id, queue); });
  delete this;
}

}  // namespace gpipe::orchestrator
