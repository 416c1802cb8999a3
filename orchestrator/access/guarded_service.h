#ifndef GPIPE_ORCHESTRATOR_ACCESS_GUARDED_SERVICE_H_
#define GPIPE_ORCHESTRATOR_ACCESS_GUARDED_SERVICE_H_

#include <list>
#include <string>

#include "grpcpp/impl/service_type.h"
#include "orchestrator/access/gatekeeper.h"

namespace gpipe::orchestrator {

// Stands before a service, and is registered in its place: each call of each of its RPCs is shown to the gatekeeper
// before the service, or even the parser of the request, sees it. So a new RPC is guarded without a line of code.
//
// It wraps gRPC's handlers of methods, and not an AuthMetadataProcessor or an interceptor: the first can refuse a call
// only with a code and a text, without google.rpc.ErrorInfo, the second cannot keep a handler from running.
// An interceptor must not look at requests: when it could, they are bytes yet.
class GuardedService final : public grpc::Service {
 public:
  // `full_name` as in `gpipe.v1.JobService`. `service` has callback methods only, is not registered itself, and
  // outlives the server, as does the gatekeeper.
  GuardedService(const std::string& full_name, grpc::Service& service, const Gatekeeper& gatekeeper);

 private:
  std::list<std::string> paths_;  // gRPC keeps pointers to them.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_ACCESS_GUARDED_SERVICE_H_
