#include "orchestrator/access/guarded_service.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/impl/codegen/server_callback_handlers.h"
#include "grpcpp/impl/rpc_service_method.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

using grpc::ByteBuffer;
using grpc::CallbackServerContext;
using grpc::internal::MethodHandler;
using grpc::internal::RpcMethod;
using grpc::internal::RpcServiceMethod;

RpcMethod::RpcType TypeOf(const google::protobuf::MethodDescriptor& method) {
  if (method.client_streaming() && method.server_streaming()) return RpcMethod::BIDI_STREAMING;
  if (method.client_streaming()) return RpcMethod::CLIENT_STREAMING;
  return method.server_streaming() ? RpcMethod::SERVER_STREAMING : RpcMethod::NORMAL_RPC;
}

// Ends a call before it has begun.
template <typename Reactor>
class Refusal final : public Reactor {
 public:
  explicit Refusal(const grpc::Status& status) { this->Finish(status); }
  void OnDone() override { delete this; }
};

// In place of the service's own handler, for one call.
std::unique_ptr<MethodHandler> MakeRefusing(RpcMethod::RpcType type, const grpc::Status& status) {
  switch (type) {
    case RpcMethod::NORMAL_RPC:
      return std::make_unique<grpc::internal::CallbackUnaryHandler<ByteBuffer, ByteBuffer>>(
          [&status](CallbackServerContext*, const ByteBuffer*, ByteBuffer*) {
            return new Refusal<grpc::ServerUnaryReactor>(status);
          });
    case RpcMethod::CLIENT_STREAMING:
      return std::make_unique<grpc::internal::CallbackClientStreamingHandler<ByteBuffer, ByteBuffer>>(
          [&status](CallbackServerContext*, ByteBuffer*) {
            return new Refusal<grpc::ServerReadReactor<ByteBuffer>>(status);
          });
    case RpcMethod::SERVER_STREAMING:
      return std::make_unique<grpc::internal::CallbackServerStreamingHandler<ByteBuffer, ByteBuffer>>(
          [&status](CallbackServerContext*, const ByteBuffer*) {
            return new Refusal<grpc::ServerWriteReactor<ByteBuffer>>(status);
          });
    case RpcMethod::BIDI_STREAMING:
      break;
  }
  return std::make_unique<grpc::internal::CallbackBidiHandler<ByteBuffer, ByteBuffer>>(
      [&status](CallbackServerContext*) {
        return new Refusal<grpc::ServerBidiReactor<ByteBuffer, ByteBuffer>>(status);
      });
}

class GuardingHandler final : public MethodHandler {
 public:
  GuardingHandler(RpcMethod::RpcType type, std::string_view path, MethodHandler* guarded, const Gatekeeper& gatekeeper)
      : type_(type), path_(path), guarded_(guarded), gatekeeper_(gatekeeper) {}

  // Kept as it is until it is known who is to parse it.
  void* Deserialize(grpc_call*, grpc_byte_buffer* request, grpc::Status*, void**) override { return request; }

  void RunHandler(const HandlerParameter& call) override {
    const auto& context = static_cast<CallbackServerContext&>(*call.server_context);
    const grpc::Status status = ToGrpc(gatekeeper_.Check(gatekeeper_.WhoCalls(context), path_, context.peer()));
    if (status.ok()) return Run(*guarded_, call);
    const std::unique_ptr<MethodHandler> refusing = MakeRefusing(type_, status);
    Run(*refusing, call);  // It is asked for a reactor once, in there.
  }

 private:
  void Run(MethodHandler& handler, const HandlerParameter& call) const {
    grpc::Status parsed = call.status;
    void* data = call.internal_data;
    void* request = nullptr;
    if (type_ == RpcMethod::NORMAL_RPC || type_ == RpcMethod::SERVER_STREAMING) {
      auto* bytes = static_cast<grpc_byte_buffer*>(call.request);
      request = handler.Deserialize(call.call->call(), bytes, &parsed, &data);
    }
    handler.RunHandler({call.call, call.server_context, request, parsed, data, call.call_requester});
  }

  const RpcMethod::RpcType type_;
  const std::string_view path_;
  MethodHandler* const guarded_;
  const Gatekeeper& gatekeeper_;
};

// grpc::Service shows its handlers to those derived from it only.
struct Handlers : grpc::Service {
  static MethodHandler* Of(grpc::Service& service, int index) { return (service.*&Handlers::GetHandler)(index); }
};

}  // namespace

GuardedService::GuardedService(const std::string& full_name, grpc::Service& service, const Gatekeeper& gatekeeper) {
  const auto* descriptor = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(full_name);
  for (int i = 0; i < descriptor->method_count(); ++i) {
    const google::protobuf::MethodDescriptor& method = *descriptor->method(i);
    const std::string& path = paths_.emplace_back(absl::StrCat("/", full_name, "/", method.name()));
    auto handler = std::make_unique<GuardingHandler>(TypeOf(method), path, Handlers::Of(service, i), gatekeeper);
    AddMethod(new RpcServiceMethod(path.c_str(), TypeOf(method), nullptr));
    MarkMethodCallback(i, handler.release());
  }
}

}  // namespace gpipe::orchestrator
