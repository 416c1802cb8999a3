// Who may call what, at a real orchestrator behind TLS.

#include <filesystem>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/artifacts/raw_call.h"
#include "common/error_reason.h"
#include "common/file.h"
#include "common/net/channel.h"
#include "common/string_view.h"
#include "gmock/gmock.h"
#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "gpipe/v1/worker_session.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "orchestrator/access/roles.h"
#include "orchestrator/server.h"
#include "tests/unit/certificates.h"
#include "tests/unit/orchestrator/plan_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::HasSubstr;

constexpr char kTokens[] =
    "read reader read-token-0123456789\n"
    "submit submitter submit-token-0123456789\n"
    "admin boss admin-token-0123456789\n";

class ServerAccessTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(WriteFileAtomically(certificates_.At("tokens"), kTokens).ok());
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.state_dir = folder_.path() / "state";
    options.tls = certificates_.Of("orchestrator");
    options.tokens_file = certificates_.At("tokens");
    auto server = Server::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  std::shared_ptr<grpc::Channel> By(const TlsOptions& tls, const std::string& token = "") {
    const std::filesystem::path file = token.empty() ? "" : certificates_.At("token");
    if (!token.empty()) {
      EXPECT_TRUE(WriteFileAtomically(file, token).ok());
    }
    auto credentials = MakeCredentials(tls, TlsUse::kClient, file);
    EXPECT_TRUE(credentials.ok()) << credentials.status();
    return MakeChannel({server_->address(), *credentials});
  }

  // How a call with an empty message ends; CANCELLED when it has been let in and goes on.
  absl::Status Call(grpc::GenericStub& stub, std::string_view method) {
    std::stop_source stop;
    absl::Notification over;
    std::jthread timer([&] {
      if (!over.WaitForNotificationWithTimeout(absl::Seconds(2))) stop.request_stop();
    });
    RawCall call(stub, std::string(method), stop.get_token());
    call.WriteLast(ToBuffer(v1::GetVersionRequest()));
    grpc::ByteBuffer answer;
    while (call.Read(answer)) {
    }
    absl::Status status = call.Finish();
    over.Notify();
    return status;
  }

  const Certificates certificates_;
  const TemporaryFolder folder_ = TemporaryFolder::Create("gpipe-access").value();
  std::unique_ptr<Server> server_;
};

// What a call says that was let in, of a file that is no business of this worker.
bool IsAboutFiles(const absl::Status& status) {
  return ReasonOf(status) == "PERMISSION_DENIED" &&
         (absl::StrContains(status.message(), "of no job that this worker") ||
          absl::StrContains(status.message(), "no such attempt"));
}

// RPC x caller x outcome: all RPCs of the table, which is complete by access_test.cc.
TEST_F(ServerAccessTest, EachRpcIsForItsRolesAndNobodyElse) {
  struct Who {
    std::string name;
    std::shared_ptr<grpc::Channel> channel;
    Role role;
    absl::StatusCode refusal = absl::StatusCode::kPermissionDenied;
  };
  const auto unauthenticated = absl::StatusCode::kUnauthenticated;
  const TlsOptions ca = certificates_.CaOnly();
  const std::vector<Who> everybody = {
      {"read.crt", By(certificates_.Of("read")), Role::kRead},
      {"client.crt", By(certificates_.Of("client")), Role::kSubmit},
      {"admin.crt", By(certificates_.Of("admin")), Role::kAdmin},
      {"worker.crt", By(certificates_.Of("worker")), Role::kWorker},
      {"orchestrator.crt", By(certificates_.Of("orchestrator")), Role::kNone},
      {"read token", By(ca, "read-token-0123456789"), Role::kRead},
      {"submit token", By(ca, "submit-token-0123456789"), Role::kSubmit},
      {"admin token", By(ca, "admin-token-0123456789"), Role::kAdmin},
      {"a token before a certificate", By(certificates_.Of("admin"), "read-token-0123456789"), Role::kRead},
      {"wrong token", By(certificates_.Of("admin"), "wrong-token-0123456789"), Role::kNone, unauthenticated},
      {"nobody", By(ca), Role::kNone, unauthenticated},
  };
  for (const Who& who : everybody) {
    grpc::GenericStub stub(who.channel);
    for (const Rule& rule : AllRules()) {
      const absl::Status status = Call(stub, rule.method);
      SCOPED_TRACE(absl::StrCat(who.name, " calls ", AbslView(rule.method), ": ", status.ToString()));
      if (Allows(rule, who.role)) {
        EXPECT_TRUE((!absl::IsPermissionDenied(status) && !absl::IsUnauthenticated(status)) || IsAboutFiles(status));
        EXPECT_FALSE(absl::IsUnavailable(status) || absl::IsUnimplemented(status));
      } else {
        EXPECT_EQ(status.code(), who.refusal);
        EXPECT_EQ(ReasonOf(status), absl::StatusCodeToString(who.refusal));
      }
    }
  }
}

TEST_F(ServerAccessTest, AJobRemembersWhoSubmittedIt) {
  const auto submit = [&](const std::shared_ptr<grpc::Channel>& channel) {
    const auto jobs = v1::JobService::NewStub(channel);
    grpc::ClientContext submitting, getting;
    v1::SubmitJobRequest request;
    *request.mutable_spec() = ParseSpec(kTrainYaml);
    request.set_request_id("the same");
    v1::Job job;
    const grpc::Status status = jobs->SubmitJob(&submitting, request, &job);
    EXPECT_TRUE(status.ok()) << status.error_message();
    v1::GetJobRequest get;
    get.set_id(job.id());
    EXPECT_TRUE(jobs->GetJob(&getting, get, &job).ok());
    return job.submitted_by();
  };
  EXPECT_EQ(submit(By(certificates_.Of("client"), "submit-token-0123456789")), "submitter") << "a token goes before";
  EXPECT_EQ(submit(By(certificates_.Of("admin"))), "submitter") << "the same request is the same job";
}

// Of a request that cannot be parsed nothing is said to those who are refused anyway.
TEST_F(ServerAccessTest, BytesThatAreNoMessageAreRefusedLikeOthers) {
  grpc::Slice slice("\xff\xff\xff\xff");
  const grpc::ByteBuffer nonsense(&slice, 1);
  for (const auto& [channel, code] :
       {std::pair(By(certificates_.CaOnly()), absl::StatusCode::kUnauthenticated),
        std::pair(By(certificates_.Of("read")), absl::StatusCode::kUnimplemented)}) {  // gRPC's word for it.
    grpc::GenericStub stub(channel);
    RawCall call(stub, "/gpipe.v1.JobService/GetJob", {});
    call.WriteLast(nonsense);
    EXPECT_EQ(call.Finish().code(), code);
  }
}

// Of an attempt that there is not they would stay for ever.
TEST_F(ServerAccessTest, PartsAreForWorkersOfTheAttempt) {
  v1::UploadArtifactRequest first;
  first.mutable_ref()->set_sha256(std::string(64, '0'));
  first.mutable_part_of()->mutable_attempt()->set_job("job");
  for (const char* who : {"admin", "client", "worker"}) {
    grpc::GenericStub stub(By(certificates_.Of(who)));
    RawCall call(stub, "/gpipe.v1.ArtifactService/UploadArtifact", {});
    call.WriteLast(ToBuffer(first));
    EXPECT_EQ(call.Finish().code(), absl::StatusCode::kPermissionDenied) << who;
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path() / "state/artifacts/tmp"));
}

class WorkerNameTest : public ServerAccessTest {
 protected:
  // What the orchestrator answers to a worker that calls itself so.
  grpc::StatusCode Join(const std::string& certificate, const std::string& name) {
    auto stub = v1::WorkerSessionService::NewStub(By(certificates_.Of(certificate)));
    grpc::ClientContext context;
    const auto stream = stub->Session(&context);
    v1::WorkerMessage hello;
    hello.mutable_hello()->set_name(name);
    hello.mutable_hello()->set_device("cpu");
    hello.mutable_hello()->set_data_address("127.0.0.1");
    hello.mutable_hello()->set_incarnation("1");
    stream->Write(hello);
    v1::OrchestratorMessage answer;
    if (stream->Read(&answer) && answer.has_welcome()) context.TryCancel();
    const grpc::Status status = stream->Finish();
    said_ = status.error_message();
    return answer.has_welcome() ? grpc::StatusCode::OK : status.error_code();
  }
  std::string said_;
};

TEST_F(WorkerNameTest, BelongsToTheCertificate) {
  EXPECT_EQ(Join("worker", "worker"), grpc::StatusCode::OK) << said_;
  EXPECT_EQ(Join("worker", "worker-1"), grpc::StatusCode::OK) << said_;
  EXPECT_EQ(Join("worker", "gpu7"), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(said_, HasSubstr("the certificate of 'worker' is not for a worker named 'gpu7'"));
  certificates_.Make("--issue worker:gpu7");
  EXPECT_EQ(Join("gpu7", "gpu7"), grpc::StatusCode::OK) << said_;
  EXPECT_EQ(Join("admin", "admin"), grpc::StatusCode::PERMISSION_DENIED) << "a worker is no admin";
}

TEST(PlainServerTest, EverybodyMayDoEverything) {
  const TemporaryFolder folder = TemporaryFolder::Create("gpipe-access").value();
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.state_dir = folder.path() / "state";
  const auto server = *Server::Start(options);
  grpc::GenericStub stub(MakeChannel({server->address()}));
  for (const Rule& rule : AllRules()) {
    RawCall call(stub, std::string(rule.method), {});
    call.WriteLast(ToBuffer(v1::GetVersionRequest()));
    grpc::ByteBuffer answer;
    call.Read(answer);
    call.Cancel();
    const absl::Status status = call.Finish();
    EXPECT_FALSE(absl::IsPermissionDenied(status) || absl::IsUnauthenticated(status)) << rule.method << status;
  }
}

TEST(ServerFilesTest, AreCheckedBeforeAnythingStarts) {
  const Certificates certificates;
  const TemporaryFolder folder = TemporaryFolder::Create("gpipe-access").value();
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.state_dir = folder.path() / "state";
  options.tls = certificates.Of("orchestrator");
  options.tls.key = "/none/key";
  EXPECT_THAT(std::string(Server::Start(options).status().message()), HasSubstr("--tls-key"));
  options.tls = certificates.Of("orchestrator");
  options.tokens_file = "/none/tokens";
  EXPECT_THAT(std::string(Server::Start(options).status().message()), HasSubstr("--tokens-file"));
  EXPECT_FALSE(std::filesystem::exists(options.state_dir));
}

}  // namespace
}  // namespace gpipe::orchestrator
