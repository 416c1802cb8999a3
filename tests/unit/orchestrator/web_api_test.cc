// JSON over HTTP, before services that note what they are asked, on a real gRPC server inside the process.

#include "orchestrator/web/web_api.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/error_reason.h"
#include "common/field_error.h"
#include "common/grpc_status.h"
#include "gmock/gmock.h"
#include "gpipe/v1/monitoring.grpc.pb.h"
#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "orchestrator/web/api_routes.h"
#include "orchestrator/web/http_errors.h"

namespace gpipe::orchestrator {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// Sends two updates, and then waits until the watch is cancelled, or ends.
class FakeWatch final : public grpc::ServerWriteReactor<v1::WatchJobResponse> {
 public:
  explicit FakeWatch(bool endless) : endless_(endless) { Send(); }
  void OnWriteDone(bool) override {
    if (sent_ < 2) return Send();
    if (!endless_) Finish(grpc::Status::OK);
  }
  void OnCancel() override {
    if (endless_) Finish(grpc::Status::CANCELLED);
  }
  void OnDone() override { delete this; }

 private:
  void Send() {
    update_.mutable_step()->set_step(++sent_);
    update_.set_resume_token("token-" + std::to_string(sent_));
    StartWrite(&update_);
  }

  const bool endless_;
  int sent_ = 0;
  v1::WatchJobResponse update_;
};

class FakeJobs final : public v1::JobService::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context, const v1::GetJobRequest* request,
                                   v1::Job* job) override {
    NoteToken(*context);
    job->set_id(request->id());
    job->set_state(v1::Job::STATE_RUNNING);
    job->set_steps_done(12);
    job->mutable_last_step()->set_loss(0.5);
    job->mutable_last_step()->set_lr(0.1);
    return Finish(context, request->id() == "gone"
                               ? WithReason(absl::NotFoundError("no job gone"), reason::kJobNotFound)
                               : absl::OkStatus());
  }
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context, const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override {
    listed = *request;
    for (const char* id : {"a", "b"}) response->add_jobs()->set_id(id);
    response->mutable_jobs(0)->set_reason("because");
    response->set_next_page_token("2");
    return Finish(context, absl::OkStatus());
  }
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* context, const v1::CancelJobRequest* request,
                                      v1::Job* job) override {
    NoteToken(*context);
    cancelled = request->id();
    job->set_id(request->id());
    return Finish(context, absl::OkStatus());
  }
  grpc::ServerWriteReactor<v1::WatchJobResponse>* WatchJob(grpc::CallbackServerContext*,
                                                           const v1::WatchJobRequest* request) override {
    watched = *request;
    return new FakeWatch(request->id() == "endless");
  }

  std::string token, cancelled;
  v1::ListJobsRequest listed;
  v1::WatchJobRequest watched;

 private:
  void NoteToken(const grpc::CallbackServerContext& context) {
    const auto found = context.client_metadata().find("authorization");
    token = found == context.client_metadata().end() ? "" : std::string(found->second.data(), found->second.size());
  }
  static grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context, const absl::Status& status) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpc(status));
    return reactor;
  }
};

class WebApiTest : public testing::Test {
 protected:
  WebApiTest() {
    grpc::ServerBuilder builder;
    builder.RegisterService(&jobs_);
    server_ = builder.BuildAndStart();
    api_ = std::make_unique<WebApi>(WebOptions{.channel = server_->InProcessChannel({}), .reader_token = "reader"});
  }

  HttpResponse Get(const std::string& path, std::map<std::string, std::string> query = {}) {
    return api_->Answer({.method = "GET", .path = path, .query = std::move(query)});
  }
  HttpResponse Post(const std::string& path, std::map<std::string, std::string> headers, std::string body = "{}") {
    return api_->Answer({.method = "POST", .path = path, .headers = std::move(headers), .body = std::move(body)});
  }

  FakeJobs jobs_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<WebApi> api_;
};

TEST(ApiRoutesTest, EachStandsForAnRpcThatHasTheFieldOfThePath) {
  for (const ApiRoute& route : AllApiRoutes()) {
    const auto* method = &MethodOf(route);
    ASSERT_NE(method, nullptr) << route.rpc;
    EXPECT_FALSE(method->client_streaming());
    if (method->server_streaming()) {
      EXPECT_NE(method->output_type()->FindFieldByName("resume_token"), nullptr) << route.rpc;
    }
    const size_t open = route.pattern.find('{');
    if (open == std::string_view::npos) continue;
    const std::string field(route.pattern.substr(open + 1, route.pattern.find('}') - open - 1));
    EXPECT_NE(method->input_type()->FindFieldByName(field), nullptr) << route.pattern;
  }
}

TEST(ApiRoutesTest, WhatIsInThePathIsOneName) {
  EXPECT_EQ(FindApiRoute("GET", "/api/v1/jobs/a-b:c").value, "a-b:c");
  EXPECT_EQ(FindApiRoute("POST", "/api/v1/jobs/a:cancel").route->rpc, "gpipe.v1.JobService.CancelJob");
  for (const char* path : {"/api/v1/jobs/a/b/events", "/api/v1/jobs/", "/api/v1/jobs//events", "/api/v1/",
                           "/api/v2/jobs", "/api/v1/jobs/../workers"}) {
    EXPECT_EQ(FindApiRoute("GET", path).route, nullptr) << path;
  }
  EXPECT_EQ(FindApiRoute("POST", "/api/v1/jobs").route, nullptr);
  EXPECT_TRUE(FindApiRoute("POST", "/api/v1/jobs").known_path);
}

TEST_F(WebApiTest, AMessageIsJsonWithTheNamesOfTheProto) {
  const HttpResponse response = Get("/api/v1/jobs/some-abcdef");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.content_type, "application/json");
  EXPECT_EQ(json::parse(response.body), json::parse(R"({"id": "some-abcdef", "state": "STATE_RUNNING",
                                                        "steps_done": "12", "last_step": {"loss": 0.5, "lr": 0.1}})"));
}

TEST_F(WebApiTest, TheQueryFillsTheRequest) {
  EXPECT_EQ(
      Get("/api/v1/jobs", {{"page_size", "7"}, {"states", "STATE_RUNNING,STATE_PAUSED"}, {"results", "true"}}).status,
      200);
  EXPECT_EQ(jobs_.listed.page_size(), 7);
  EXPECT_TRUE(jobs_.listed.results());
  EXPECT_THAT(jobs_.listed.states(), testing::ElementsAre(v1::Job::STATE_RUNNING, v1::Job::STATE_PAUSED));
  for (const auto& [name, value] : std::map<std::string, std::string>{
           {"page_size", "many"}, {"states", "STATE_OF_MIND"}, {"frobnicate", "1"}, {"\xff", "1"}}) {
    const HttpResponse refused = Get("/api/v1/jobs", {{name, value}});
    EXPECT_EQ(refused.status, 400) << name;
    EXPECT_EQ(json::parse(refused.body)["code"], 3) << refused.body;
  }
}

TEST_F(WebApiTest, OnlyTheFieldsThatAreWantedAreSent) {
  const HttpResponse response = Get("/api/v1/jobs", {{"fields", "jobs.id,nothing.like.that"}});
  EXPECT_EQ(json::parse(response.body), json::parse(R"({"jobs": [{"id": "a"}, {"id": "b"}]})"));
  const HttpResponse deeper = Get("/api/v1/jobs/a", {{"fields", "last_step.loss"}});
  EXPECT_EQ(json::parse(deeper.body), json::parse(R"({"last_step": {"loss": 0.5}})"));
}

TEST_F(WebApiTest, AnErrorIsTheStatusThatGrpcSends) {
  const HttpResponse response = Get("/api/v1/jobs/gone");
  EXPECT_EQ(response.status, 404);
  const json body = json::parse(response.body);
  EXPECT_EQ(body["code"], 5);
  EXPECT_EQ(body["message"], "no job gone");
  EXPECT_EQ(body["details"][0]["reason"], "JOB_NOT_FOUND") << body;
  EXPECT_EQ(Get("/api/v1/nothing").status, 404);
  EXPECT_EQ(Post("/api/v1/jobs", {{"authorization", "Bearer x"}}).status, 405);
}

TEST(HttpErrorsTest, FieldsThatAreWrongAreNamed) {
  const HttpResponse response = ErrorResponse(FieldError("id", "is missing"));
  EXPECT_EQ(response.status, 400);
  EXPECT_THAT(response.body, HasSubstr("\"field\":\"id\""));
}

TEST_F(WebApiTest, ChangesNeedATokenWhichGoesAlong) {
  EXPECT_EQ(Post("/api/v1/jobs/a:cancel", {}).status, 401);
  EXPECT_EQ(jobs_.cancelled, "");
  EXPECT_EQ(Post("/api/v1/jobs/a:cancel", {{"authorization", "Bearer secret"}}).status, 200);
  EXPECT_EQ(jobs_.cancelled, "a");
  EXPECT_EQ(jobs_.token, "Bearer secret");
  // The path says which job it is, whatever the body has.
  EXPECT_EQ(Post("/api/v1/jobs/a:cancel", {{"authorization", "Bearer secret"}}, R"({"id": "b"})").status, 200);
  EXPECT_EQ(jobs_.cancelled, "a");
}

TEST_F(WebApiTest, WhatIsNoTokenIsRefused) {
  for (const char* header : {"Basic abc", "Bearer", "Bearer ", "Bearer a b", "Bearer \xc3\xa9", "Bearer a\x01"}) {
    EXPECT_EQ(Post("/api/v1/jobs/a:cancel", {{"authorization", header}}).status, 401) << header;
    EXPECT_EQ(api_->Answer({.method = "GET", .path = "/api/v1/jobs/a", .headers = {{"authorization", header}}}).status,
              401);
  }
  EXPECT_EQ(jobs_.cancelled, "");
}

TEST_F(WebApiTest, WhoHasNoTokenHasTheReaders) {
  EXPECT_EQ(Get("/api/v1/jobs/a").status, 200);
  EXPECT_EQ(jobs_.token, "Bearer reader");
  EXPECT_EQ(
      api_->Answer({.method = "GET", .path = "/api/v1/jobs/a", .headers = {{"authorization", "Bearer mine"}}}).status,
      200);
  EXPECT_EQ(jobs_.token, "Bearer mine");
}

TEST_F(WebApiTest, BodiesThatAreNoObjectAreRefused) {
  for (const char* body : {"[]", "1", "{", "{\"id\": {}}", "{\"frobnicate\": 1}", "[[[[[[[[[[[[[[[["}) {
    EXPECT_EQ(Post("/api/v1/jobs/a:cancel", {{"authorization", "Bearer x"}}, body).status,
              std::string(body) == "{\"id\": {}}" ? 200 : 400)
        << body;
  }
}

std::string ReadAll(HttpStream& stream) {
  std::string all;
  while (auto events = stream.Next(absl::Seconds(10))) all += *events;
  return all;
}

TEST_F(WebApiTest, AWatchIsServerSentEventsUntilItEnds) {
  const HttpResponse response = Get("/api/v1/jobs/short/watch", {{"cycles", "true"}, {"resume_token", "token-0"}});
  ASSERT_NE(response.stream, nullptr) << response.body;
  EXPECT_EQ(response.content_type, "text/event-stream");
  EXPECT_TRUE(jobs_.watched.cycles());
  EXPECT_EQ(jobs_.watched.resume_token(), "token-0");
  EXPECT_EQ(ReadAll(*response.stream),
            "id: token-1\ndata: {\"step\":{\"step\":\"1\"}}\n\n"
            "id: token-2\ndata: {\"step\":{\"step\":\"2\"}}\n\n"
            "event: end\ndata: {}\n\n");
}

TEST_F(WebApiTest, HoweverManyWatchAnEventIsMadeOnce) {
  std::vector<HttpResponse> watches(20);
  for (HttpResponse& watch : watches) watch = Get("/api/v1/jobs/short/watch");
  std::vector<std::string> read(watches.size());
  {
    std::vector<std::jthread> readers;
    for (size_t i = 0; i < watches.size(); ++i) {
      readers.emplace_back([&, i] { read[i] = ReadAll(*watches[i].stream); });
    }
  }
  EXPECT_THAT(read[0], HasSubstr("id: token-2\ndata: {\"step\":{\"step\":\"2\"}}\n\n"));
  EXPECT_THAT(read, testing::Each(read[0]));
  EXPECT_EQ(api_->events().made(), 2);
}

TEST_F(WebApiTest, AWatchThatIsCancelledWakes) {
  const HttpResponse response = Get("/api/v1/jobs/endless/watch");
  ASSERT_NE(response.stream, nullptr);
  std::string all;
  while (all.find("token-2") == std::string::npos) all += response.stream->Next(absl::Seconds(10)).value();
  EXPECT_EQ(response.stream->Next(absl::ZeroDuration()), "");
  std::thread other([&] { response.stream->Cancel(); });
  EXPECT_THAT(response.stream->Next(absl::Minutes(5)).value(), HasSubstr("event: end\ndata: {\"code\":1"));
  EXPECT_EQ(response.stream->Next(absl::Seconds(10)), std::nullopt);
  other.join();
}

TEST_F(WebApiTest, AWatchThatCannotBeginIsAnError) {
  const HttpResponse response = Get("/api/v1/watch");  // There is no such service here.
  EXPECT_EQ(response.stream, nullptr);
  EXPECT_EQ(response.status, 501);
}

}  // namespace
}  // namespace gpipe::orchestrator
