#include "orchestrator/server.h"

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/address.h"
#include "common/artifacts/connections.h"
#include "common/artifacts/layout.h"
#include "common/http/http_server.h"
#include "common/listen_address.h"
#include "common/logging.h"
#include "common/metrics/counted.h"
#include "common/metrics/pages.h"
#include "common/net/certificate_watch.h"
#include "common/net/server.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "orchestrator/access/gatekeeper.h"
#include "orchestrator/access/guarded_service.h"
#include "orchestrator/access/roles.h"
#include "orchestrator/access/worker_files.h"
#include "orchestrator/api/admin_service.h"
#include "orchestrator/api/cluster_service.h"
#include "orchestrator/api/job_service.h"
#include "orchestrator/api/monitoring_service.h"
#include "orchestrator/api/round_service.h"
#include "orchestrator/artifacts/artifact_service.h"
#include "orchestrator/artifacts/artifact_store.h"
#include "orchestrator/cluster/background.h"
#include "orchestrator/cluster/session_service.h"
#include "orchestrator/jobs/disk_guard.h"
#include "orchestrator/jobs/store.h"
#include "orchestrator/metrics/call_counter.h"
#include "orchestrator/metrics/collector.h"
#include "orchestrator/metrics/definitions.h"
#include "orchestrator/metrics/job_counters.h"
#include "orchestrator/scheduling/admission.h"
#include "orchestrator/web/web.h"
#include "spdlog/spdlog.h"

namespace gpipe::orchestrator {
namespace {

constexpr size_t kQueuedRequests = 4096;
constexpr size_t kQueuedChecks = 4096;
constexpr size_t kQueuedPlans = 1024;
constexpr size_t kQueuedMerges = 256;
constexpr size_t kQueuedBackups = 1;

// One SQLite transaction per batch of the loop. A failure to store is the end of the process: see ServerOptions.
class Transactions {
 public:
  // `on_room` is called, before a batch, when the disk has become full, or has room again.
  Transactions(Store* store, DiskGuard* disk, prometheus::Histogram* commit_seconds,
               std::function<void(const absl::Status&)> on_broken, std::function<void()> on_room)
      : store_(store),
        disk_(disk),
        commit_seconds_(commit_seconds),
        on_broken_(std::move(on_broken)),
        on_room_(std::move(on_room)) {}

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
    const auto begun = std::chrono::steady_clock::now();
    absl::Status committed = batch_->Commit();
    batch_.reset();
    commit_seconds_->Observe(std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
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
  prometheus::Histogram* const commit_seconds_;
  const std::function<void(const absl::Status&)> on_broken_;
  const std::function<void()> on_room_;
  std::optional<Store::Batch> batch_;
  bool broken_ = false;
};

// Workers, who are apart from other roles, read and write only what their jobs are about. Parts are nobody else's:
// those of an attempt that there is not would stay for ever.
ArtifactService::AccessOf FilesOfCaller(const Gatekeeper& gatekeeper, const WorkerFiles& files) {
  return [&](const grpc::CallbackServerContext& context) -> ArtifactService::Access {
    const Caller caller = gatekeeper.WhoCalls(context);
    const bool is_worker = caller.role == Role::kWorker;
    ArtifactService::Access access;
    if (is_worker)
      access.may_read = [&files, name = caller.name](const auto& file) { return files.MayRead(name, file); };
    access.may_write = [&files, name = caller.name, is_worker](const v1::UploadArtifactRequest& first) {
      return is_worker || first.has_part_of() ? files.MayWrite(name, first) : absl::OkStatus();
    };
    return access;
  };
}

// gRPC's library of reflection adds itself to every builder of a program that is linked with it.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins, [](const auto& plugin) { return plugin->name() == "proto_server_reflection"; });
  }
};

// What calls are counted by: of others, which anybody can make up, there may be any number.
std::set<std::string, std::less<>> KnownMethods() {
  std::set<std::string, std::less<>> known = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch",
                                              "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};
  for (const Rule& rule : AllRules()) known.emplace(rule.method);
  return known;
}

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
        std::unique_ptr<Store> opened, std::unique_ptr<ArtifactStore> artifact_store,
        std::unique_ptr<Gatekeeper> keeper)
      : clock(std::move(steady_clock)),
        certificate_watch(options.tls),
        gatekeeper(std::move(keeper)),
        disk(std::move(guard)),
        store(std::move(opened)),
        artifacts(std::move(artifact_store)),
        counters(counted, *clock),
        transactions(store.get(), disk.get(), &metrics::MakeHistogram(counted, metric::kCommit, metrics::kSeconds),
                     options.on_broken, [this] { OnRoom(); }),
        loop(clock.get(), kQueuedRequests, transactions.AsTransaction()),
        cluster(&loop, options.cluster),
        checker(&loop, &cluster, &checks, artifacts.get()),
        book(&loop, store.get()),
        monitor(&loop, &cluster, &book, &feed),
        profiler(&cluster.inspector(), store.get()),
        planner(&loop, &plans),
        housekeeper({&loop, store.get(), artifacts.get(), &merges, [this](const std::string& id) { book.Deleted(id); }},
                    options.housekeeping),
        scheduler({&loop, &cluster, &book, &checker, &profiler, &planner, artifacts.get(), &housekeeper, &merges,
                   options.max_shard_bytes}),
        admission({&loop, &cluster, &book, &scheduler, &checker, &profiler, &planner, artifacts.get(), disk.get()}),
        job_service({&loop, &book, &scheduler, &admission, &housekeeper, gatekeeper.get()}),
        cluster_service(&loop, &cluster, store.get(), disk.get()),
        admin_service(options.state_dir, artifacts.get(), &backups),
        session_service({&loop, &cluster, gatekeeper.get(), &worker_files}),
        artifact_service(artifacts.get(), FilesOfCaller(*gatekeeper, worker_files)),
        monitoring_service({&loop, &book, &feed, &monitor}),
        round_service(&loop, &scheduler),
        collector({clock.get(), &loop, &cluster, &book, disk.get(), &counters, &counted, options.state_dir}) {
    book.set_observer(&counters);
  }

  prometheus::Registry counted;
  std::unique_ptr<SteadyClock> clock;
  CertificateWatch certificate_watch;
  std::unique_ptr<Gatekeeper> gatekeeper;
  WorkerFiles worker_files;
  std::unique_ptr<DiskGuard> disk;
  std::unique_ptr<Store> store;
  std::unique_ptr<ArtifactStore> artifacts;
  JobCounters counters;
  Transactions transactions;
  EventLoop loop;
  Cluster cluster;
  // Their work posts to the loop and reads what stands before them; what stands behind them is only called by the loop.
  BackgroundThread checks{"checks", kQueuedChecks};
  BackgroundThread plans{"plans", kQueuedPlans};
  BackgroundThread merges{"merges", kQueuedMerges};
  BackgroundThread backups{"backup", kQueuedBackups};
  SpecChecker checker;
  JobBook book;
  ClusterFeed feed;
  ClusterMonitor monitor;
  Profiler profiler;
  PlanMaker planner;
  Housekeeper housekeeper;
  Scheduler scheduler;
  Admission admission;
  JobService job_service;
  ClusterService cluster_service;
  AdminService admin_service;
  SessionService session_service;
  ArtifactService artifact_service;
  MonitoringService monitoring_service;
  RoundService round_service;
  std::vector<std::unique_ptr<GuardedService>> guarded;
  Collector collector;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<AcceptingPort> port;
  std::unique_ptr<WebApi> web;
  HttpServer http;
  std::thread loop_thread;

  absl::Status Recover();
  absl::Status Serve(const ServerOptions& options);
  // The only way that a service gets to the server.
  void Register(grpc::ServerBuilder& builder, const std::string& full_name, grpc::Service& service);
  absl::Status ServeHttp(const ServerOptions& options);
  void OnRoom();
  void CloseOnLoop(const absl::Status& reason);
};

// What an earlier process has left.
absl::Status Server::State::Recover() {
  GPIPE_ASSIGN_OR_RETURN(const auto drained, store->DrainedWorkers());
  for (const auto& [name, reason] : drained) GPIPE_RETURN_IF_ERROR(cluster.Drain(name, reason));
  return book.Recover();
}

// Whoever asks for the health of the API's services is told; the process itself is well. On the loop.
void Server::State::OnRoom() {
  disk->full() ? spdlog::error("read-only: {}", disk->why()) : spdlog::info("there is room again");
  loop.PostAfter(absl::ZeroDuration(), [this] { scheduler.Hold(disk->why()); });
  grpc::HealthCheckServiceInterface* health = server->GetHealthCheckService();
  if (health != nullptr) health->SetServingStatus(v1::JobService::service_full_name(), !disk->full());
}

absl::Status Server::State::Serve(const ServerOptions& options) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  if (!options.reflection) builder.SetOption(std::make_unique<WithoutReflection>());
  prometheus::Counter& refused = metrics::MakeCounter(counted, metric::kConnectionsRefused);
  GPIPE_ASSIGN_OR_RETURN(port, AddPort(builder, options.listen, options.tls, {}, [&refused] { refused.Increment(); }));
  builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
  for (const auto& [name, value] : kFileArguments) builder.AddChannelArgument(name, value);
  Register(builder, v1::JobService::service_full_name(), job_service);
  Register(builder, v1::ClusterService::service_full_name(), cluster_service);
  Register(builder, v1::WorkerSessionService::service_full_name(), session_service);
  Register(builder, v1::ArtifactService::service_full_name(), artifact_service);
  Register(builder, v1::AdminService::service_full_name(), admin_service);
  Register(builder, v1::MonitoringService::service_full_name(), monitoring_service);
  Register(builder, v1::RoundService::service_full_name(), round_service);
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<CallCounter>(counted, KnownMethods()));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  server = builder.BuildAndStart();
  if (server == nullptr) return absl::UnavailableError(absl::StrCat("cannot serve on ", options.listen));
  port->Start();
  return absl::OkStatus();
}

void Server::State::Register(grpc::ServerBuilder& builder, const std::string& full_name, grpc::Service& service) {
  guarded.push_back(std::make_unique<GuardedService>(full_name, service, *gatekeeper));
  builder.RegisterService(guarded.back().get());
}

absl::Status Server::State::ServeHttp(const ServerOptions& options) {
  if (options.http_listen.empty()) return absl::OkStatus();
  metrics::AddPages("gpipe-orchestrator", collector.Pages(), http);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // Pages of lists are bounded by the services.
  web = std::make_unique<WebApi>(WebOptions{.channel = server->InProcessChannel(arguments),
                                            .open = !options.tls.given(),
                                            .reader_token = gatekeeper->reader_token()});
  AddWebPage(http, *web);
  HttpOptions http_options;
  http_options.listen = options.http_listen;
  http_options.tls = options.tls;
  http_options.insecure = options.insecure;
  return http.Start(http_options);
}

void Server::State::CloseOnLoop(const absl::Status& reason) {
  absl::Notification closed;
  const bool posted = loop.Post([&] {
    admission.Shutdown(reason);
    scheduler.Shutdown(StdView(reason.message()));
    cluster.Shutdown(reason);
    loop.AfterCommit([&](const absl::Status&) {
      book.CloseWatches(reason);
      feed.Close(reason);
      closed.Notify();
    });
  });
  if (posted) closed.WaitForNotification();
}

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options) {
  GPIPE_RETURN_IF_ERROR(CheckListenAddress("--listen", options.listen, options.tls.given(), options.insecure));
  GPIPE_RETURN_IF_ERROR(CheckTls(options.tls, TlsUse::kMutual));
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Gatekeeper> gatekeeper,
                         Gatekeeper::Create({.plain_text = !options.tls.given(), .tokens_file = options.tokens_file}));
  GPIPE_RETURN_IF_ERROR(CheckDatabaseIsThere(options.state_dir));
  auto clock = std::make_unique<SteadyClock>();
  auto disk = std::make_unique<DiskGuard>(options.state_dir);  // First: it makes room where there is none.
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Store> store, Store::Open(options.state_dir));
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<ArtifactStore> artifacts,
                         ArtifactStore::Open(options.state_dir / "artifacts", {.clock = clock.get()}));
  auto state = std::make_unique<State>(options, std::move(clock), std::move(disk), std::move(store),
                                       std::move(artifacts), std::move(gatekeeper));
  GPIPE_RETURN_IF_ERROR(state->Recover());
  GPIPE_RETURN_IF_ERROR(state->Serve(options));
  const int port = state->port->port();
  GPIPE_RETURN_IF_ERROR(state->ServeHttp(options));
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

const std::string& Server::http_address() const { return state_->http.address(); }

void Server::Shutdown() {
  if (state_ == nullptr) return;
  state_->server->GetHealthCheckService()->SetServingStatus(false);
  state_->collector.SetShuttingDown();
  state_->CloseOnLoop(absl::UnavailableError("the orchestrator is shutting down"));
  state_->port->Stop();
  state_->server->Shutdown(absl::ToChronoTime(absl::Now() + kShutdownDeadline));
  state_->server->Wait();
  state_->http.Stop();  // Its handlers ask the loop.
  state_->loop.Stop();
  state_->loop_thread.join();
  state_.reset();
}

}  // namespace gpipe::orchestrator
