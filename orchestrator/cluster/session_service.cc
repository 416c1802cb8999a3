#include "orchestrator/cluster/session_service.h"

#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "orchestrator/cluster/session_channel.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

using Reactor = grpc::ServerBidiReactor<v1::WorkerMessage, v1::OrchestratorMessage>;

// One session as gRPC sees it. Deletes itself when the call is over.
class SessionReactor final : public Reactor, public SessionCall {
 public:
  SessionReactor(const SessionService::Parts& parts, Cluster::SessionId id, grpc::CallbackServerContext* context)
      : parts_(parts),
        id_(id),
        caller_(parts.gatekeeper->WhoCalls(*context)),
        from_(context->peer()),
        context_(context),
        channel_(std::make_shared<SessionChannel>(this, parts.files, id)) {
    parts_.files->Begin(id, caller_.name);
    auto opened = [cluster = parts_.cluster, id, channel = channel_] { cluster->OnOpened(id, channel); };
    if (!Post(std::move(opened))) return;
    channel_->Read(message_.get());
  }

  // gRPC keeps the reactor until Finish, and the channel reads nothing after it; the message is held on to by the task.
  void OnReadDone(bool ok) override {
    if (!ok) return EndOfStream();
    if (message_->has_hello() && !caller_.Owns(message_->hello().name())) return RefuseName(message_->hello().name());
    Post([cluster = parts_.cluster, id = id_, channel = channel_, message = message_] {
      cluster->OnMessage(id, *message);
      channel->Read(message.get());
    });
  }

  void OnWriteDone(bool ok) override { channel_->OnWriteDone(ok); }
  // The connection is gone: what is being written will never be.
  void OnCancel() override { channel_->Cancel(absl::CancelledError("the connection is closed")); }

  void OnDone() override {
    parts_.files->End(id_);
    parts_.loop->Post([cluster = parts_.cluster, id = id_] { cluster->OnEnded(id); });
    delete this;
  }

 private:
  void Read(v1::WorkerMessage* message) override { StartRead(message); }
  void Write(const v1::OrchestratorMessage* message) override { StartWrite(message); }
  void Cancel() override { context_->TryCancel(); }
  void Finish(const absl::Status& status) override { Reactor::Finish(ToGrpc(status)); }

  // False: the loop has stopped, and the session ends.
  bool Post(std::function<void()> task) {
    if (parts_.loop->Post(std::move(task))) return true;
    channel_->Close(absl::UnavailableError("the orchestrator is shutting down"));
    return false;
  }

  // The worker said its last word, or the connection broke. Told at once, because OnDone may wait for a write.
  void EndOfStream() {
    parts_.loop->Post([cluster = parts_.cluster, id = id_] { cluster->OnEnded(id); });
    channel_->Close(absl::OkStatus());
  }

  void RefuseName(const std::string& name) {
    const std::string& own = caller_.name;
    spdlog::warn("refused a session from {}: the certificate of '{}' is not for a worker named '{}'", from_, own, name);
    channel_->Close(
        absl::PermissionDeniedError(absl::StrCat("the certificate of '", own, "' is not for a worker named '", name,
                                                 "': --name must be ", own, ", or begin with ", own, "-")));
  }

  const SessionService::Parts parts_;
  const Cluster::SessionId id_;
  const Caller caller_;
  const std::string from_;
  grpc::CallbackServerContext* const context_;
  const std::shared_ptr<SessionChannel> channel_;
  const std::shared_ptr<v1::WorkerMessage> message_ = std::make_shared<v1::WorkerMessage>();
};

}  // namespace

Reactor* SessionService::Session(grpc::CallbackServerContext* context) {
  return new SessionReactor(parts_, next_id_++, context);
}

}  // namespace gpipe::orchestrator
