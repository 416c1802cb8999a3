#include "orchestrator/web/update_events.h"

#include "absl/base/call_once.h"
#include "absl/strings/str_cat.h"
#include "orchestrator/web/api_json.h"

namespace gpipe::orchestrator {

using google::protobuf::Descriptor;
using google::protobuf::Message;
using google::protobuf::MessageFactory;

struct UpdateEvents::Entry {
  absl::once_flag once;
  Event event;
};

UpdateEvents::Event UpdateEvents::Of(const Descriptor& type, std::string_view update) {
  const std::shared_ptr<Entry> entry = Find(type, update);
  absl::call_once(entry->once, [&] { entry->event = Make(type, update); });
  return entry->event;
}

std::shared_ptr<UpdateEvents::Entry> UpdateEvents::Find(const Descriptor& type, std::string_view update) {
  absl::MutexLock lock(&mutex_);
  const auto [place, is_new] = entries_.try_emplace(Key(&type, update));
  if (!is_new) return place->second;
  auto entry = std::make_shared<Entry>();
  place->second = entry;
  by_age_.push_back(place);
  bytes_ += update.size();
  MakeRoom();
  return entry;
}

void UpdateEvents::MakeRoom() {
  while (by_age_.size() > kMost || bytes_ > kMostBytes) {
    bytes_ -= by_age_.front()->first.second.size();
    entries_.erase(by_age_.front());
    by_age_.pop_front();
  }
}

UpdateEvents::Event UpdateEvents::Make(const Descriptor& type, std::string_view update) {
  ++made_;
  const std::unique_ptr<Message> message(MessageFactory::generated_factory()->GetPrototype(&type)->New());
  if (!message->ParseFromArray(update.data(), static_cast<int>(update.size()))) return nullptr;
  const auto* token = type.FindFieldByName("resume_token");
  const std::string id = message->GetReflection()->GetString(*message, token);
  message->GetReflection()->ClearField(message.get(), token);
  const std::string data = ToJson(*message).value_or("{}");
  return std::make_shared<const std::string>(
      absl::StrCat(id.empty() ? "" : absl::StrCat("id: ", id, "\n"), "data: ", data, "\n\n"));
}

}  // namespace gpipe::orchestrator
