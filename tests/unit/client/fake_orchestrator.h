#ifndef GPIPE_TESTS_UNIT_CLIENT_FAKE_ORCHESTRATOR_H_
#define GPIPE_TESTS_UNIT_CLIENT_FAKE_ORCHESTRATOR_H_

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/grpc_status.h"
#include "common/sha256.h"
#include "gpipe/v1/monitoring.grpc.pb.h"
#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "grpcpp/grpcpp.h"

namespace gpipe::client {

// One WatchJob stream: what it sends and how it ends; one that `hangs` stays open until its client goes.
struct Script {
  std::vector<v1::WatchJobResponse> updates;
  absl::Status end;
  bool hangs = false;
};

// An orchestrator that answers by script, on a port of the kernel's choice.
class FakeOrchestrator final : public v1::JobService::Service,
                               public v1::ArtifactService::Service,
                               public v1::ClusterService::Service,
                               public v1::MonitoringService::Service {
 public:
  FakeOrchestrator() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(static_cast<v1::JobService::Service*>(this));
    builder.RegisterService(static_cast<v1::ArtifactService::Service*>(this));
    builder.RegisterService(static_cast<v1::ClusterService::Service*>(this));
    builder.RegisterService(static_cast<v1::MonitoringService::Service*>(this));
    server_ = builder.BuildAndStart();
    address_ = absl::StrCat("127.0.0.1:", port);
  }
  ~FakeOrchestrator() override { server_->Shutdown(absl::ToChronoTime(absl::Now())); }

  const std::string& address() const { return address_; }
  void AddStream(Script script) {
    absl::MutexLock lock(&mutex_);
    streams_.push_back(std::move(script));
  }
  // The next submissions fail with these, in turn.
  void AddSubmitError(absl::Status status) {
    absl::MutexLock lock(&mutex_);
    submit_errors_.push_back(std::move(status));
  }
  // A file to download, by its content.
  v1::ArtifactRef AddArtifact(const std::string& content) {
    Sha256 hash;
    hash.Update(content);
    v1::ArtifactRef ref;
    ref.set_sha256(hash.HexDigest());
    ref.set_size(static_cast<int64_t>(content.size()));
    absl::MutexLock lock(&mutex_);
    artifacts_[ref.sha256()] = content;
    return ref;
  }
  void SetMetrics(v1::ListJobMetricsResponse metrics) {
    absl::MutexLock lock(&mutex_);
    metrics_ = std::move(metrics);
  }
  std::vector<std::string> request_ids() const {
    absl::MutexLock lock(&mutex_);
    return request_ids_;
  }

  // Of the watches so far.
  std::vector<v1::WatchJobRequest> watches() const {
    absl::MutexLock lock(&mutex_);
    return watches_;
  }

  // A step 7 of one action.
  grpc::Status GetTimeline(grpc::ServerContext*, const v1::GetTimelineRequest* request,
                           v1::StepTimeline* timeline) override {
    if (request->step() > 7) return grpc::Status(grpc::NOT_FOUND, "no timeline is kept of that step");
    timeline->set_job(request->job());
    timeline->set_step(7);
    timeline->add_workers("w0");
    timeline->add_stage_worker(0);
    timeline->set_step_seconds(0.5);
    timeline->add_actions()->set_kind(v1::ACTION_KIND_FORWARD);
    timeline->mutable_actions(0)->set_nanos(250'000'000);
    return grpc::Status::OK;
  }

  grpc::Status WatchJob(grpc::ServerContext* context, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::WatchJobResponse>* writer) override {
    Script script;
    {
      absl::MutexLock lock(&mutex_);
      watches_.push_back(*request);
      if (streams_.empty()) return grpc::Status(grpc::NOT_FOUND, "there is no such job");
      script = std::move(streams_.front());
      streams_.pop_front();
    }
    for (const auto& update : script.updates) writer->Write(update);
    // Writing fails as soon as the client is gone.
    while (script.hangs && !context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
    return ToGrpc(script.end);
  }

  grpc::Status SubmitJob(grpc::ServerContext*, const v1::SubmitJobRequest* request, v1::Job* job) override {
    absl::MutexLock lock(&mutex_);
    request_ids_.push_back(request->request_id());
    if (!submit_errors_.empty()) {
      const absl::Status error = submit_errors_.front();
      submit_errors_.pop_front();
      return ToGrpc(error);
    }
    job->set_id("job-1");
    job->set_state(v1::Job::STATE_QUEUED);
    *job->mutable_spec() = request->spec();
    return grpc::Status::OK;
  }

  grpc::Status CancelJob(grpc::ServerContext*, const v1::CancelJobRequest* request, v1::Job*) override {
    if (request->id() == "done") return grpc::Status(grpc::FAILED_PRECONDITION, "the job has ended");
    if (request->id() == "denied") return grpc::Status(grpc::PERMISSION_DENIED, "not yours");
    return grpc::Status(grpc::NOT_FOUND, "there is no job " + request->id());
  }

  grpc::Status DeleteJob(grpc::ServerContext*, const v1::DeleteJobRequest* request, v1::DeleteJobResponse*) override {
    if (request->id() == "running") return grpc::Status(grpc::FAILED_PRECONDITION, "the job has not ended");
    if (request->id() == "unknown") return grpc::Status(grpc::NOT_FOUND, "there is no job unknown");
    return grpc::Status::OK;
  }

  // Two pages of two.
  grpc::Status ListJobs(grpc::ServerContext*, const v1::ListJobsRequest* request,
                        v1::ListJobsResponse* response) override {
    const bool first = request->page_token().empty();
    for (const int i : {1, 2}) response->add_jobs()->set_id(absl::StrCat(first ? "new-" : "old-", i));
    if (first) response->set_next_page_token("more");
    return grpc::Status::OK;
  }

  grpc::Status ListJobMetrics(grpc::ServerContext*, const v1::ListJobMetricsRequest*,
                              v1::ListJobMetricsResponse* response) override {
    absl::MutexLock lock(&mutex_);
    *response = metrics_;
    return grpc::Status::OK;
  }

  grpc::Status DownloadArtifact(grpc::ServerContext*, const v1::DownloadArtifactRequest* request,
                                grpc::ServerWriter<v1::DownloadArtifactResponse>* writer) override {
    v1::DownloadArtifactResponse response;
    {
      absl::MutexLock lock(&mutex_);
      const auto found = artifacts_.find(request->ref().sha256());
      if (found == artifacts_.end()) return grpc::Status(grpc::NOT_FOUND, "no such artifact");
      response.set_data(found->second);
    }
    writer->Write(response);
    return grpc::Status::OK;
  }

  grpc::Status GetVersion(grpc::ServerContext*, const v1::GetVersionRequest*,
                          v1::GetVersionResponse* response) override {
    response->set_version("1.2.3");
    return grpc::Status::OK;
  }

 private:
  mutable absl::Mutex mutex_;
  std::deque<Script> streams_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::WatchJobRequest> watches_ ABSL_GUARDED_BY(mutex_);
  std::deque<absl::Status> submit_errors_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> request_ids_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> artifacts_ ABSL_GUARDED_BY(mutex_);
  v1::ListJobMetricsResponse metrics_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace gpipe::client

#endif  // GPIPE_TESTS_UNIT_CLIENT_FAKE_ORCHESTRATOR_H_
