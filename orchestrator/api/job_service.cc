#include "orchestrator/api/job_service.h"

#include <vector>

#include "common/printable.h"
#include "common/spec/validator.h"
#include "common/status_macros.h"
#include "orchestrator/api/request_check.h"
#include "orchestrator/api/unary.h"

namespace gpipe::orchestrator {

// The request is gRPC's and valid until Finish.
JobService::Reactor* JobService::SubmitJob(Context* context, const v1::SubmitJobRequest* request, v1::Job* response) {
  if (absl::Status status = CheckRequest(*request); !status.ok()) return Refuse(context, status);
  Reactor* reactor = context->DefaultReactor();
  auto task = [admission = parts_.admission, reactor, request, response, spec = spec::WithDefaults(request->spec()),
               caller = Printable(parts_.gatekeeper->WhoCalls(*context).name)] {
    admission->Submit(*request, spec, caller,
                      [reactor, response](absl::StatusOr<v1::Job> job) { Finish(reactor, response, std::move(job)); });
  };
  if (!parts_.loop->TryPost(std::move(task))) reactor->Finish(ToGrpc(Overloaded()));
  return reactor;
}

JobService::Reactor* JobService::PlanJob(Context* context, const v1::PlanJobRequest* request,
                                         v1::PlanJobResponse* response) {
  if (absl::Status status = CheckRequest(*request); !status.ok()) return Refuse(context, status);
  Reactor* reactor = context->DefaultReactor();
  auto task = [admission = parts_.admission, reactor, request, response, spec = spec::WithDefaults(request->spec())] {
    admission->Plan(*request, spec, [reactor, response](absl::StatusOr<v1::PlanJobResponse> plan) {
      Finish(reactor, response, std::move(plan));
    });
  };
  if (!parts_.loop->TryPost(std::move(task))) reactor->Finish(ToGrpc(Overloaded()));
  return reactor;
}

JobService::Reactor* JobService::GetJob(Context* context, const v1::GetJobRequest* request, v1::Job* response) {
  if (absl::Status status = CheckJobId(request->id()); !status.ok()) return Refuse(context, status);
  return AnswerOnLoop<v1::Job>(parts_.loop, context, response,
                               [book = parts_.book, request] { return book->Get(request->id()); });
}

JobService::Reactor* JobService::ListJobs(Context* context, const v1::ListJobsRequest* request,
                                          v1::ListJobsResponse* response) {
  if (absl::Status status = CheckRequest(*request); !status.ok()) return Refuse(context, status);
  auto body = [book = parts_.book, request]() -> absl::StatusOr<v1::ListJobsResponse> {
    std::vector<v1::Job::State> states;
    for (int state : request->states()) states.push_back(static_cast<v1::Job::State>(state));
    GPIPE_ASSIGN_OR_RETURN(Page<v1::Job> page,
                           book->List(request->page_size(), request->page_token(), states, request->results()));
    v1::ListJobsResponse listed;
    listed.mutable_jobs()->Assign(page.items.begin(), page.items.end());
    listed.set_next_page_token(page.next_page_token);
    return listed;
  };
  return AnswerOnLoop<v1::ListJobsResponse>(parts_.loop, context, response, std::move(body));
}

grpc::ServerWriteReactor<v1::WatchJobResponse>* JobService::WatchJob(Context*, const v1::WatchJobRequest* request) {
  return new WatchStream(parts_.loop, parts_.book, &watches_, *request);
}

JobService::Reactor* JobService::CancelJob(Context* context, const v1::CancelJobRequest* request, v1::Job* response) {
  if (absl::Status status = CheckJobId(request->id()); !status.ok()) return Refuse(context, status);
  return AnswerOnLoop<v1::Job>(parts_.loop, context, response,
                               [scheduler = parts_.scheduler, request] { return scheduler->Cancel(request->id()); });
}

JobService::Reactor* JobService::PauseJob(Context* context, const v1::PauseJobRequest* request, v1::Job* response) {
  if (absl::Status status = CheckJobId(request->id()); !status.ok()) return Refuse(context, status);
  return AnswerOnLoop<v1::Job>(parts_.loop, context, response,
                               [scheduler = parts_.scheduler, request] { return scheduler->Pause(request->id()); });
}

JobService::Reactor* JobService::ResumeJob(Context* context, const v1::ResumeJobRequest* request, v1::Job* response) {
  if (absl::Status status = CheckJobId(request->id()); !status.ok()) return Refuse(context, status);
  return AnswerOnLoop<v1::Job>(parts_.loop, context, response,
                               [scheduler = parts_.scheduler, request] { return scheduler->Resume(request->id()); });
}

JobService::Reactor* JobService::CheckpointJob(Context* context, const v1::CheckpointJobRequest* request,
                                               v1::CheckpointJobResponse* response) {
  if (absl::Status status = CheckJobId(request->id()); !status.ok()) return Refuse(context, status);
  return AnswerOnLoop<v1::CheckpointJobResponse>(
      parts_.loop, context, response,
      [scheduler = parts_.scheduler, request] { return scheduler->Checkpoint(request->id()); });
}

JobService::Reactor* JobService::DeleteJob(Context* context, const v1::DeleteJobRequest* request,
                                           v1::DeleteJobResponse* /*response*/) {
  if (absl::Status status = CheckJobId(request->id()); !status.ok()) return Refuse(context, status);
  Reactor* reactor = context->DefaultReactor();
  auto task = [housekeeper = parts_.housekeeper, reactor, id = request->id()] {
    housekeeper->Delete(id, [reactor](const absl::Status& deleted) { reactor->Finish(ToGrpc(deleted)); });
  };
  if (!parts_.loop->TryPost(std::move(task))) reactor->Finish(ToGrpc(Overloaded()));
  return reactor;
}

JobService::Reactor* JobService::ListJobEvents(Context* context, const v1::ListJobEventsRequest* request,
                                               v1::ListJobEventsResponse* response) {
  if (absl::Status status = CheckJobId(request->id()); !status.ok()) return Refuse(context, status);
  auto body = [book = parts_.book, request]() -> absl::StatusOr<v1::ListJobEventsResponse> {
    GPIPE_ASSIGN_OR_RETURN(Page<v1::JobEvent> page,
                           book->ListEvents(request->id(), request->page_size(), request->page_token()));
    v1::ListJobEventsResponse listed;
    listed.mutable_events()->Assign(page.items.begin(), page.items.end());
    listed.set_next_page_token(page.next_page_token);
    return listed;
  };
  return AnswerOnLoop<v1::ListJobEventsResponse>(parts_.loop, context, response, std::move(body));
}

JobService::Reactor* JobService::ListJobMetrics(Context* context, const v1::ListJobMetricsRequest* request,
                                                v1::ListJobMetricsResponse* response) {
  if (absl::Status status = CheckJobId(request->id()); !status.ok()) return Refuse(context, status);
  return AnswerOnLoop<v1::ListJobMetricsResponse>(parts_.loop, context, response, [book = parts_.book, request] {
    return book->ListMetrics(request->id(), request->page_size(), request->page_token());
  });
}

}  // namespace gpipe::orchestrator
