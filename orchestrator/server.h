#ifndef GPIPE_ORCHESTRATOR_SERVER_H_
#define GPIPE_ORCHESTRATOR_SERVER_H_

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/net/tls_options.h"
#include "common/safetensors/shard_names.h"
#include "orchestrator/cluster/cluster.h"
#include "orchestrator/scheduling/housekeeper.h"

namespace gpipe::orchestrator {

struct ServerOptions {
  std::string listen = "127.0.0.1:7070";  // Port 0 lets the kernel choose.
  std::filesystem::path state_dir = "./gpipe-state";
  Cluster::Options cluster;
  int64_t max_shard_bytes = safetensors::kMaxShardBytes;  // Of a model or checkpoint in one file.
  Housekeeper::Options housekeeping;
  // All three files, or none: plain text, in which whoever reaches the address may do everything.
  TlsOptions tls;
  std::filesystem::path tokens_file;  // orchestrator/access/token_file.h; empty: there are no tokens.
  // HOST:PORT of the web page, metrics, health and status; empty: nowhere.
  std::string http_listen;
  // Listening on other addresses than this machine's own, in plain text.
  bool insecure = false;
  // Whether a client may ask what services, methods and messages there are.
  bool reflection = true;
  // Called by some thread, at most once, when the state cannot be stored any more: the process should end, because what
  // it has in memory is no longer what a restart would find.
  std::function<void(const absl::Status& why)> on_broken = [](const absl::Status&) {};
};

// The whole orchestrator: its state, its threads and its gRPC server.
class Server {
 public:
  // Opens the state, takes up its unfinished jobs, and serves. INVALID_ARGUMENT: a bad or refused listen address;
  // UNAVAILABLE: it cannot be bound; otherwise as Store::Open.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options);
  // As Shutdown.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // HOST:PORT as bound.
  const std::string& address() const { return address_; }
  // The same of HTTP; empty: there is none.
  const std::string& http_address() const;

  // In order: refuses new work, aborts what runs (it goes on after the next start), ends the sessions and watches, then
  // the server within kShutdownDeadline, then stores what is left. One call; any thread but the server's own.
  void Shutdown();

  static constexpr int kMaxRequestBytes = 16 << 20;
  static constexpr absl::Duration kShutdownDeadline = absl::Seconds(3);

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
  std::string address_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SERVER_H_
