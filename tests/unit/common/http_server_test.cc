#include "common/http/http_server.h"

#include <httplib.h>
#include <sys/socket.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/bounded_queue.h"
#include "common/file.h"
#include "common/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Says what is pushed.
class QueuedStream final : public HttpStream {
 public:
  std::optional<std::string> Next(absl::Duration) override { return events.Pop(); }
  void Cancel() override { events.Close(); }

  BoundedQueue<std::string> events{8};
};

HttpOptions Loopback() {
  HttpOptions options;
  options.listen = "127.0.0.1:0";
  return options;
}

HttpServer::Handler Saying(const std::string& text) {
  return [text](const HttpRequest&) { return HttpResponse::Text(200, text); };
}

TEST(HttpServerTest, AnswersByTheMostSpecificPath) {
  HttpServer server;
  server.Handle("GET", "/a", Saying("a"));
  server.Handle("GET", "/a/*", Saying("below a"));
  server.Handle("GET", "/a/b/*", Saying("below b"));
  server.Handle("GET", "/a/b/c", Saying("c"));
  ASSERT_TRUE(server.Start(Loopback()).ok());
  httplib::Client client("http://" + server.address());
  EXPECT_EQ(client.Get("/a")->body, "a");
  client.set_keep_alive(true);
  EXPECT_EQ(client.Get("/a")->get_header_value("Keep-Alive"), "timeout=2, max=1000");
  EXPECT_EQ(client.Get("/a/x/y")->body, "below a");
  EXPECT_EQ(client.Get("/a/b/x")->body, "below b");
  EXPECT_EQ(client.Get("/a/b/c")->body, "c");
  EXPECT_EQ(client.Get("/")->status, 404);
  EXPECT_EQ(client.Get("/ab")->status, 404);
  EXPECT_EQ(client.Get(("/a/" + std::string(5000, 'x')).c_str())->status, 414);
  EXPECT_EQ(client.Head("/a")->status, 200);
  const auto refused = client.Post("/a");
  EXPECT_EQ(refused->status, 405);
  EXPECT_EQ(refused->get_header_value("Allow"), "GET");
}

TEST(HttpServerTest, HandlerGetsTheWholeRequest) {
  HttpServer server;
  server.Handle("POST", "/echo", [](const HttpRequest& request) {
    HttpResponse response =
        HttpResponse::Text(201, absl::StrCat(request.method, " ", request.path, " ", request.query.at("q"), " ",
                                             request.headers.at("x-word"), " ", request.body));
    response.content_type = "application/json";
    response.headers["X-Answer"] = "42";
    return response;
  });
  ASSERT_TRUE(server.Start(Loopback()).ok());
  httplib::Client client("http://" + server.address());
  const auto answer = client.Post("/echo?q=a%20b", {{"X-Word", "w"}}, "body", "text/plain");
  EXPECT_EQ(answer->status, 201);
  EXPECT_EQ(answer->body, "POST /echo a b w body");
  EXPECT_EQ(answer->get_header_value("Content-Type"), "application/json");
  EXPECT_EQ(answer->get_header_value("X-Answer"), "42");
  EXPECT_EQ(answer->get_header_value("X-Content-Type-Options"), "nosniff");
}

TEST(HttpServerTest, RefusesALargeBody) {
  HttpServer server;
  server.Handle("POST", "/", Saying("taken"));
  HttpOptions options = Loopback();
  options.max_body_bytes = 100;
  ASSERT_TRUE(server.Start(options).ok());
  httplib::Client client("http://" + server.address());
  EXPECT_EQ(client.Post("/", std::string(100, 'x'), "text/plain")->status, 200);
  EXPECT_EQ(client.Post("/", std::string(101, 'x'), "text/plain")->status, 413);
}

TEST(HttpServerTest, AnExceptionIsAnError) {
  HttpServer server;
  server.Handle("GET", "/", [](const HttpRequest&) -> HttpResponse { throw std::runtime_error("secret"); });
  ASSERT_TRUE(server.Start(Loopback()).ok());
  const auto answer = httplib::Client("http://" + server.address()).Get("/");
  EXPECT_EQ(answer->status, 500);
  EXPECT_THAT(answer->body, Not(HasSubstr("secret")));
}

TEST(HttpServerTest, StreamsUntilItEnds) {
  const auto stream = std::make_shared<QueuedStream>();
  HttpServer server;
  server.Handle("GET", "/events", [&](const HttpRequest&) { return HttpResponse::Events(stream); });
  ASSERT_TRUE(server.Start(Loopback()).ok());
  stream->events.Push("data: 1\n\n");
  stream->events.Push("");
  std::string got;
  const auto answer = httplib::Client("http://" + server.address()).Get("/events", [&](const char* data, size_t size) {
    got.append(data, size);
    if (got == "data: 1\n\n:\n\n") stream->events.Push("data: 2\n\n");
    if (got.ends_with("2\n\n")) stream->events.Close();
    return true;
  });
  ASSERT_TRUE(answer);
  EXPECT_EQ(got, "data: 1\n\n:\n\ndata: 2\n\n");
  EXPECT_EQ(answer->get_header_value("Content-Type"), "text/event-stream");
}

TEST(HttpServerTest, StopEndsStreamsAndTooManyAreRefused) {
  const auto stream = std::make_shared<QueuedStream>();
  HttpServer server;
  server.Handle("GET", "/events", [&](const HttpRequest&) { return HttpResponse::Events(stream); });
  HttpOptions options = Loopback();
  options.streams = 1;
  ASSERT_TRUE(server.Start(options).ok());
  const std::string url = "http://" + server.address();
  absl::Notification opened;
  std::thread watcher([&] {
    httplib::Client(url).Get("/events", [&](const char*, size_t) {
      opened.Notify();
      return true;
    });
  });
  stream->events.Push("data: 1\n\n");
  opened.WaitForNotification();
  EXPECT_EQ(httplib::Client(url).Get("/events")->status, 503);
  const absl::Time before = absl::Now();
  server.Stop();
  watcher.join();
  EXPECT_LT(absl::Now() - before, absl::Seconds(4));
  EXPECT_FALSE(httplib::Client(url).Get("/events"));
}

// A client of its own mind.
class RawConnection {
 public:
  explicit RawConnection(const std::string& address) : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in where = {};
    where.sin_family = AF_INET;
    where.sin_port = htons(std::atoi(address.substr(address.rfind(':') + 1).c_str()));
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connect(socket_, reinterpret_cast<sockaddr*>(&where), sizeof where);
  }
  ~RawConnection() { close(socket_); }
  bool Send(const std::string& text) const {
    return send(socket_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }
  // Whether the server ends the connection while this text is sent over and over again: at the latest when the kernel
  // keeps no more of what nobody reads.
  bool IsCutOffSending(const std::string& text) const {
    const absl::Time patience = absl::Now() + absl::Seconds(60);
    while (absl::Now() < patience) {
      if (!Send(text)) return true;
    }
    return false;
  }
  // All that comes until the end.
  std::string Receive() const {
    std::string got;
    char buffer[4096];
    for (ssize_t size; (size = recv(socket_, buffer, sizeof buffer, 0)) > 0;) got.append(buffer, size);
    return got;
  }

 private:
  const int socket_;
};

// Who opens connections and says nothing keeps nobody else out for long.
TEST(HttpServerTest, IdleConnectionsMakeRoom) {
  HttpServer server;
  server.Handle("GET", "/", Saying("here"));
  HttpOptions options = Loopback();
  options.threads = 4;
  ASSERT_TRUE(server.Start(options).ok());
  std::vector<std::unique_ptr<RawConnection>> idle;
  for (int i = 0; i < 8; ++i) idle.push_back(std::make_unique<RawConnection>(server.address()));
  httplib::Client client("http://" + server.address());
  client.set_read_timeout(20);
  client.set_connection_timeout(20);
  const auto answer = client.Get("/");
  ASSERT_TRUE(answer) << to_string(answer.error());
  EXPECT_EQ(answer->body, "here");
}

TEST(HttpServerTest, HeadersWithoutEndAreCutOff) {
  HttpServer server;
  server.Handle("GET", "/", Saying("here"));
  ASSERT_TRUE(server.Start(Loopback()).ok());
  const RawConnection flood(server.address());
  flood.Send("GET / HTTP/1.1\r\n");
  EXPECT_TRUE(flood.IsCutOffSending("Name: value\r\n"));
  EXPECT_EQ(httplib::Client("http://" + server.address()).Get("/")->body, "here");
}

TEST(HttpServerTest, ARequestThatTricklesIsCutOff) {
  HttpServer server;
  server.Handle("GET", "/", Saying("here"));
  HttpOptions options = Loopback();
  options.timeout = absl::Seconds(1);
  ASSERT_TRUE(server.Start(options).ok());
  const RawConnection trickle(server.address());
  const absl::Time before = absl::Now();
  while (trickle.Send("G") && absl::Now() - before < absl::Seconds(20)) absl::SleepFor(absl::Milliseconds(100));
  EXPECT_LT(absl::Now() - before, absl::Seconds(5));
}

TEST(HttpServerTest, ABodyOfUnknownLengthHasALimit) {
  HttpServer server;
  server.Handle("POST", "/", [](const HttpRequest& request) { return HttpResponse::Text(200, request.body); });
  HttpOptions options = Loopback();
  options.max_body_bytes = 1000;
  ASSERT_TRUE(server.Start(options).ok());
  const std::string head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
  const RawConnection good(server.address());
  good.Send(head + "5\r\nhello\r\n0\r\n\r\n");
  EXPECT_THAT(good.Receive(), HasSubstr("hello"));
  const RawConnection endless(server.address());
  endless.Send(head);
  EXPECT_TRUE(endless.IsCutOffSending("400\r\n" + std::string(0x400, 'x') + "\r\n"));
}

TEST(HttpServerTest, RandomBytesDoNoHarm) {
  HttpServer server;
  server.Handle("GET", "/*", Saying("here"));
  ASSERT_TRUE(server.Start(Loopback()).ok());
  for (unsigned number = 1; number <= 50; ++number) {
    unsigned seed = number;
    std::string bytes = number % 2 == 0 ? "GET /" : "";
    for (int i = 0; i < 300; ++i) bytes.push_back(static_cast<char>(rand_r(&seed)));
    const RawConnection random(server.address());
    random.Send(bytes + "\r\n\r\n");
  }
  EXPECT_EQ(httplib::Client("http://" + server.address()).Get("/")->body, "here");
}

TEST(HttpServerTest, RefusesBadAddresses) {
  for (const char* bad : {"0.0.0.0:0", "127.0.0.1", "nowhere"}) {
    HttpOptions options = Loopback();
    options.listen = bad;
    const absl::Status refused = HttpServer().Start(options);
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("--http-listen"));
  }
  HttpServer first;
  ASSERT_TRUE(first.Start(Loopback()).ok());
  HttpOptions same = Loopback();
  same.listen = first.address();
  EXPECT_TRUE(absl::IsUnavailable(HttpServer().Start(same)));
}

// Certificates as `openssl` makes them, in a folder of their own.
class HttpsTest : public testing::Test {
 protected:
  void SetUp() override {
    Run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key "
        "-out ca.crt");
    MakeCertificate("server", "/CN=localhost/OU=orchestrator", "ca");
    MakeCertificate("anna", "/CN=anna/OU=admin", "ca");
    Run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=other -keyout other.key "
        "-out other.crt");
    MakeCertificate("mallory", "/CN=anna/OU=admin", "other");
    server_.Handle("GET", "/", Saying("here"));
  }

  void Run(const std::string& arguments) {
    ASSERT_EQ(
        std::system(absl::StrCat("cd ", folder_, " && openssl ", arguments, " 2>log || { cat log; false; }").c_str()),
        0);
  }
  void MakeCertificate(const std::string& name, const std::string& subject, const std::string& authority) {
    Run(absl::StrCat("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj ", subject, " -addext ",
                     "subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout ", name, ".key -out ", name, ".csr"));
    Run(absl::StrCat("x509 -req -days 2 -copy_extensions copyall -CA ", authority, ".crt -CAkey ", authority,
                     ".key -in ", name, ".csr -out ", name, ".crt"));
  }
  std::string File(const std::string& name) const { return folder_ + "/" + name; }

  HttpOptions Options() {
    HttpOptions options = Loopback();
    options.tls = {.ca = File("ca.crt"), .cert = File("server.crt"), .key = File("server.key")};
    return options;
  }
  std::unique_ptr<httplib::Client> NewClient(const std::string& identity = "") {
    const std::string url = "https://" + server_.address();
    auto client = identity.empty()
                      ? std::make_unique<httplib::Client>(url)
                      : std::make_unique<httplib::Client>(url, File(identity + ".crt"), File(identity + ".key"));
    client->set_ca_cert_path(File("ca.crt").c_str());
    client->enable_server_certificate_verification(true);
    return client;
  }

  const std::string folder_ = [] {
    std::string name = testing::TempDir() + "https_XXXXXX";
    return std::string(mkdtemp(name.data()));
  }();
  HttpServer server_;
};

TEST_F(HttpsTest, AsksNobodyForACertificate) {
  ASSERT_TRUE(server_.Start(Options()).ok());
  for (const char* identity : {"", "anna"}) {
    const auto client = NewClient(identity);
    const auto answer = client->Get("/");
    ASSERT_TRUE(answer) << to_string(answer.error());
    EXPECT_EQ(answer->body, "here");
  }
  EXPECT_FALSE(httplib::Client("http://" + server_.address()).Get("/"));
  const std::string command = absl::StrCat("openssl s_client -connect ", server_.address(), " -CAfile ", File("ca.crt"),
                                           " </dev/null >", File("asked"), " 2>&1");
  ASSERT_EQ(std::system(command.c_str()), 0);
  const absl::StatusOr<std::string> asked = ReadFile(File("asked"));
  ASSERT_TRUE(asked.ok()) << asked.status();
  EXPECT_THAT(*asked, HasSubstr("No client certificate CA names sent"));
  EXPECT_THAT(*asked, Not(HasSubstr("Requested Signature Algorithms")));
}

// A certificate that gRPC's side refuses serves no HTTPS either.
TEST_F(HttpsTest, RefusesACertificateOfAnotherAuthority) {
  HttpOptions options = Options();
  options.tls.cert = File("mallory.crt");
  options.tls.key = File("mallory.key");
  EXPECT_THAT(std::string(server_.Start(options).message()), HasSubstr("is not trusted by --tls-ca"));
}

TEST_F(HttpsTest, RenewedCertificateIsUsedAtOnce) {
  ASSERT_TRUE(server_.Start(Options()).ok());
  Run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=new -keyout ca.key -out ca.crt");
  EXPECT_FALSE(NewClient()->Get("/"));  // The server's is still of the old authority.
  MakeCertificate("renewed", "/CN=localhost/OU=orchestrator", "ca");
  std::filesystem::rename(File("renewed.key"), File("server.key"));
  std::filesystem::rename(File("renewed.crt"), File("server.crt"));
  EXPECT_TRUE(NewClient()->Get("/"));
}

TEST_F(HttpsTest, GoesOnWhileTheFilesDoNotFit) {
  ASSERT_TRUE(server_.Start(Options()).ok());
  std::filesystem::copy_file(File("anna.key"), File("server.key"), std::filesystem::copy_options::overwrite_existing);
  EXPECT_TRUE(NewClient()->Get("/"));
}

TEST_F(HttpsTest, NamesTheUnusableFile) {
  HttpOptions options = Options();
  options.tls.key = File("anna.key");
  EXPECT_THAT(std::string(server_.Start(options).message()), HasSubstr("--tls-key " + File("anna.key")));
  options = Options();
  options.tls.cert = File("missing.crt");
  EXPECT_THAT(std::string(server_.Start(options).message()),
              AllOf(HasSubstr("--tls-cert"), HasSubstr(File("missing.crt"))));
  options = Options();
  options.tls.ca = File("server.key");
  EXPECT_THAT(std::string(server_.Start(options).message()), HasSubstr("--tls-ca " + File("server.key")));
}

}  // namespace
}  // namespace gpipe
