#ifndef GPIPE_ORCHESTRATOR_METRICS_CALL_COUNTER_H_
#define GPIPE_ORCHESTRATOR_METRICS_CALL_COUNTER_H_

#include <functional>
#include <set>
#include <string>
#include <string_view>

#include "common/metrics/counted.h"
#include "grpcpp/support/server_interceptor.h"

namespace gpipe::orchestrator {

// Counts the calls of a gRPC server as they end, and those that a limit refused. Any thread. It belongs to the server;
// the registry must outlive that. Calls of methods that are not known are counted as one, `other`.
class CallCounter final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  using Methods = std::set<std::string, std::less<>>;  // `/gpipe.v1.JobService/GetJob`
  CallCounter(prometheus::Registry& registry, Methods known);

  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override;

  void Count(std::string_view method, const grpc::Status& status);

 private:
  const Methods known_;
  metrics::CounterFamily calls_;
  metrics::CounterFamily rejected_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_METRICS_CALL_COUNTER_H_
