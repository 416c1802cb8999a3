#include "orchestrator/server.h"

#include <filesystem>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/address.h"
#include "common/artifacts/connections.h"
#include "common/artifacts/layout.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "orchestrator/api/cluster_service.h"
#include "orchestrator/api/job_service.h"
#include "orchestrator/artifacts/artifact_service.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/cluster/background.h"
#include "orchestrator/cluster/session_service.h"
#include "orchestrator/jobs/disk_guard.h"
#include "orchestrator/jobs/store.h"
#include "orchestrator/scheduling/admission.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

constexpr int kHandshakeMillis = 10'000;
constexpr size_t kQueuedRequests = 4096;
constexpr size_t kQueuedChecks = 4096;
constexpr size_t kQueuedPlans = 1024;
constexpr size_t kQueuedMerges = 256;

// One SQLite transaction per batch of the loop. A failure to store is the end of the process: see ServerOptions.
class Transactions {
 public:
  // `on_room` is called, before a batch, when the disk has become full, or has room again.
  Transactions(Store* store, DiskGuard* disk, std::function<void(const absl::Status&)> on_broken,
               std::function<void()> on_room)
      : store_(store), disk_(disk), on_broken_(std::move(on_broken)), on_room_(std::move(on_room)) {}

  EventLoop::Transaction AsTransaction() {
    return {.begin = [this] { return Begin(); }, .commit = [this] { return Commit(); }};
  }

 private:
  absl::Status Begin() {
    if (disk_->Look()) {
      store_->FoldLog().IgnoreError();  // Else there is less room than there could be.
      on_room_();
    }
    absl::StatusOr<Store::Batch> batch = store_->Begin();
    if (!batch.ok()) return Broken(batch.status());
    batch_.emplace(*std::move(batch));
    return absl::OkStatus();
  }

  absl::Status Commit() {
    absl::Status committed = batch_->Commit();
    batch_.reset();
    return committed.ok() ? committed : Broken(committed);
  }

  absl::Status Broken(const absl::Status& why) {
    if (!std::exchange(broken_, true)) {
      spdlog::critical("the state cannot be stored: {}", StdView(why.message()));
      on_broken_(why);
    }
    return why;
  }

  Store* const store_;
  DiskGuard* const disk_;
  const std::function<void(const absl::Status&)> on_broken_;
  const std::function<void()> on_room_;
  std::optional<Store::Batch> batch_;
  bool broken_ = false;
};

// Files whose database is gone are not those of an empty cluster: it would be served as one, and its jobs be lost to
// all.
absl::Status CheckDatabaseIsThere(const std::filesystem::path& state_dir) {
  std::error_code error;
  const std::filesystem::path artifacts = state_dir / "artifacts";
  if (std::filesystem::exists(state_dir / Store::kDatabaseFile, error)) return absl::OkStatus();
  for (const auto& entry : std::filesystem::directory_iterator(artifacts, error)) {
    if (entry.path().filename() == kTemporaryFolder) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        artifacts.string(), " has files of jobs, but the database that knows the jobs is gone: put ",
        (state_dir / Store::kDatabaseFile).string(), " back, or remove the artifacts to begin with an empty cluster"));
  }
  return absl::OkStatus();
}

}  // namespace

// In order of construction; destroyed in reverse, after the server and the loop have stopped.
struct Server::State {
  State(const ServerOptions& options, std::unique_ptr<SteadyClock> steady_clock, std::unique_ptr<DiskGuard> guard,
        std::unique_ptr<Store> opened, std::unique_ptr<ArtifactStore> artifact_store)
      : clock(std::move(steady_clock)),
        disk(std::move(guard)),
        store(std::move(opened)),
        artifacts(std::move(artifact_store)),
        transactions(store.get(), disk.get(), options.on_broken, [this] { OnRoom(); }),
        loop(clock.get(), kQueuedRequests, transactions.AsTransaction()),
        cluster(&loop, options.cluster),
        checker(&loop, &cluster, &checks, artifacts.get()),
        book(&loop, store.get()),
        profiler(&cluster.inspector(), store.get()),
        planner(&loop, &plans),
        housekeeper({&loop, store.get(), artifacts.get(), &merges}, options.housekeeping),
        scheduler({&loop, &cluster, &book, &checker, &profiler, &planner, artifacts.get(), &housekeeper, &merges,
                   options.max_shard_bytes}),
        admission({&loop, &cluster, &book, &scheduler, &checker, &profiler, &planner, artifacts.get(), disk.get()}),
        job_service({&loop, &book, &scheduler, &admission, &housekeeper}),
        cluster_service(&loop, &cluster, disk.get()),
        session_service(&loop, &cluster),
        artifact_service(artifacts.get()) {}

  std::unique_ptr<SteadyClock> clock;
  std::unique_ptr<DiskGuard> disk;
  std::unique_ptr<Store> store;
  std::unique_ptr<ArtifactStore> artifacts;
  Transactions transactions;
  EventLoop loop;
  Cluster cluster;
  // Their work posts to the loop and reads what stands before them; what stands behind them is only called by the loop.
  BackgroundThread checks{"checks", kQueuedChecks};
  BackgroundThread plans{"plans", kQueuedPlans};
  BackgroundThread merges{"merges", kQueuedMerges};
  SpecChecker checker;
  JobBook book;
  Profiler profiler;
  PlanMaker planner;
  Housekeeper housekeeper;
  Scheduler scheduler;
  Admission admission;
  JobService job_service;
  ClusterService cluster_service;
  SessionService session_service;
  ArtifactService artifact_service;
  std::unique_ptr<grpc::Server> server;
  std::thread loop_thread;

  absl::Status Serve(const std::string& listen, int* port);
  void OnRoom();
  void CloseOnLoop(const absl::Status& reason);
};

// Whoever asks for the health of the API's services is told; the process itself is well. On the loop.
void Server::State::OnRoom() {
  disk->full() ? spdlog::error("read-only: {}", disk->why()) : spdlog::info("there is room again");
  loop.PostAfter(absl::ZeroDuration(), [this] { scheduler.Hold(disk->why()); });
  grpc::HealthCheckServiceInterface* health = server->GetHealthCheckService();
  if (health != nullptr) health->SetServingStatus(v1::JobService::service_full_name(), !disk->full());
}

absl::Status Server::State::Serve(const std::string& listen, int* port) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), port);
  builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
  for (const auto& [name, value] : kFileArguments) builder.AddChannelArgument(name, value);
  // A connection that does not say that it speaks HTTP/2 keeps its descriptor so long.
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMillis);
  // Two orchestrators must not share an address.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.RegisterService(&job_service);
  builder.RegisterService(&cluster_service);
  builder.RegisterService(&session_service);
  builder.RegisterService(&artifact_service);
  server = builder.BuildAndStart();
  if (server == nullptr || *port == 0) return absl::UnavailableError(absl::StrCat("cannot listen on ", listen));
  return absl::OkStatus();
}

void Server::State::CloseOnLoop(const absl::Status& reason) {
  absl::Notification closed;
  const bool posted = loop.Post([&] {
    admission.Shutdown(reason);
    scheduler.Shutdown(StdView(reason.message()));
    cluster.Shutdown(reason);
    loop.AfterCommit([&](const absl::Status&) {
      book.CloseWatches(reason);
      closed.Notify();
    });
  });
  if (posted) closed.WaitForNotification();
}

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options) {
  GPIPE_RETURN_IF_ERROR(CheckListenAddress(options.listen, options.insecure));
  GPIPE_RETURN_IF_ERROR(CheckDatabaseIsThere(options.state_dir));
  auto clock = std::make_unique<SteadyClock>();
  auto disk = std::make_unique<DiskGuard>(options.state_dir);  // First: it makes room where there is none.
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Store> store, Store::Open(options.state_dir));
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<ArtifactStore> artifacts,
                         ArtifactStore::Open(options.state_dir / "artifacts", {.clock = clock.get()}));
  auto state =
      std::make_unique<State>(options, std::move(clock), std::move(disk), std::move(store), std::move(artifacts));
  GPIPE_RETURN_IF_ERROR(state->book.Recover());
  int port = 0;
  GPIPE_RETURN_IF_ERROR(state->Serve(options.listen, &port));
  state->scheduler.Hold(state->disk->why());
  state->housekeeper.Start();
  state->loop_thread = std::thread([loop = &state->loop] {
    SetThreadName("loop");
    loop->Run();
  });
  std::unique_ptr<Server> server(new Server(std::move(state)));
  server->address_ = absl::StrCat(AbslView(HostOf(options.listen)), ":", port);
  return server;
}

Server::~Server() { Shutdown(); }

void Server::Shutdown() {
  if (state_ == nullptr) return;
  state_->server->GetHealthCheckService()->SetServingStatus(false);
  state_->CloseOnLoop(absl::UnavailableError("the orchestrator is shutting down"));
  state_->server->Shutdown(absl::ToChronoTime(absl::Now() + kShutdownDeadline));
  state_->server->Wait();
  state_->loop.Stop();
  state_->loop_thread.join();
  state_.reset();
}

absl::Status CheckListenAddress(const std::string& listen, bool insecure) {
  if (!PortOf(listen)) return absl::InvalidArgumentError(absl::StrCat("--listen ", listen, ": must be HOST:PORT"));
  if (insecure || IsLoopback(HostOf(listen))) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--listen ", listen,
                                                 ": other machines could reach it, and nothing is encrypted or "
                                                 "authenticated; say --insecure if that is what you want"));
}

}  // namespace gpipe::orchestrator
