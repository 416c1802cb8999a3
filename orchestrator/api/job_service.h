#ifndef GPIPE_ORCHESTRATOR_API_JOB_SERVICE_H_
#define GPIPE_ORCHESTRATOR_API_JOB_SERVICE_H_

#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "orchestrator/access/gatekeeper.h"
#include "orchestrator/api/watch_stream.h"
#include "orchestrator/cluster/event_loop.h"
#include "orchestrator/scheduling/admission.h"
#include "orchestrator/scheduling/housekeeper.h"
#include "orchestrator/scheduling/job_book.h"
#include "orchestrator/scheduling/scheduler.h"

namespace gpipe::orchestrator {

// Jobs, for clients: checks requests in gRPC's threads and answers them on the loop. All parts must outlive the server.
class JobService final : public v1::JobService::CallbackService {
 public:
  struct Parts {
    EventLoop* loop;
    JobBook* book;
    Scheduler* scheduler;
    Admission* admission;
    Housekeeper* housekeeper;
    const Gatekeeper* gatekeeper;
  };
  explicit JobService(const Parts& parts) : parts_(parts) {}

  using Reactor = grpc::ServerUnaryReactor;
  using Context = grpc::CallbackServerContext;

  Reactor* SubmitJob(Context* context, const v1::SubmitJobRequest* request, v1::Job* response) override;
  Reactor* GetJob(Context* context, const v1::GetJobRequest* request, v1::Job* response) override;
  Reactor* ListJobs(Context* context, const v1::ListJobsRequest* request, v1::ListJobsResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(Context* context,
                                                           const v1::WatchJobRequest* request) override;
  Reactor* CancelJob(Context* context, const v1::CancelJobRequest* request, v1::Job* response) override;
  Reactor* PauseJob(Context* context, const v1::PauseJobRequest* request, v1::Job* response) override;
  Reactor* CheckpointJob(Context* context, const v1::CheckpointJobRequest* request,
                         v1::CheckpointJobResponse* response) override;
  Reactor* ResumeJob(Context* context, const v1::ResumeJobRequest* request, v1::Job* response) override;
  Reactor* DeleteJob(Context* context, const v1::DeleteJobRequest* request, v1::DeleteJobResponse* response) override;
  Reactor* ListJobEvents(Context* context, const v1::ListJobEventsRequest* request,
                         v1::ListJobEventsResponse* response) override;
  Reactor* ListJobMetrics(Context* context, const v1::ListJobMetricsRequest* request,
                          v1::ListJobMetricsResponse* response) override;
  Reactor* PlanJob(Context* context, const v1::PlanJobRequest* request, v1::PlanJobResponse* response) override;

 private:
  const Parts parts_;
  WatchCount watches_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_API_JOB_SERVICE_H_
