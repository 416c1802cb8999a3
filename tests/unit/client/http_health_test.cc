// `gpipe health --http`, as a container asks.

#include "absl/strings/str_cat.h"
#include "common/http/http_server.h"
#include "gmock/gmock.h"
#include "tests/unit/certificates.h"
#include "tests/unit/client/program_runner.h"

namespace gpipe::client {
namespace {

using testing::HasSubstr;

// Lives, and is not ready.
class HttpHealthTest : public testing::Test {
 protected:
  std::string Serve(const TlsOptions& tls = {}) {
    server_.Handle("GET", "/livez", [](const HttpRequest&) { return HttpResponse::Text(200, "live\n"); });
    server_.Handle("GET", "/readyz", [](const HttpRequest&) { return HttpResponse::Text(503, "not ready\n"); });
    HttpOptions options;
    options.listen = "127.0.0.1:0";
    options.tls = tls;
    EXPECT_TRUE(server_.Start(options).ok());
    return absl::StrCat("health --http ", server_.address());
  }

  HttpServer server_;
};

TEST_F(HttpHealthTest, TellsWhetherItLivesAndWhetherItIsReady) {
  const std::string command = Serve();
  EXPECT_EQ(RunGpipe(command).exit_code, 0);
  EXPECT_EQ(RunGpipe(command).output, "live\n");
  EXPECT_EQ(RunGpipe("-q " + command).output, "");
  EXPECT_EQ(RunGpipe(command + " --ready").exit_code, 1);
  EXPECT_EQ(RunGpipe(command + " --ready").output, "not ready\n");
}

TEST_F(HttpHealthTest, ByHttpsWithTheCertificatesOfTheProgramItself) {
  const Certificates certificates;
  const TlsOptions tls = certificates.Of("worker");
  const std::string environment = absl::StrCat("GPIPE_TLS_CA=", tls.ca.string(), " GPIPE_TLS_CERT=", tls.cert.string(),
                                               " GPIPE_TLS_KEY=", tls.key.string());
  const std::string command = Serve(tls);
  const ProgramResult live = RunGpipe(command, environment);
  EXPECT_EQ(live.exit_code, 0) << live.output;
  EXPECT_EQ(live.output, "live\n");
  EXPECT_EQ(RunGpipe(command).exit_code, 3) << "in plain text";
}

TEST_F(HttpHealthTest, NobodyThereIsUnreachable) {
  const std::string command = Serve();
  server_.Stop();
  const ProgramResult gone = RunGpipe(command);
  EXPECT_EQ(gone.exit_code, 3);
  EXPECT_THAT(gone.output, HasSubstr("nobody answers at http://127.0.0.1:"));
  EXPECT_EQ(RunGpipe("health --http nowhere").exit_code, 2);
  EXPECT_EQ(RunGpipe("health --ready").exit_code, 2);
}

}  // namespace
}  // namespace gpipe::client
