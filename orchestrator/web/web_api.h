#ifndef GPIPE_ORCHESTRATOR_WEB_WEB_API_H_
#define GPIPE_ORCHESTRATOR_WEB_WEB_API_H_

#include <memory>
#include <string>

#include "common/http/http_message.h"
#include "grpcpp/channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "orchestrator/web/update_events.h"

namespace gpipe::orchestrator {

struct WebOptions {
  // The orchestrator's own services, as by grpc::Server::InProcessChannel: whoever asks by HTTP meets the same roles,
  // limits and errors as by gRPC.
  std::shared_ptr<grpc::Channel> channel;
  // Nobody is asked who he is by gRPC either (plain text).
  bool open = true;
  // The bearer token of who sends none: one that may read. Empty: none is needed. A certificate does not count, because
  // a browser shows it for whoever makes it send a request.
  std::string reader_token = {};
};

// The API by JSON over HTTP, below /api/v1/ (api_routes.h). Any thread may call any method.
//
// A request that changes something needs an Authorization header whatever the roles are: no other site's page can make
// a browser send one.
class WebApi {
 public:
  explicit WebApi(WebOptions options);

  // A stream that it has must be gone before this is.
  HttpResponse Answer(const HttpRequest& request);

  const UpdateEvents& events() const { return events_; }

 private:
  HttpResponse AnswerAccess() const;
  std::string TokenFor(const HttpRequest& request) const;

  const WebOptions options_;
  grpc::GenericStub stub_;
  UpdateEvents events_;  // All watches'.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_WEB_WEB_API_H_
