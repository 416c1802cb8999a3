#include "common/http/http_server.h"

#include <httplib.h>

#include <atomic>
#include <set>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "common/address.h"
#include "common/http/connection.h"
#include "common/http/connection_threads.h"
#include "common/http/http_tls.h"
#include "common/http/router.h"
#include "common/listen_address.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "spdlog/spdlog.h"

namespace gpipe {
namespace {

constexpr size_t kMaxPathBytes = 1024;  // It is matched by a regular expression, whose depth grows with it.
constexpr size_t kMaxHeadBytes = 64 << 10;
constexpr char kAnyPath[] = R"([^]*)";
constexpr absl::Duration kIdle = absl::Seconds(2);  // Until a connection that asks nothing is closed.
constexpr int kBacklog = 128;                       // Connections that the kernel holds.
constexpr int kRequestsPerConnection = 1000;
constexpr char kComment[] = ":\n\n";

class TaskQueue final : public httplib::TaskQueue {
 public:
  TaskQueue(size_t threads, absl::Notification* running) : threads_(threads) {
    if (!running->HasBeenNotified()) running->Notify();
  }
  void enqueue(std::function<void()> connection) override { threads_.Run(std::move(connection)); }
  void shutdown() override { threads_.Join(); }

 private:
  ConnectionThreads threads_;
};

// A connection as httplib wants it.
class ConnectionStream final : public httplib::Stream {
 public:
  explicit ConnectionStream(Connection& connection) : connection_(connection) {}
  bool is_readable() const override { return true; }
  bool is_writable() const override { return connection_.IsWritable(); }
  ssize_t read(char* data, size_t size) override { return connection_.Read(data, size); }
  ssize_t write(const char* data, size_t size) override { return connection_.Write(data, size); }
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return connection_.socket(); }

 private:
  Connection& connection_;
};

// The sockets that are open, so that those who wait can be woken. Any thread.
class OpenSockets {
 public:
  void Add(int socket) {
    absl::MutexLock lock(&mutex_);
    sockets_.insert(socket);
    if (stopped_) Connection::Wake(socket);
  }
  // Before it is closed.
  void Remove(int socket) {
    absl::MutexLock lock(&mutex_);
    sockets_.erase(socket);
  }
  void WakeAll() {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    for (const int socket : sockets_) Connection::Wake(socket);
  }

 private:
  absl::Mutex mutex_;
  std::set<int> sockets_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

// The streams that are open. Any thread.
class Streams {
 public:
  explicit Streams(size_t most) : most_(most) {}

  // False when there are too many, or the server stops.
  bool Add(HttpStream* stream) {
    absl::MutexLock lock(&mutex_);
    return !stopped_ && streams_.size() < most_ && streams_.insert(stream).second;
  }
  void Remove(HttpStream* stream) {
    absl::MutexLock lock(&mutex_);
    streams_.erase(stream);
  }
  void CancelAll() {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    for (HttpStream* stream : streams_) stream->Cancel();
  }

 private:
  const size_t most_;
  absl::Mutex mutex_;
  std::set<HttpStream*> streams_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

// httplib's server, which accepts, parses and routes; its connections are ours, whose limits it has not.
class Acceptor final : public httplib::Server {
 public:
  // All must outlive it. `context` may be null: plain text.
  Acceptor(SSL_CTX* context, const HttpOptions& options)
      : context_(context),
        limits_({.timeout = options.timeout, .request_bytes = kMaxHeadBytes + 2 * options.max_body_bytes}) {}

  void WakeAll() { sockets_.WakeAll(); }

 private:
  bool process_and_close_socket(socket_t socket) override {
    Connection connection(socket, context_, limits_);
    sockets_.Add(socket);
    if (connection.Handshake()) ServeRequests(connection);
    sockets_.Remove(socket);
    return true;
  }

  void ServeRequests(Connection& connection) {
    ConnectionStream stream(connection);
    bool closed = false;
    for (int left = kRequestsPerConnection; left > 0 && !closed; --left) {
      if (!connection.AwaitRequest(kIdle) || !process_request(stream, left == 1, closed, nullptr)) return;
    }
  }

  SSL_CTX* const context_;
  const Connection::Limits limits_;
  OpenSockets sockets_;
};

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};

HttpRequest FromHttplib(const httplib::Request& from) {
  HttpRequest request;
  request.method = from.method;
  request.path = from.path;
  request.query = {from.params.begin(), from.params.end()};
  for (const auto& [name, value] : from.headers) request.headers.emplace(absl::AsciiStrToLower(name), value);
  return request;
}

// Sends what the stream has, once.
bool SendNext(HttpStream& stream, absl::Duration heartbeat, httplib::DataSink& sink) {
  const std::optional<std::string> next = stream.Next(heartbeat);
  if (!next.has_value()) {
    sink.done();
    return true;
  }
  const std::string_view sent = next->empty() ? std::string_view(kComment) : *next;
  return sink.write(sent.data(), sent.size());
}

httplib::Server::HandlerResponse RefuseLongPath(const httplib::Request& request, httplib::Response& response) {
  if (request.path.size() <= kMaxPathBytes) return httplib::Server::HandlerResponse::Unhandled;
  response.status = 414;
  return httplib::Server::HandlerResponse::Handled;
}

}  // namespace

class HttpServer::Impl {
 public:
  ~Impl() { Stop(); }

  Router& router() { return router_; }

  absl::StatusOr<int> Start(const HttpOptions& options) {
    options_ = options;
    if (options_.tls.given()) {
      context_.reset(SSL_CTX_new(TLS_server_method()));
      GPIPE_RETURN_IF_ERROR(SetUpTls(options_.tls, *context_));
    }
    streams_ = std::make_unique<Streams>(options_.streams);
    server_ = std::make_unique<Acceptor>(context_.get(), options_);
    SetUpServer();
    GPIPE_ASSIGN_OR_RETURN(const int port, Bind(*PortOf(options_.listen)));
    thread_ = std::thread([this, port] { Serve(port); });
    running_.WaitForNotification();
    return port;
  }

  void Stop() {
    if (!thread_.joinable()) return;
    stopping_ = true;
    streams_->CancelAll();
    server_->WakeAll();
    server_->stop();
    thread_.join();
  }

 private:
  void SetUpServer() {
    server_->set_payload_max_length(options_.max_body_bytes);
    server_->set_keep_alive_timeout(absl::ToInt64Seconds(kIdle));  // These two are what answers say.
    server_->set_keep_alive_max_count(kRequestsPerConnection);
    // As httplib's own, but that two servers cannot share an address.
    server_->set_socket_options([this](socket_t socket) {
      const int yes = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
      listening_ = socket;
    });
    server_->set_tcp_nodelay(true);
    server_->set_default_headers({{"Cache-Control", "no-store"}, {"X-Content-Type-Options", "nosniff"}});
    server_->new_task_queue = [this] { return new TaskQueue(options_.threads, &running_); };  // Owned by the server.
    server_->set_pre_routing_handler(RefuseLongPath);
    server_->set_exception_handler(
        [](const auto&, httplib::Response& response, std::exception_ptr) { response.status = 500; });
    server_->Get(kAnyPath, [this](const httplib::Request& request, httplib::Response& response) {
      Answer(FromHttplib(request), response);
    });
    const auto with_body = [this](const httplib::Request& request, httplib::Response& response,
                                  const httplib::ContentReader& reader) { AnswerWithBody(request, response, reader); };
    server_->Post(kAnyPath, with_body).Put(kAnyPath, with_body).Delete(kAnyPath, with_body);
  }

  absl::StatusOr<int> Bind(int port) {
    const std::string_view listen_host = HostOf(options_.listen);
    const std::string host(absl::StripSuffix(absl::StripPrefix(AbslView(listen_host), "["), "]"));
    const int bound = port == 0 ? server_->bind_to_any_port(host) : server_->bind_to_port(host, port) ? port : -1;
    if (bound > 0) {
      listen(listening_, kBacklog);  // httplib has asked for 5, which a browser fills alone.
      return bound;
    }
    return absl::UnavailableError(absl::StrCat("cannot listen on ", options_.listen, " for HTTP"));
  }

  // Where accepting fails for a reason that may pass, it is taken up again on the same port.
  void Serve(int port) {
    SetThreadName("http-accept");
    while (!server_->listen_after_bind() && !stopping_) {
      spdlog::warn("HTTP on {} was interrupted", options_.listen);
      if (const absl::StatusOr<int> again = Bind(port); !again.ok()) {
        return spdlog::error("{}", StdView(again.status().message()));
      }
    }
  }

  // Of a body whose length was not told httplib knows no limit.
  void AnswerWithBody(const httplib::Request& from, httplib::Response& response, const httplib::ContentReader& reader) {
    HttpRequest request = FromHttplib(from);
    const bool whole = reader([&](const char* data, size_t size) {
      if (request.body.size() + size > options_.max_body_bytes) return false;
      request.body.append(data, size);
      return true;
    });
    if (whole) return Answer(request, response);
    response.status = 413;
  }

  void Answer(const HttpRequest& request, httplib::Response& response) {
    HttpResponse answer = router_.Answer(request);
    response.status = answer.status;
    for (const auto& [name, value] : answer.headers) response.set_header(name, value);
    if (answer.stream != nullptr) return Stream(std::move(answer), response);
    response.set_content(answer.body, answer.content_type);
  }

  void Stream(HttpResponse answer, httplib::Response& response) {
    const std::shared_ptr<HttpStream> stream = std::move(answer.stream);
    if (!streams_->Add(stream.get())) {
      response.status = 503;
      return response.set_content("too many watch already; try again later\n", "text/plain");
    }
    response.set_chunked_content_provider(
        answer.content_type,
        [this, stream](size_t, httplib::DataSink& sink) { return SendNext(*stream, options_.heartbeat, sink); },
        [this, stream](bool) { streams_->Remove(stream.get()); });
  }

  HttpOptions options_;
  Router router_;
  std::unique_ptr<SSL_CTX, FreeContext> context_;
  std::unique_ptr<Streams> streams_;
  std::unique_ptr<Acceptor> server_;
  int listening_ = -1;  // The server's socket.
  absl::Notification running_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

HttpServer::HttpServer() : impl_(std::make_unique<Impl>()) {}

HttpServer::~HttpServer() = default;

void HttpServer::Handle(std::string_view method, std::string_view path, Handler handler) {
  impl_->router().Add(method, path, std::move(handler));
}

absl::Status HttpServer::Start(const HttpOptions& options) {
  GPIPE_RETURN_IF_ERROR(CheckListenAddress("--http-listen", options.listen, options.tls.given(), options.insecure));
  GPIPE_ASSIGN_OR_RETURN(const int port, impl_->Start(options));
  address_ = absl::StrCat(AbslView(HostOf(options.listen)), ":", port);
  return absl::OkStatus();
}

void HttpServer::Stop() { impl_->Stop(); }

}  // namespace gpipe
