#ifndef GPIPE_CLIENT_API_CLUSTER_CLIENT_H_
#define GPIPE_CLIENT_API_CLUSTER_CLIENT_H_

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/artifacts/connections.h"
#include "common/artifacts/transfer_options.h"
#include "gpipe/v1/monitoring.grpc.pb.h"
#include "gpipe/v1/pipeline_service.grpc.pb.h"

namespace gpipe::client {

struct ClientOptions {
  std::string address;  // HOST:PORT
  // From MakeCredentials (common/net/channel.h); null: plain text.
  std::shared_ptr<grpc::ChannelCredentials> credentials = nullptr;
  // Deadline of each unary call; zero takes the default of that call.
  absl::Duration timeout = absl::ZeroDuration();
  // When it is stopped, calls underway end with CANCELLED, and so does every later call.
  std::stop_token stop = {};
  // Called about the files that are read, sent and fetched, on the thread that waits for them; null: not wanted.
  OnFileProgress on_file = {};
  // The artifacts' folder of an orchestrator that was started by this process and ends with it: it reads files where
  // they are, and hands out its own as links. Empty: any other orchestrator.
  std::filesystem::path private_store = {};
  // Called before a job is submitted or planned, after its files are given: whoever starts a cluster waits for it no
  // sooner. Null: the cluster is there.
  std::function<absl::Status()> await_cluster = {};
};

// The orchestrator's API as blocking calls. Connects at the first call, and again when it must. Any thread may call any
// method. Errors are those of the API with their details (common/field_error.h). UNAVAILABLE names the address, and
// comes a moment later than the first refusal, as that may be a mistake (AwaitConnection); a deadline that passes
// before there ever was a connection is UNAVAILABLE too.
class ClusterClient {
 public:
  explicit ClusterClient(ClientOptions options);
  ClusterClient(const ClusterClient&) = delete;
  ClusterClient& operator=(const ClusterClient&) = delete;

  const std::string& address() const { return options_.address; }
  const std::stop_token& stop() const { return options_.stop; }
  // When the orchestrator was last heard from; InfinitePast when never.
  absl::Time last_heard() const;

  absl::StatusOr<v1::Job> SubmitJob(const v1::SubmitJobRequest& request);
  absl::StatusOr<v1::Job> GetJob(const std::string& id);
  absl::StatusOr<v1::Job> CancelJob(const std::string& id);
  absl::StatusOr<v1::Job> PauseJob(const std::string& id);
  // Answers before the checkpoint is written.
  absl::StatusOr<v1::CheckpointJobResponse> CheckpointJob(const std::string& id);
  absl::StatusOr<v1::Job> ResumeJob(const std::string& id);
  absl::Status DeleteJob(const std::string& id);
  absl::StatusOr<v1::PlanJobResponse> PlanJob(const v1::PlanJobRequest& request);
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers();
  absl::StatusOr<v1::Worker> DrainWorker(const std::string& name, const std::string& reason);
  absl::StatusOr<v1::Worker> UndrainWorker(const std::string& name);
  absl::StatusOr<v1::GetVersionResponse> GetVersion();
  // Of one of its last steps; 0: the last one.
  absl::StatusOr<v1::StepTimeline> GetTimeline(const std::string& job, int64_t step);

  // The newest `limit` jobs, over as many pages as it takes; all when 0. next_page_token is empty.
  absl::StatusOr<v1::ListJobsResponse> ListJobs(const std::vector<v1::Job::State>& states, int limit);
  // All pages.
  absl::StatusOr<v1::ListJobEventsResponse> ListJobEvents(const std::string& id);
  // With the first `limit` steps; with all when 0.
  absl::StatusOr<v1::ListJobMetricsResponse> ListJobMetrics(const std::string& id, int limit = 0);

  // One stream from its start to its end, and how it ended. `on_update` runs on the calling thread; false ends it.
  // Callers that must survive a broken stream use client/api/follow.h.
  using OnUpdate = std::function<bool(const v1::WatchJobResponse&)>;
  absl::Status WatchJob(const v1::WatchJobRequest& request, absl::Time deadline, const OnUpdate& on_update);

  // A stream of the orchestrator's state; `on_part` runs on the calling thread, and its first error ends it.
  using OnBackUpPart = std::function<absl::Status(const v1::BackUpResponse&)>;
  absl::Status BackUp(const v1::BackUpRequest& request, const OnBackUpPart& on_part);

  // For common/artifacts/transfer.h.
  ArtifactConnections& artifacts() { return artifacts_; }
  TransferOptions transfer_options() const { return {.on_progress = options_.on_file, .stop = options_.stop}; }
  const std::filesystem::path& private_store() const { return options_.private_store; }
  absl::Status AwaitCluster() const { return options_.await_cluster ? options_.await_cluster() : absl::OkStatus(); }

 private:
  template <typename Response, typename Request, typename Stub>
  absl::StatusOr<Response> Call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                const Request& request, absl::Duration default_timeout);
  // Waits a moment for a connection, where there is none; whether it came is said by the call that follows.
  void AwaitConnection(absl::Time deadline);
  absl::Status Finished(const grpc::Status& status);

  const ClientOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::JobService::StubInterface> jobs_;
  ArtifactConnections artifacts_;
  const std::unique_ptr<v1::ClusterService::StubInterface> cluster_;
  const std::unique_ptr<v1::MonitoringService::StubInterface> monitoring_;
  const std::unique_ptr<v1::AdminService::StubInterface> admin_;
  std::atomic<int64_t> last_heard_nanos_{INT64_MIN};
};

// Waits; false as soon as the token is stopped.
bool WaitUnlessStopped(const std::stop_token& stop, absl::Duration duration);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_API_CLUSTER_CLIENT_H_
