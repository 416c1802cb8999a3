#ifndef GPIPE_ORCHESTRATOR_API_ROUND_SERVICE_H_
#define GPIPE_ORCHESTRATOR_API_ROUND_SERVICE_H_

#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/scheduling/scheduler.h"

namespace gpipe::orchestrator {

// Rounds that clients ask for. What a job's rounds are and whether they make sense is Scheduler's and AskedRounds'.
class RoundService final : public v1::RoundService::CallbackService {
 public:
  // Both must outlive the server.
  RoundService(EventLoop* loop, Scheduler* scheduler) : loop_(loop), scheduler_(scheduler) {}

  grpc::ServerBidiReactor<v1::AskRoundsRequest, v1::AskRoundsResponse>* AskRounds(
      grpc::CallbackServerContext* context) override;

 private:
  EventLoop* const loop_;
  Scheduler* const scheduler_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_API_ROUND_SERVICE_H_
