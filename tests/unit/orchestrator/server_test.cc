// The whole orchestrator behind a real gRPC server on loopback.

#include "orchestrator/server.h"

#include <set>
#include <thread>

#include "common/error_reason.h"
#include "common/field_error.h"
#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "gpipe/v1/worker_session.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "orchestrator/api/watch_stream.h"
#include "tests/unit/orchestrator/scheduling_testing.h"

namespace gpipe::orchestrator {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

class ServerTest : public testing::Test {
 protected:
  void SetUp() override { Start(); }
  void Start() {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.state_dir = folder_.path() / "state";
    auto server = Server::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
    jobs_ = v1::JobService::NewStub(channel_);
    cluster_ = v1::ClusterService::NewStub(channel_);
  }

  v1::SubmitJobRequest GoodRequest() {
    v1::SubmitJobRequest request;
    *request.mutable_spec() = ParseSpec(kTrainYaml);
    return request;
  }
  grpc::Status Submit(const v1::SubmitJobRequest& request, v1::Job* job = nullptr) {
    grpc::ClientContext context;
    v1::Job ignored;
    return jobs_->SubmitJob(&context, request, job == nullptr ? &ignored : job);
  }
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::JobService::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request) {
    grpc::ClientContext context;
    Response response;
    return (jobs_.get()->*method)(&context, request, &response);
  }
  grpc::Status Watch(const std::string& id, std::vector<v1::WatchJobResponse>* updates = nullptr) {
    grpc::ClientContext context;
    v1::WatchJobRequest request;
    request.set_id(id);
    auto reader = jobs_->WatchJob(&context, request);
    v1::WatchJobResponse update;
    while (reader->Read(&update)) {
      if (updates != nullptr) updates->push_back(update);
    }
    return reader->Finish();
  }

  TemporaryFolder folder_ = *TemporaryFolder::Create("server");
  std::unique_ptr<Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::ClusterService::Stub> cluster_;
};

TEST_F(ServerTest, BadSubmissionsAreRefusedByField) {
  EXPECT_EQ(Submit({}).error_code(), StatusCode::INVALID_ARGUMENT);
  v1::SubmitJobRequest request = GoodRequest();
  request.mutable_spec()->mutable_model()->add_sequential();
  EXPECT_EQ(Submit(request).error_code(), StatusCode::INVALID_ARGUMENT);
  request = GoodRequest();
  request.mutable_spec()->mutable_pipeline()->set_checkpoint(static_cast<v1::Checkpoint>(77));
  EXPECT_EQ(Submit(request).error_code(), StatusCode::INVALID_ARGUMENT);
  request = GoodRequest();
  request.mutable_spec()->mutable_pipeline()->set_chunks(-1);
  EXPECT_THAT(Submit(request).error_message(), HasSubstr("pipeline.chunks"));
  request = GoodRequest();
  request.set_request_id(std::string(1000, 'x'));
  EXPECT_THAT(Submit(request).error_message(), HasSubstr("request_id"));
  request = GoodRequest();
  (*request.mutable_files())["x"].set_sha256("../../etc/passwd");
  EXPECT_THAT(Submit(request).error_message(), HasSubstr("files[x].sha256"));
  request = GoodRequest();
  request.set_resume_job("nobody");
  EXPECT_EQ(Submit(request).error_code(), StatusCode::NOT_FOUND);
  request.mutable_resume_files();
  EXPECT_THAT(Submit(request).error_message(), HasSubstr("resume_files"));
  request = GoodRequest();
  request.mutable_spec()->set_name(std::string(20 << 20, 'x'));
  EXPECT_EQ(Submit(request).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Submit(GoodRequest()).ok());
}

// It is refused as it is: unpacked it could be of any size.
TEST_F(ServerTest, WhatIsCompressedIsNotUnpacked) {
  v1::SubmitJobRequest request = GoodRequest();
  request.set_request_id(std::string(20 << 20, 'x'));
  for (const auto algorithm : {GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE}) {
    grpc::ClientContext context;
    context.set_compression_algorithm(algorithm);
    v1::Job ignored;
    EXPECT_EQ(jobs_->SubmitJob(&context, request, &ignored).error_code(), StatusCode::UNIMPLEMENTED);
  }
}

TEST_F(ServerTest, AListIsAskedForByFewStates) {
  v1::ListJobsRequest request;
  for (int i = 0; i < 1000; ++i) request.add_states(v1::Job::STATE_QUEUED);
  grpc::ClientContext context;
  v1::ListJobsResponse listed;
  const grpc::Status refused = jobs_->ListJobs(&context, request, &listed);
  EXPECT_EQ(refused.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), HasSubstr("states"));
}

TEST(WatchCountTest, KnowsALimit) {
  WatchCount count;
  for (size_t i = 0; i < WatchCount::kMost; ++i) ASSERT_TRUE(count.Enter());
  EXPECT_FALSE(count.Enter());
  EXPECT_FALSE(count.Enter());
  count.Leave();
  EXPECT_TRUE(count.Enter());
}

std::string Reason(const grpc::Status& status) { return ReasonOf(FromGrpc(status)); }

TEST_F(ServerTest, EveryErrorCarriesAReason) {
  using Stub = v1::JobService::Stub;
  v1::SubmitJobRequest request = GoodRequest();
  request.mutable_spec()->mutable_pipeline()->set_chunks(-1);
  EXPECT_EQ(Reason(Submit(request)), "INVALID_SPEC");
  EXPECT_FALSE(FieldViolations(FromGrpc(Submit(request))).empty());
  request = GoodRequest();
  request.set_request_id(std::string(1000, 'x'));
  EXPECT_EQ(Reason(Submit(request)), "INVALID_REQUEST");
  request = GoodRequest();
  request.set_resume_job("nobody");
  EXPECT_EQ(Reason(Submit(request)), "JOB_NOT_FOUND");

  v1::Job job;
  request = GoodRequest();
  request.set_request_id("once");
  ASSERT_TRUE(Submit(request, &job).ok());
  request.mutable_spec()->set_name("another");
  EXPECT_EQ(Reason(Submit(request)), "REQUEST_ID_REUSED");
  request = GoodRequest();
  request.set_resume_job(job.id());
  EXPECT_EQ(Reason(Submit(request)), "NO_CHECKPOINT");

  v1::PauseJobRequest pause;
  pause.set_id(job.id());
  EXPECT_EQ(Reason(Call(&Stub::PauseJob, pause)), "WRONG_JOB_STATE");
  EXPECT_EQ(Reason(Watch("nobody")), "JOB_NOT_FOUND");
  v1::ListJobsRequest list;
  list.set_page_token("no token");
  EXPECT_EQ(Reason(Call(&Stub::ListJobs, list)), "INVALID_REQUEST");
  v1::PlanJobRequest plan;
  *plan.mutable_spec() = ParseSpec(kTrainYaml);
  EXPECT_EQ(Reason(Call(&Stub::PlanJob, plan)), "NO_WORKER");
}

TEST_F(ServerTest, AFileThatIsNotThereHasItsReason) {
  const auto artifacts = v1::ArtifactService::NewStub(channel_);
  grpc::ClientContext context;
  v1::DownloadArtifactRequest request;
  request.mutable_ref()->set_sha256(std::string(64, 'a'));
  auto reader = artifacts->DownloadArtifact(&context, request);
  v1::DownloadArtifactResponse piece;
  EXPECT_FALSE(reader->Read(&piece));
  const grpc::Status end = reader->Finish();
  EXPECT_EQ(end.error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(Reason(end), "ARTIFACT_NOT_FOUND");
}

TEST_F(ServerTest, BadRequestsOfTheOtherCallsGiveCleanErrors) {
  using Stub = v1::JobService::Stub;
  const std::string huge(1000, 'x');
  for (const std::string& id : {std::string(), huge}) {
    v1::GetJobRequest get;
    get.set_id(id);
    EXPECT_EQ(Call(&Stub::GetJob, get).error_code(), StatusCode::INVALID_ARGUMENT);
    v1::CancelJobRequest cancel;
    cancel.set_id(id);
    EXPECT_EQ(Call(&Stub::CancelJob, cancel).error_code(), StatusCode::INVALID_ARGUMENT);
    v1::PauseJobRequest pause;
    pause.set_id(id);
    EXPECT_EQ(Call(&Stub::PauseJob, pause).error_code(), StatusCode::INVALID_ARGUMENT);
    v1::CheckpointJobRequest checkpoint;
    checkpoint.set_id(id);
    EXPECT_EQ(Call(&Stub::CheckpointJob, checkpoint).error_code(), StatusCode::INVALID_ARGUMENT);
    v1::ResumeJobRequest resume;
    resume.set_id(id);
    EXPECT_EQ(Call(&Stub::ResumeJob, resume).error_code(), StatusCode::INVALID_ARGUMENT);
    v1::ListJobEventsRequest events;
    events.set_id(id);
    EXPECT_EQ(Call(&Stub::ListJobEvents, events).error_code(), StatusCode::INVALID_ARGUMENT);
    v1::ListJobMetricsRequest metrics;
    metrics.set_id(id);
    EXPECT_EQ(Call(&Stub::ListJobMetrics, metrics).error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(Watch(id).error_code(), StatusCode::INVALID_ARGUMENT);
  }
  v1::GetJobRequest get;
  get.set_id("nobody");
  EXPECT_EQ(Call(&Stub::GetJob, get).error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(Watch("nobody").error_code(), StatusCode::NOT_FOUND);
  v1::ListJobMetricsRequest metrics;
  metrics.set_id("nobody");
  EXPECT_EQ(Call(&Stub::ListJobMetrics, metrics).error_code(), StatusCode::NOT_FOUND);
  v1::ListJobsRequest list;
  list.set_page_size(-1);
  EXPECT_EQ(Call(&Stub::ListJobs, list).error_code(), StatusCode::INVALID_ARGUMENT);
  list.set_page_size(1);
  list.set_page_token("no token");
  EXPECT_EQ(Call(&Stub::ListJobs, list).error_code(), StatusCode::INVALID_ARGUMENT);
  list.clear_page_token();
  list.add_states(static_cast<v1::Job::State>(99));
  EXPECT_EQ(Call(&Stub::ListJobs, list).error_code(), StatusCode::INVALID_ARGUMENT);
  v1::PlanJobRequest plan;
  EXPECT_EQ(Call(&Stub::PlanJob, plan).error_code(), StatusCode::INVALID_ARGUMENT);
  *plan.mutable_spec() = ParseSpec(kTrainYaml);
  EXPECT_EQ(Call(&Stub::PlanJob, plan).error_code(), StatusCode::FAILED_PRECONDITION);
  plan.set_workers(-1);
  EXPECT_EQ(Call(&Stub::PlanJob, plan).error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServerTest, ASessionSeesWelcomeAndItsNameInTheList) {
  auto stub = v1::WorkerSessionService::NewStub(channel_);
  grpc::ClientContext context;
  auto session = stub->Session(&context);
  v1::WorkerMessage message;
  v1::Hello& hello = *message.mutable_hello();
  hello.set_name("w0");
  hello.set_device("cpu");
  hello.set_data_address("127.0.0.1");
  hello.set_incarnation("1");
  ASSERT_TRUE(session->Write(message));
  v1::OrchestratorMessage answer;
  ASSERT_TRUE(session->Read(&answer));
  EXPECT_TRUE(answer.has_welcome());

  grpc::ClientContext second_context;
  auto second = stub->Session(&second_context);
  second->Write(message);
  EXPECT_FALSE(second->Read(&answer));
  EXPECT_EQ(second->Finish().error_code(), StatusCode::ALREADY_EXISTS);

  grpc::ClientContext list_context;
  v1::ListWorkersResponse workers;
  ASSERT_TRUE(cluster_->ListWorkers(&list_context, {}, &workers).ok());
  ASSERT_EQ(workers.workers_size(), 1);
  EXPECT_EQ(workers.workers(0).state(), v1::Worker::STATE_IDLE);

  session->WritesDone();
  EXPECT_FALSE(session->Read(&answer));
  EXPECT_TRUE(session->Finish().ok());
}

TEST_F(ServerTest, ASessionThatDoesNotBeginWithHelloIsEnded) {
  auto stub = v1::WorkerSessionService::NewStub(channel_);
  grpc::ClientContext context;
  auto session = stub->Session(&context);
  session->Write(v1::WorkerMessage());
  v1::OrchestratorMessage answer;
  EXPECT_FALSE(session->Read(&answer));
  EXPECT_EQ(session->Finish().error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServerTest, ManyClientsSubmitAtOnceAndNothingIsLost) {
  constexpr int kClients = 8, kEach = 125;
  std::vector<std::thread> clients;
  std::vector<std::vector<std::string>> ids(kClients);
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; i < kEach; ++i) {
        v1::Job job;
        grpc::Status status = Submit(GoodRequest(), &job);
        EXPECT_TRUE(status.ok()) << status.error_message();
        ids[c].push_back(job.id());
      }
    });
  }
  for (std::thread& client : clients) client.join();
  server_->Shutdown();
  Start();
  std::set<std::string> distinct;
  for (const auto& some : ids) distinct.insert(some.begin(), some.end());
  EXPECT_EQ(distinct.size(), static_cast<size_t>(kClients * kEach));
  for (const std::string& id : distinct) {
    v1::GetJobRequest request;
    request.set_id(id);
    ASSERT_TRUE(Call(&v1::JobService::Stub::GetJob, request).ok()) << id;
  }
}

TEST_F(ServerTest, AWatchEndsWithTheJob) {
  v1::Job job;
  ASSERT_TRUE(Submit(GoodRequest(), &job).ok());
  v1::CancelJobRequest cancel;
  cancel.set_id(job.id());
  std::vector<v1::WatchJobResponse> updates;
  grpc::Status end;
  std::thread watcher([&] { end = Watch(job.id(), &updates); });
  EXPECT_TRUE(Call(&v1::JobService::Stub::CancelJob, cancel).ok());
  watcher.join();
  EXPECT_TRUE(end.ok());
  ASSERT_FALSE(updates.empty());
  EXPECT_EQ(updates.back().job().state(), v1::Job::STATE_CANCELLED);
  EXPECT_EQ(Call(&v1::JobService::Stub::CancelJob, cancel).error_code(), StatusCode::FAILED_PRECONDITION);
}

TEST_F(ServerTest, AShutdownEndsOpenCallsInBoundedTime) {
  v1::Job job;
  ASSERT_TRUE(Submit(GoodRequest(), &job).ok());
  grpc::ClientContext context;
  v1::WatchJobRequest request;
  request.set_id(job.id());
  auto watch = jobs_->WatchJob(&context, request);
  v1::WatchJobResponse update;
  ASSERT_TRUE(watch->Read(&update));
  auto stub = v1::WorkerSessionService::NewStub(channel_);
  grpc::ClientContext session_context;
  auto session = stub->Session(&session_context);
  const absl::Time start = absl::Now();
  server_->Shutdown();
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  while (watch->Read(&update)) {
  }
  EXPECT_EQ(watch->Finish().error_code(), StatusCode::UNAVAILABLE);
}

TEST_F(ServerTest, TwoOrchestratorsCannotShareAFolder) {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.state_dir = folder_.path() / "state";
  EXPECT_TRUE(absl::IsFailedPrecondition(Server::Start(options).status()));
  options.state_dir = folder_.path() / "other";
  options.listen = server_->address();
  EXPECT_TRUE(absl::IsUnavailable(Server::Start(options).status()));
}

TEST_F(ServerTest, FilesWithoutTheirDatabaseAreNotServedAsAnEmptyCluster) {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.state_dir = folder_.path() / "lost";
  std::filesystem::create_directories(options.state_dir / "artifacts" /
                                      "tmp");  // As a start that was interrupted left it.
  ASSERT_TRUE(Server::Start(options).ok());
  std::filesystem::remove(options.state_dir / "gpipe.db");
  std::filesystem::create_directories(options.state_dir / "artifacts" / "ab");
  const absl::Status lost = Server::Start(options).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(lost)) << lost;
  EXPECT_THAT(std::string(lost.message()), HasSubstr((options.state_dir / "gpipe.db").string()));
  EXPECT_FALSE(std::filesystem::exists(options.state_dir / "gpipe.db"));
}

}  // namespace
}  // namespace gpipe::orchestrator
