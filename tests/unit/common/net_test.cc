// Connections by TLS between a real server and real channels, and what is said of files that cannot be used.

#include <atomic>
#include <filesystem>
#include <optional>

#include "common/net/certificate_watch.h"
#include "common/net/channel.h"
#include "common/net/server.h"
#include "gmock/gmock.h"
#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "tests/unit/certificates.h"

namespace gpipe {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

std::string Refusal(const TlsOptions& options, TlsUse use = TlsUse::kMutual) {
  const absl::Status status = CheckTls(options, use);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  return std::string(status.message());
}

class TlsFilesTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { certificates_.emplace(); }
  static void TearDownTestSuite() { certificates_.reset(); }
  static std::optional<Certificates> certificates_;
};
std::optional<Certificates> TlsFilesTest::certificates_;

TEST_F(TlsFilesTest, AreGoodTogetherOrNotThereAtAll) {
  EXPECT_TRUE(CheckTls({}, TlsUse::kMutual).ok());
  for (const char* name : {"orchestrator", "worker", "client", "admin", "read"}) {
    EXPECT_TRUE(CheckTls(certificates_->Of(name), TlsUse::kMutual).ok()) << name;
  }
  EXPECT_TRUE(CheckTls(certificates_->CaOnly(), TlsUse::kClient).ok());
}

TEST_F(TlsFilesTest, AreAllNeeded) {
  TlsOptions options = certificates_->Of("worker");
  EXPECT_THAT(Refusal(certificates_->CaOnly()), HasSubstr("--tls-ca needs --tls-cert and --tls-key"));
  EXPECT_THAT(Refusal({"", options.cert, options.key}), HasSubstr("need --tls-ca"));
  EXPECT_THAT(Refusal({options.ca, options.cert, ""}, TlsUse::kClient), HasSubstr("--tls-cert needs --tls-key"));
  EXPECT_THAT(Refusal({options.ca, "", options.key}, TlsUse::kClient), HasSubstr("--tls-key needs --tls-cert"));
}

TEST_F(TlsFilesTest, AreNamedWithTheirFlagWhenTheyCannotBeUsed) {
  const TlsOptions good = certificates_->Of("worker");
  EXPECT_THAT(Refusal({"/none/ca.crt", good.cert, good.key}), AllOf(HasSubstr("--tls-ca"), HasSubstr("/none/ca.crt")));
  EXPECT_THAT(Refusal({good.ca, "/none/a.crt", good.key}), AllOf(HasSubstr("--tls-cert"), HasSubstr("/none/a.crt")));
  EXPECT_THAT(Refusal({good.ca, good.cert, "/none/a.key"}), AllOf(HasSubstr("--tls-key"), HasSubstr("/none/a.key")));
  EXPECT_THAT(Refusal({good.key, good.cert, good.key}), AllOf(HasSubstr("--tls-ca"), HasSubstr("no certificate")));
  EXPECT_THAT(Refusal({good.ca, good.cert, good.cert}), AllOf(HasSubstr("--tls-key"), HasSubstr("no private key")));
  EXPECT_THAT(Refusal({good.ca, good.cert, certificates_->At("read.key")}),
              AllOf(HasSubstr("--tls-key"), HasSubstr("read.key"), HasSubstr("another certificate")));
}

TEST_F(TlsFilesTest, AreNotOfAnotherCa) {
  const Certificates other;
  TlsOptions mixed = certificates_->Of("worker");
  mixed.ca = other.At("ca.crt");
  EXPECT_THAT(Refusal(mixed), AllOf(HasSubstr("--tls-cert"), HasSubstr("worker.crt"), HasSubstr("not trusted")));
}

TEST(TlsDatesTest, HaveNotPassed) {
  const Certificates certificates;
  certificates.Make("--renew --days -1");
  EXPECT_THAT(Refusal(certificates.Of("worker")),
              AllOf(HasSubstr("--tls-cert"), HasSubstr("worker.crt"), HasSubstr("expired at 20")));
  certificates.Make("--renew");
  EXPECT_TRUE(CheckTls(certificates.Of("worker"), TlsUse::kMutual).ok());
}

TEST(TokenFileTest, NeedsTlsAndHoldsOneWord) {
  const Certificates certificates;
  const auto refusal = [](const TlsOptions& tls, const fs::path& token_file) {
    return std::string(MakeCredentials(tls, TlsUse::kClient, token_file).status().message());
  };
  const fs::path file = certificates.At("token");
  ASSERT_TRUE(WriteFileAtomically(file, "0123456789abcdef\n").ok());
  EXPECT_TRUE(MakeCredentials(certificates.CaOnly(), TlsUse::kClient, file).ok());
  EXPECT_THAT(refusal({}, file), HasSubstr("--token-file needs --tls-ca"));
  EXPECT_THAT(refusal(certificates.CaOnly(), "/none/token"),
              AllOf(HasSubstr("--token-file"), HasSubstr("/none/token")));
  ASSERT_TRUE(WriteFileAtomically(file, "secret words\n").ok());
  EXPECT_THAT(refusal(certificates.CaOnly(), file), AllOf(HasSubstr("one word"), testing::Not(HasSubstr("secret"))));
}

// A server that knows no method: UNIMPLEMENTED is the answer of one that was reached.
class TlsServerTest : public testing::Test {
 protected:
  void Serve(const TlsOptions& tls) {
    grpc::ServerBuilder builder;
    auto port = AddPort(builder, "127.0.0.1:0", tls);
    ASSERT_TRUE(port.ok()) << port.status();
    accepting_ = *std::move(port);
    port_ = accepting_->port();
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    accepting_->Start();
  }
  void TearDown() override {
    if (accepting_ != nullptr) accepting_->Stop();
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
  }

  grpc::StatusCode Call(const TlsOptions& tls, const std::string& host = "127.0.0.1") {
    auto credentials = MakeCredentials(tls, TlsUse::kClient);
    EXPECT_TRUE(credentials.ok()) << credentials.status();
    return CallWith(*credentials, host);
  }
  grpc::StatusCode CallWith(std::shared_ptr<grpc::ChannelCredentials> credentials,
                            const std::string& host = "127.0.0.1") {
    const auto channel = MakeChannel({host + ":" + std::to_string(port_), std::move(credentials)});
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    v1::GetVersionResponse response;
    const grpc::Status status = v1::ClusterService::NewStub(channel)->GetVersion(&context, {}, &response);
    said_ = status.error_message();
    return status.error_code();
  }

  v1::ClusterService::Service service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<AcceptingPort> accepting_;
  int port_ = 0;
  std::string said_;
};

TEST_F(TlsServerTest, ServesInPlainTextWithoutFiles) {
  Serve({});
  EXPECT_EQ(Call({}), grpc::StatusCode::UNIMPLEMENTED) << said_;
}

TEST_F(TlsServerTest, ServesThoseOfItsCaByEitherNameOfItsCertificate) {
  const Certificates certificates;
  Serve(certificates.Of("orchestrator"));
  EXPECT_EQ(Call(certificates.Of("client")), grpc::StatusCode::UNIMPLEMENTED) << said_;
  EXPECT_EQ(Call(certificates.Of("client"), "localhost"), grpc::StatusCode::UNIMPLEMENTED) << said_;
  EXPECT_EQ(Call(certificates.CaOnly()), grpc::StatusCode::UNIMPLEMENTED) << said_;
}

TEST_F(TlsServerTest, IsNotReachedInPlainTextOrByAnotherCa) {
  const Certificates certificates, other;
  Serve(certificates.Of("orchestrator"));
  EXPECT_EQ(Call({}), grpc::StatusCode::UNAVAILABLE) << said_;
  EXPECT_EQ(Call(other.Of("client")), grpc::StatusCode::UNAVAILABLE) << said_;
}

TEST_F(TlsServerTest, IsNotReachedByANameThatIsNotInItsCertificate) {
  const Certificates certificates("elsewhere");
  Serve(certificates.Of("orchestrator"));
  EXPECT_EQ(Call(certificates.Of("client")), grpc::StatusCode::UNAVAILABLE) << said_;
}

TEST_F(TlsServerTest, RefusesAClientsCertificateThatHasExpired) {
  const Certificates certificates;
  Serve(certificates.Of("orchestrator"));
  certificates.Make("--renew --days -1");
  const TlsOptions expired = certificates.Of("client");  // MakeCredentials would not take it.
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = *ReadFile(expired.ca);
  options.pem_cert_chain = *ReadFile(expired.cert);
  options.pem_private_key = *ReadFile(expired.key);
  EXPECT_EQ(CallWith(grpc::SslCredentials(options)), grpc::StatusCode::UNAVAILABLE) << said_;
}

// A new CA takes the place of the old one: what is connected later uses it, without a restart.
TEST_F(TlsServerTest, FollowsItsFiles) {
  const Certificates certificates, next;
  Serve(certificates.Of("orchestrator"));
  ASSERT_EQ(Call(certificates.Of("client")), grpc::StatusCode::UNIMPLEMENTED) << said_;
  for (const char* file : {"ca.crt", "orchestrator.key", "orchestrator.crt"}) {
    fs::rename(next.At(file), certificates.At(file));
  }
  fs::copy_file(certificates.At("ca.crt"), next.At("ca.crt"));
  const absl::Time patience = absl::Now() + absl::Seconds(20);
  while (Call(next.Of("client")) != grpc::StatusCode::UNIMPLEMENTED && absl::Now() < patience) {
  }
  EXPECT_EQ(Call(next.Of("client")), grpc::StatusCode::UNIMPLEMENTED) << said_;
}

TEST(CertificateWatchTest, TellsOfNewFilesThatCanBeUsed) {
  const Certificates certificates;
  absl::Notification changed;
  std::atomic<int> changes = 0;
  const auto on_change = [&] {
    if (++changes == 1) changed.Notify();
  };
  const CertificateWatch watch(certificates.Of("worker"), on_change, absl::Milliseconds(20));
  fs::rename(certificates.At("worker.key"), certificates.At("kept"));
  fs::copy_file(certificates.At("read.key"), certificates.At("worker.key"));  // Of another certificate.
  EXPECT_FALSE(changed.WaitForNotificationWithTimeout(absl::Milliseconds(300)));
  fs::rename(certificates.At("kept"), certificates.At("worker.key"));
  EXPECT_TRUE(changed.WaitForNotificationWithTimeout(absl::Seconds(20)));
}

}  // namespace
}  // namespace gpipe
