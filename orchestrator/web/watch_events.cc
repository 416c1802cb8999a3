#include "orchestrator/web/watch_events.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/artifacts/piece_message.h"
#include "common/grpc_status.h"
#include "orchestrator/web/api_json.h"

namespace gpipe::orchestrator {
namespace {

std::string EndEvent(const absl::Status& end) {
  return absl::StrCat("event: end\ndata: ", ToJson(ToProto(end)).value_or("{}"), "\n\n");
}

}  // namespace

absl::Status WatchEvents::Begin(absl::Duration patience) {
  if (const UpdateEvents::Event event = TakeUpdate(patience); event != nullptr) begun_ = *event;
  if (!over_) return absl::OkStatus();
  const absl::Status end = call_->Finish();
  begun_ = EndEvent(end);
  return end;
}

std::optional<std::string> WatchEvents::Next(absl::Duration patience) {
  std::string events = std::exchange(begun_, "");
  while (!over_ && events.size() < kMostAtOnce) {
    const UpdateEvents::Event event = TakeUpdate(events.empty() ? patience : absl::ZeroDuration());
    if (event == nullptr && !over_) return events;
    absl::StrAppend(&events, over_ ? EndEvent(call_->Finish()) : *event);
  }
  if (over_ && events.empty()) return std::nullopt;
  return events;
}

UpdateEvents::Event WatchEvents::TakeUpdate(absl::Duration patience) {
  grpc::Slice update;
  const ApiCall::Got got = call_->Next(patience, update);
  UpdateEvents::Event event;
  if (got == ApiCall::Got::kMessage) event = events_.Of(update_, View(update));
  over_ = got != ApiCall::Got::kNothingYet && event == nullptr;
  if (over_ && got == ApiCall::Got::kMessage) call_->Cancel();  // It goes on, and nothing can be made of it.
  return event;
}

}  // namespace gpipe::orchestrator
