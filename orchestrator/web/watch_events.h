#ifndef GPIPE_ORCHESTRATOR_WEB_WATCH_EVENTS_H_
#define GPIPE_ORCHESTRATOR_WEB_WATCH_EVENTS_H_

#include <memory>
#include <optional>
#include <string>

#include "common/http/http_message.h"
#include "orchestrator/web/api_call.h"
#include "orchestrator/web/update_events.h"

namespace gpipe::orchestrator {

// A watch of the API as server-sent events. Each update is the `data` of an event, its resume token the `id`; at the
// end comes an event `end` with the google.rpc.Status. A reader that is slow is one to gRPC, too: what it misses, and
// that it is told, is up to the watch.
class WatchEvents final : public HttpStream {
 public:
  // `update` is the method's output, as UpdateEvents has it; `events` outlives this.
  WatchEvents(std::unique_ptr<ApiCall> call, const google::protobuf::Descriptor& update, UpdateEvents& events)
      : call_(std::move(call)), update_(update), events_(events) {}

  // The first update, waited for at most `patience`; an error that the watch ended with at once. Before the first Next.
  absl::Status Begin(absl::Duration patience);

  std::optional<std::string> Next(absl::Duration patience) override;
  void Cancel() override { call_->Cancel(); }

 private:
  static constexpr size_t kMostAtOnce = 64 << 10;  // Bytes that are sent together, but for the last update.

  // The event of the next update. Null: there is none yet, or, if over_, no more.
  UpdateEvents::Event TakeUpdate(absl::Duration patience);

  const std::unique_ptr<ApiCall> call_;
  const google::protobuf::Descriptor& update_;
  UpdateEvents& events_;
  std::string begun_;  // What Begin has read.
  bool over_ = false;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_WEB_WATCH_EVENTS_H_
