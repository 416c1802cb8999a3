#ifndef GPIPE_ORCHESTRATOR_API_UNARY_H_
#define GPIPE_ORCHESTRATOR_API_UNARY_H_

#include <functional>
#include <utility>

#include "absl/status/statusor.h"
#include "common/error_reason.h"
#include "common/grpc_status.h"
#include "grpcpp/support/server_callback.h"
#include "orchestrator/cluster/event_loop.h"

namespace gpipe::orchestrator {

// A call that answers with one message. `response` is gRPC's, valid until Finish.
template <typename Response>
void Finish(grpc::ServerUnaryReactor* reactor, Response* response, absl::StatusOr<Response> result) {
  if (result.ok()) *response = *std::move(result);
  reactor->Finish(ToGrpc(result.status()));
}

inline absl::Status Overloaded() {
  return WithReason(absl::ResourceExhaustedError("the orchestrator has too many requests waiting; try again later"),
                    reason::kOverloaded);
}

// Runs `body` on the loop and answers with its result when the batch is stored.
template <typename Response>
grpc::ServerUnaryReactor* AnswerOnLoop(EventLoop* loop, grpc::CallbackServerContext* context, Response* response,
                                       std::function<absl::StatusOr<Response>()> body) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto task = [loop, reactor, response, body = std::move(body)] {
    loop->AfterCommit([reactor, response, result = body()](const absl::Status& stored) {
      Finish<Response>(reactor, response, stored.ok() ? result : absl::StatusOr<Response>(stored));
    });
  };
  if (!loop->TryPost(std::move(task))) reactor->Finish(ToGrpc(Overloaded()));
  return reactor;
}

inline grpc::ServerUnaryReactor* Refuse(grpc::CallbackServerContext* context, const absl::Status& why) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(why));
  return reactor;
}

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_API_UNARY_H_
