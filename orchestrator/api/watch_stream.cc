#include "orchestrator/api/watch_stream.h"

#include <utility>

#include "common/grpc_status.h"
#include "orchestrator/api/request_check.h"
#include "orchestrator/api/unary.h"

namespace gpipe::orchestrator {

WatchStream::WatchStream(EventLoop* loop, JobBook* book, const v1::WatchJobRequest& request)
    : loop_(loop), book_(book), id_(request.id()), queue_(std::make_shared<WatchQueue>(request.cycles())) {
  Next();
  if (absl::Status status = CheckJobId(id_); !status.ok()) {
    queue_->Close(status);
    return;
  }
  const bool posted = loop_->TryPost([book, id = id_, queue = queue_] {
    if (absl::Status status = book->Watch(id, queue); !status.ok()) queue->Close(status);
  });
  if (!posted) queue_->Close(Overloaded());
}

// Either a write is under way, or the queue will call: so nobody else touches this object, and it is not gone.
void WatchStream::Next() {
  queue_->Next([this](std::optional<v1::WatchJobResponse> update, const absl::Status& end) {
    if (!update.has_value()) return Finish(ToGrpc(end));
    update_ = *std::move(update);
    StartWrite(&update_);
  });
}

void WatchStream::OnWriteDone(bool ok) {
  if (!ok) queue_->Abandon();
  Next();
}

void WatchStream::OnCancel() { queue_->Abandon(); }

void WatchStream::OnDone() {
  loop_->Post([book = book_, id = id_, queue = queue_] { book->Unwatch(id, queue); });
  delete this;
}

}  // namespace gpipe::orchestrator
