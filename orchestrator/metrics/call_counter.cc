#include "orchestrator/metrics/call_counter.h"

#include <string>
#include <utility>

#include "common/error_reason.h"
#include "common/grpc_status.h"
#include "orchestrator/metrics/definitions.h"

namespace gpipe::orchestrator {
namespace {

constexpr char kOther[] = "other";

class CountingInterceptor final : public grpc::experimental::Interceptor {
 public:
  CountingInterceptor(CallCounter* counter, const char* method) : counter_(counter), method_(method) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      counter_->Count(method_, methods->GetSendStatus());
    }
    methods->Proceed();
  }

 private:
  CallCounter* const counter_;
  const char* const method_;
};

}  // namespace

CallCounter::CallCounter(prometheus::Registry& registry, Methods known)
    : known_(std::move(known)), calls_(registry, metric::kCalls), rejected_(registry, metric::kRejected) {
  for (const std::string_view reason : {reason::kOverloaded, reason::kTooManyJobs, reason::kTooManyWatchers}) {
    rejected_.At({std::string(reason)});
  }
}

// gRPC takes it over.
grpc::experimental::Interceptor* CallCounter::CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) {
  return new CountingInterceptor(this, info->method());
}

void CallCounter::Count(std::string_view method, const grpc::Status& status) {
  const absl::Status ended = FromGrpc(status);
  const std::string code = ended.ok() ? "OK" : absl::StatusCodeToString(ended.code());
  calls_.At({known_.contains(method) ? std::string(method.substr(1)) : kOther, code}).Increment();
  if (!absl::IsResourceExhausted(ended)) return;
  const std::string reason = ReasonOf(ended);
  rejected_.At({reason.empty() ? code : reason}).Increment();
}

}  // namespace gpipe::orchestrator
