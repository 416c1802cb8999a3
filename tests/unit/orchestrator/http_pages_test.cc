// Metrics, health and status of the whole orchestrator, over HTTP, and its health over gRPC.

#include <httplib.h>

#include <thread>
#include <vector>

#include "common/file.h"
#include "gmock/gmock.h"
#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "orchestrator/jobs/disk_guard.h"
#include "orchestrator/server.h"

namespace gpipe::orchestrator {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class HttpPagesTest : public testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.http_listen = "127.0.0.1:0";
    options.state_dir = folder_.path() / "state";
    auto server = Server::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    http_ = std::make_unique<httplib::Client>("http://" + server_->http_address());
  }
  std::string Get(const std::string& path, int status = 200) {
    const auto answer = http_->Get(path.c_str());
    EXPECT_TRUE(answer) << to_string(answer.error());
    if (!answer) return "";
    EXPECT_EQ(answer->status, status) << path << ": " << answer->body;
    return answer->body;
  }

  TemporaryFolder folder_ = *TemporaryFolder::Create("http_pages");
  std::unique_ptr<Server> server_;
  std::unique_ptr<httplib::Client> http_;
};

TEST_F(HttpPagesTest, ReadyByChecks) {
  EXPECT_EQ(Get("/livez"), "live\n");
  EXPECT_EQ(Get("/readyz"), "serving ok\nevent_loop ok\ndatabase ok\ndisk ok\nready\n");
  EXPECT_EQ(Get("/readyz/database"), "database ok\n");
  EXPECT_THAT(Get("/readyz/nothing", 404), HasSubstr("nothing"));
}

TEST_F(HttpPagesTest, MetricsOfAnEmptyCluster) {
  const std::string text = Get("/metrics");
  EXPECT_THAT(text, HasSubstr("# TYPE gpipe_jobs gauge\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_jobs{state=\"RUNNING\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_workers{state=\"IDLE\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_event_loop_up 1\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_disk_full 0\n"));
  EXPECT_THAT(text, HasSubstr("gpipe_build_info{version=\"0.2.0\"} 1\n"));
}

TEST_F(HttpPagesTest, CallsAreCountedAsTheyEnd) {
  const auto jobs =
      v1::JobService::NewStub(grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::GetJobRequest request;
  request.set_id("none-1");
  v1::Job job;
  EXPECT_EQ(jobs->GetJob(&context, request, &job).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(Get("/metrics"),
              HasSubstr("gpipe_grpc_calls_total{code=\"NOT_FOUND\",method=\"gpipe.v1.JobService/GetJob\"} 1\n"));
}

TEST_F(HttpPagesTest, StatusIsForPeople) {
  const std::string text = Get("/statusz");
  EXPECT_THAT(text, StartsWith("gpipe-orchestrator 0.2.0\nup "));
  EXPECT_THAT(text, HasSubstr("\njobs QUEUED 0 STARTING 0 RUNNING 0 PAUSED 0\n"));
  EXPECT_THAT(text, HasSubstr("\n  loop\n"));
}

// grpc.health.v1.Health, whose classes gRPC keeps to itself: a request without fields is for the whole server, and the
// answer's one field is the status.
class HealthWatch {
 public:
  explicit HealthWatch(const std::string& address)
      : stub_(grpc::CreateChannel(address, grpc::InsecureChannelCredentials())),
        call_(stub_.PrepareCall(&context_, "/grpc.health.v1.Health/Watch", &queue_)) {
    call_->StartCall(nullptr);
    Await();
    const grpc::Slice no_fields;
    call_->WriteLast(grpc::ByteBuffer(&no_fields, 1), grpc::WriteOptions(), nullptr);
    Await();
  }
  ~HealthWatch() {
    context_.TryCancel();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  enum Status { kServing = 1, kNotServing = 2 };
  // The next one; 0: the stream has ended.
  int Next() {
    grpc::ByteBuffer answer;
    call_->Read(&answer, nullptr);
    std::vector<grpc::Slice> slices;
    if (!Await() || !answer.Dump(&slices).ok() || slices.empty()) return 0;
    return slices.back().end()[-1];
  }

 private:
  bool Await() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

TEST_F(HttpPagesTest, WatchersOfTheHealthHearOfTheEndFirst) {
  HealthWatch watch(server_->address());
  EXPECT_EQ(watch.Next(), HealthWatch::kServing);
  std::thread stopper([this] { server_->Shutdown(); });
  EXPECT_EQ(watch.Next(), HealthWatch::kNotServing);
  stopper.join();
}

TEST_F(HttpPagesTest, NoHttpUnlessAskedFor) {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.state_dir = folder_.path() / "another";
  EXPECT_EQ((*Server::Start(options))->http_address(), "");
  options.http_listen = "0.0.0.0:0";
  EXPECT_THAT(std::string(Server::Start(options).status().message()), HasSubstr("--http-listen"));
}

}  // namespace
}  // namespace gpipe::orchestrator
