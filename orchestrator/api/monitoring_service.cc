#include "orchestrator/api/monitoring_service.h"

#include <memory>
#include <utility>

#include "common/grpc_status.h"
#include "orchestrator/api/request_check.h"
#include "orchestrator/api/unary.h"

namespace gpipe::orchestrator {
namespace {

// One WatchCluster call: writes what the feed has for its watcher, one update at a time. Deletes itself when the call
// is over.
class ClusterStream final : public grpc::ServerWriteReactor<v1::WatchClusterResponse> {
 public:
  ClusterStream(const MonitoringService::Parts& parts, const v1::WatchClusterRequest& request) : feed_(parts.feed) {
    Next();
    const bool posted = parts.loop->TryPost([parts, watcher = watcher_, token = request.resume_token()] {
      parts.monitor->Refresh();
      // Behind what that has published.
      parts.loop->AfterCommit([parts, watcher, token](const absl::Status& stored) {
        const absl::Status started = stored.ok() ? parts.feed->Start(watcher, token) : stored;
        if (!started.ok()) parts.feed->End(watcher, started);
      });
    });
    if (!posted) feed_->End(watcher_, Overloaded());
  }

  void OnWriteDone(bool ok) override {
    if (!ok) OnCancel();
    Next();
  }
  void OnCancel() override { feed_->End(watcher_, absl::CancelledError("the watcher went away")); }
  void OnDone() override {
    OnCancel();
    delete this;
  }

 private:
  // Either a write is under way, or the feed will call: so nobody else touches this object, and it is not gone.
  void Next() {
    feed_->Next(watcher_, [this](ClusterUpdate update, const absl::Status& end) {
      if (update == nullptr) return Finish(ToGrpc(end));
      update_ = std::move(update);
      StartWrite(update_.get());
    });
  }

  ClusterFeed* const feed_;
  const std::shared_ptr<ClusterFeed::Watcher> watcher_ = std::make_shared<ClusterFeed::Watcher>();
  ClusterUpdate update_;  // Being written.
};

}  // namespace

grpc::ServerWriteReactor<v1::WatchClusterResponse>* MonitoringService::WatchCluster(
    grpc::CallbackServerContext*, const v1::WatchClusterRequest* request) {
  return new ClusterStream(parts_, *request);
}

grpc::ServerUnaryReactor* MonitoringService::GetTimeline(grpc::CallbackServerContext* context,
                                                         const v1::GetTimelineRequest* request,
                                                         v1::StepTimeline* response) {
  if (absl::Status status = CheckRequest(*request); !status.ok()) return Refuse(context, status);
  return AnswerOnLoop<v1::StepTimeline>(parts_.loop, context, response, [book = parts_.book, request] {
    return book->Timeline(request->job(), request->step());
  });
}

}  // namespace gpipe::orchestrator
