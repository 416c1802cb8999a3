#include "client/api/cluster_client.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/grpc_status.h"
#include "common/net/channel.h"
#include "common/status_macros.h"

namespace gpipe::client {
namespace {

constexpr absl::Duration kQuickCall = absl::Seconds(10);
// Submitting and planning find shapes, and perhaps measure layers, on a worker.
constexpr absl::Duration kSlowCall = absl::Minutes(2);
// How long connecting is tried again before a call fails for want of a connection. gRPC before 1.61 takes other errors
// for those of connect(), and gives up an attempt that was underway (grpc/grpc#35064).
constexpr absl::Duration kConnectPatience = absl::Milliseconds(300);
constexpr int kJobsPerPage = 1000;
constexpr int kStepsPerPage = 10000;
constexpr int kMaxMessageBytes = 256 << 20;

std::shared_ptr<grpc::Channel> Connect(const Endpoint& orchestrator) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  return MakeChannel(orchestrator, std::move(arguments));
}

std::chrono::system_clock::time_point ToDeadline(absl::Time time) {
  return time == absl::InfiniteFuture() ? std::chrono::system_clock::time_point::max() : absl::ToChronoTime(time);
}

}  // namespace

ClusterClient::ClusterClient(ClientOptions options)
    : options_(std::move(options)),
      channel_(Connect({options_.address, options_.credentials})),
      jobs_(v1::JobService::NewStub(channel_)),
      artifacts_({options_.address, options_.credentials}),
      cluster_(v1::ClusterService::NewStub(channel_)),
      monitoring_(v1::MonitoringService::NewStub(channel_)),
      admin_(v1::AdminService::NewStub(channel_)) {}

absl::Time ClusterClient::last_heard() const {
  const int64_t nanos = last_heard_nanos_.load();
  return nanos == INT64_MIN ? absl::InfinitePast() : absl::FromUnixNanos(nanos);
}

void ClusterClient::AwaitConnection(absl::Time deadline) {
  channel_->WaitForConnected(ToDeadline(std::min(deadline, absl::Now() + kConnectPatience)));
}

absl::Status ClusterClient::Finished(const grpc::Status& status) {
  const bool never_connected =
      status.error_code() == grpc::DEADLINE_EXCEEDED && channel_->GetState(false) != GRPC_CHANNEL_READY;
  if (status.error_code() == grpc::UNAVAILABLE || never_connected) {
    return absl::UnavailableError(absl::StrCat("orchestrator at ", options_.address, ": ", status.error_message()));
  }
  if (!options_.stop.stop_requested()) last_heard_nanos_ = absl::GetCurrentTimeNanos();
  return FromGrpc(status);
}

template <typename Response, typename Request, typename Stub>
absl::StatusOr<Response> ClusterClient::Call(Stub& stub,
                                             grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                                          Response*),
                                             const Request& request, absl::Duration default_timeout) {
  grpc::ClientContext context;
  const absl::Duration timeout = options_.timeout > absl::ZeroDuration() ? options_.timeout : default_timeout;
  const absl::Time deadline = absl::Now() + timeout;
  context.set_deadline(ToDeadline(deadline));
  std::stop_callback cancel(options_.stop, [&context] { context.TryCancel(); });
  AwaitConnection(deadline);
  Response response;
  GPIPE_RETURN_IF_ERROR(Finished((stub.*method)(&context, request, &response)));
  return response;
}

absl::StatusOr<v1::Job> ClusterClient::SubmitJob(const v1::SubmitJobRequest& request) {
  return Call(*jobs_, &v1::JobService::StubInterface::SubmitJob, request, kSlowCall);
}

absl::StatusOr<v1::Job> ClusterClient::GetJob(const std::string& id) {
  v1::GetJobRequest request;
  request.set_id(id);
  return Call(*jobs_, &v1::JobService::StubInterface::GetJob, request, kQuickCall);
}

absl::StatusOr<v1::Job> ClusterClient::CancelJob(const std::string& id) {
  v1::CancelJobRequest request;
  request.set_id(id);
  return Call(*jobs_, &v1::JobService::StubInterface::CancelJob, request, kQuickCall);
}

absl::StatusOr<v1::Job> ClusterClient::PauseJob(const std::string& id) {
  v1::PauseJobRequest request;
  request.set_id(id);
  return Call(*jobs_, &v1::JobService::StubInterface::PauseJob, request, kQuickCall);
}

absl::StatusOr<v1::CheckpointJobResponse> ClusterClient::CheckpointJob(const std::string& id) {
  v1::CheckpointJobRequest request;
  request.set_id(id);
  return Call(*jobs_, &v1::JobService::StubInterface::CheckpointJob, request, kQuickCall);
}

absl::StatusOr<v1::Job> ClusterClient::ResumeJob(const std::string& id) {
  v1::ResumeJobRequest request;
  request.set_id(id);
  return Call(*jobs_, &v1::JobService::StubInterface::ResumeJob, request, kQuickCall);
}

absl::Status ClusterClient::DeleteJob(const std::string& id) {
  v1::DeleteJobRequest request;
  request.set_id(id);
  return Call(*jobs_, &v1::JobService::StubInterface::DeleteJob, request, kQuickCall).status();
}

absl::StatusOr<v1::PlanJobResponse> ClusterClient::PlanJob(const v1::PlanJobRequest& request) {
  return Call(*jobs_, &v1::JobService::StubInterface::PlanJob, request, kSlowCall);
}

absl::StatusOr<v1::ListWorkersResponse> ClusterClient::ListWorkers() {
  return Call(*cluster_, &v1::ClusterService::StubInterface::ListWorkers, v1::ListWorkersRequest(), kQuickCall);
}

absl::StatusOr<v1::Worker> ClusterClient::DrainWorker(const std::string& name, const std::string& reason) {
  v1::DrainWorkerRequest request;
  request.set_name(name);
  request.set_reason(reason);
  return Call(*cluster_, &v1::ClusterService::StubInterface::DrainWorker, request, kQuickCall);
}

absl::StatusOr<v1::Worker> ClusterClient::UndrainWorker(const std::string& name) {
  v1::UndrainWorkerRequest request;
  request.set_name(name);
  return Call(*cluster_, &v1::ClusterService::StubInterface::UndrainWorker, request, kQuickCall);
}

absl::StatusOr<v1::GetVersionResponse> ClusterClient::GetVersion() {
  return Call(*cluster_, &v1::ClusterService::StubInterface::GetVersion, v1::GetVersionRequest(), kQuickCall);
}

absl::StatusOr<v1::StepTimeline> ClusterClient::GetTimeline(const std::string& job, int64_t step) {
  v1::GetTimelineRequest request;
  request.set_job(job);
  request.set_step(step);
  return Call(*monitoring_, &v1::MonitoringService::StubInterface::GetTimeline, request, kQuickCall);
}

absl::StatusOr<v1::ListJobsResponse> ClusterClient::ListJobs(const std::vector<v1::Job::State>& states, int limit) {
  v1::ListJobsRequest request;
  for (v1::Job::State state : states) request.add_states(state);
  v1::ListJobsResponse all;
  do {
    const int missing = limit - all.jobs_size();
    request.set_page_size(limit == 0 ? kJobsPerPage : std::min(kJobsPerPage, missing));
    GPIPE_ASSIGN_OR_RETURN(v1::ListJobsResponse page,
                           Call(*jobs_, &v1::JobService::StubInterface::ListJobs, request, kQuickCall));
    all.mutable_jobs()->MergeFrom(page.jobs());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() && (limit == 0 || all.jobs_size() < limit));
  all.set_next_page_token(request.page_token());  // Whether there are more.
  return all;
}

absl::StatusOr<v1::ListJobEventsResponse> ClusterClient::ListJobEvents(const std::string& id) {
  v1::ListJobEventsRequest request;
  request.set_id(id);
  v1::ListJobEventsResponse all;
  do {
    GPIPE_ASSIGN_OR_RETURN(v1::ListJobEventsResponse page,
                           Call(*jobs_, &v1::JobService::StubInterface::ListJobEvents, request, kQuickCall));
    all.mutable_events()->MergeFrom(page.events());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return all;
}

absl::StatusOr<v1::ListJobMetricsResponse> ClusterClient::ListJobMetrics(const std::string& id, int limit) {
  v1::ListJobMetricsRequest request;
  request.set_id(id);
  v1::ListJobMetricsResponse all;
  do {
    const int missing = limit - all.steps_size();
    request.set_page_size(limit == 0 ? kStepsPerPage : std::min(kStepsPerPage, missing));
    GPIPE_ASSIGN_OR_RETURN(v1::ListJobMetricsResponse page,
                           Call(*jobs_, &v1::JobService::StubInterface::ListJobMetrics, request, kQuickCall));
    all.mutable_steps()->MergeFrom(page.steps());
    all.mutable_evaluations()->MergeFrom(page.evaluations());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() && (limit == 0 || all.steps_size() < limit));
  return all;
}

absl::Status ClusterClient::BackUp(const v1::BackUpRequest& request, const OnBackUpPart& on_part) {
  grpc::ClientContext context;
  std::stop_callback cancel(options_.stop, [&context] { context.TryCancel(); });
  AwaitConnection(absl::InfiniteFuture());
  const auto reader = admin_->BackUp(&context, request);
  absl::Status taken;
  v1::BackUpResponse part;
  while (taken.ok() && reader->Read(&part)) taken = on_part(part);
  if (!taken.ok()) context.TryCancel();
  const absl::Status finished = Finished(reader->Finish());
  return taken.ok() ? finished : taken;
}

absl::Status ClusterClient::WatchJob(const v1::WatchJobRequest& request, absl::Time deadline,
                                     const OnUpdate& on_update) {
  grpc::ClientContext context;
  context.set_deadline(ToDeadline(deadline));
  std::stop_callback cancel(options_.stop, [&context] { context.TryCancel(); });
  AwaitConnection(deadline);
  const auto reader = jobs_->WatchJob(&context, request);
  v1::WatchJobResponse update;
  while (reader->Read(&update)) {
    last_heard_nanos_ = absl::GetCurrentTimeNanos();
    if (!on_update(update)) context.TryCancel();
  }
  // Unlike a unary call, a watch is given its deadline by the user, so passing it is never a matter of the connection.
  const grpc::Status status = reader->Finish();
  return status.error_code() == grpc::DEADLINE_EXCEEDED ? FromGrpc(status) : Finished(status);
}

bool WaitUnlessStopped(const std::stop_token& stop, absl::Duration duration) {
  absl::Notification stopped;
  std::stop_callback notify(stop, [&stopped] { stopped.Notify(); });
  return !stopped.WaitForNotificationWithTimeout(duration);
}

}  // namespace gpipe::client
