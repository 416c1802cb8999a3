#include "worker/daemon.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/grpc_status.h"
#include "common/http/http_server.h"
#include "common/log_output.h"
#include "common/metrics/pages.h"
#include "common/net/certificate_watch.h"
#include "common/net/channel.h"
#include "common/random_id.h"
#include "common/status_macros.h"
#include "common/version.h"
#include "grpcpp/grpcpp.h"
#include "prometheus/registry.h"
#include "spdlog/spdlog.h"
#include "worker/device_info.h"
#include "worker/device_use.h"
#include "worker/engine/clock_offset.h"
#include "worker/engine/device_lock.h"
#include "worker/engine/engine.h"
#include "worker/engine/round_trace.h"
#include "worker/engine/torch_setup.h"
#include "worker/exported/inspect_exported.h"
#include "worker/model/inspect.h"
#include "worker/monitor/metered_sink.h"
#include "worker/monitor/worker_monitor.h"
#include "worker/session/attempt_log.h"
#include "worker/session/grpc_artifacts.h"
#include "worker/session/session.h"
#include "worker/software.h"
#include "worker/work_folder.h"

namespace gpipe::worker {
namespace {

// SIGUSR1 is the session's word to main that it has ended by itself.
sigset_t WaitedSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&signals, signal);
  return signals;
}

// Threads made after this inherit the mask, so that only main hears of signals.
void BlockSignals() {
  const sigset_t signals = WaitedSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

int WaitForSignal() {
  const sigset_t signals = WaitedSignals();
  int signal = 0;
  sigwait(&signals, &signal);
  return signal;
}

void ExitAtOnceOnNextSignal() {
  struct sigaction action = {};
  action.sa_handler = [](int) { _exit(EXIT_FAILURE); };
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT}) {
    sigaction(signal, &action, nullptr);
    sigaddset(&signals, signal);
  }
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

v1::Hello MakeHello(const Options& options, const DeviceInfo& device, const std::string& driver_version) {
  v1::Hello hello;
  hello.set_name(options.name);
  hello.set_device(options.device);
  hello.set_device_name(device.name);
  hello.set_threads(options.threads);
  hello.set_memory_bytes(device.memory_bytes);
  hello.set_data_address(options.data_address);
  hello.set_version(std::string(kVersion));
  hello.set_incarnation(RandomId());
  for (const auto& [name, version] : SoftwareOf(options.device, driver_version)) {
    (*hello.mutable_software())[name] = version;
  }
  return hello;
}

// LibTorch itself says nothing of a cuDNN that halves its speed.
void WarnOfCudnn(const DeviceInfo& device) {
  const std::string problem = CudnnProblem(LookAtCudnn(device.compute_capability));
  if (!problem.empty()) spdlog::warn("{}", problem);
}

std::shared_ptr<grpc::Channel> Dial(const Endpoint& orchestrator) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // A plan of many stages and micro-batches is larger than the default.
  return MakeChannel(orchestrator, std::move(arguments));
}

absl::StatusOr<Failpoint> FailpointFromEnvironment() {
  const char* text = std::getenv("GPIPE_FAILPOINT");
  if (text == nullptr || *text == '\0') return Failpoint();
  spdlog::warn("GPIPE_FAILPOINT={}: this worker will FAIL ON PURPOSE", text);
  return Failpoint::Parse(text);
}

v1::Inspected Inspect(const v1::Inspect& request, c10::Device device, Artifacts& artifacts) {
  return request.model().has_exported() ? InspectExported(request, artifacts, device) : InspectModel(request, device);
}

// A measurement has the device to itself: on CUDA it records graphs, while random numbers come from the generator that
// an attempt draws from, too.
v1::Inspected InspectUnlessBusy(const v1::Inspect& request, DeviceLock& device,
                                absl::FunctionRef<v1::Inspected()> inspect) {
  if (request.profile_micro_batch() == 0) return inspect();
  if (device.TryTake()) {
    const absl::Cleanup release = [&device] { device.Release(); };
    return inspect();
  }
  v1::Inspected busy;
  busy.set_id(request.id());
  *busy.mutable_status() = ToProto(absl::UnavailableError("the worker has begun with a job"));
  return busy;
}

LogContext ToLogContext(const std::string& worker, const v1::Activity& activity) {
  LogContext context{.worker = worker};
  if (activity.attempt().job().empty()) return context;
  context.job = activity.attempt().job();
  context.attempt = activity.attempt().attempt();
  context.stage = activity.stage();
  context.step = activity.step();
  return context;
}

absl::Status ServeHttp(const Options& options, WorkerMonitor& monitor, HttpServer& http) {
  if (options.http_listen.empty()) return absl::OkStatus();
  metrics::AddPages("gpipe-worker", monitor.Pages(), http);
  HttpOptions http_options;
  http_options.listen = options.http_listen;
  http_options.tls = options.tls;
  http_options.insecure = options.insecure;
  GPIPE_RETURN_IF_ERROR(http.Start(http_options));
  spdlog::info("serving HTTP on {}", http.address());
  return absl::OkStatus();
}

// Runs the session on a thread of its own while main waits for signals.
absl::Status RunSession(Session& session, WorkerMonitor& monitor, absl::Duration patience) {
  absl::Status ended;
  const pthread_t main_thread = pthread_self();
  std::thread thread([&] {
    ended = session.Run();
    pthread_kill(main_thread, SIGUSR1);
  });
  if (const int signal = WaitForSignal(); signal != SIGUSR1) {
    ExitAtOnceOnNextSignal();
    const char* name = signal == SIGTERM ? "SIGTERM" : "SIGINT";
    spdlog::info("{}: leaving as soon as its job, if any, is saved; another signal ends it at once", name);
    monitor.SetLeaving();
    session.Leave(absl::StrCat("received ", name), patience);
  }
  thread.join();
  return ended;
}

absl::StatusOr<EngineOptions> MakeEngineOptions(const Options& options, const WorkFolder& folder) {
  EngineOptions engine_options;
  engine_options.device = c10::Device(options.device);
  engine_options.threads = options.threads;
  engine_options.data_address = options.data_address;
  engine_options.work_dir = folder.path();
  engine_options.trace_dir = options.trace_dir;
  engine_options.shared_root = options.shared_root;
  engine_options.max_shard_bytes = options.max_shard_bytes;
  GPIPE_ASSIGN_OR_RETURN(engine_options.failpoint, FailpointFromEnvironment());
  return engine_options;
}

// What a worker consists of: each part uses those above it, and is gone before them. Main's thread.
class Daemon {
 public:
  // `options` outlives it.
  Daemon(const Options& options, const DeviceInfo& device, const Endpoint& orchestrator)
      : options_(options),
        device_use_(options.device),
        hello_(MakeHello(options, device, device_use_.DriverVersion())),
        connections_(orchestrator, ArtifactConnections::kDefaultCount, ArtifactConnections::Absent::kAwait),
        session_stub_(v1::WorkerSessionService::NewStub(Dial(orchestrator))),
        shared_(options.shared_root),
        sent_(connections_, options.artifacts_dir),
        artifacts_(sent_, shared_) {}

  // Once: until a signal, or until the session has ended by itself.
  absl::Status Run(EngineOptions engine_options, LogContextSource& log_context) {
    engine_options.clock = &clock_offset_;
    if (engine_options.device.is_cuda()) engine_options.device_lock = &device_lock_;
    GPIPE_ASSIGN_OR_RETURN(engine_, Engine::Create(engine_options, artifacts_, metered_));
    FollowEngine(log_context);
    const absl::Cleanup unfollow = [&] { Unfollow(log_context); };
    return Serve(engine_options.device);
  }

 private:
  // Logs say what the engine works on, and what is logged meanwhile goes to the orchestrator, too.
  void FollowEngine(LogContextSource& log_context) {
    log_->Follow([this] { return engine_->activity().attempt(); });
    log_context.Follow([this] { return ToLogContext(options_.name, engine_->activity()); });
  }
  void Unfollow(LogContextSource& log_context) {
    log_->Follow(nullptr);
    log_context.Follow([name = options_.name] { return LogContext{.worker = name}; });
  }

  absl::Status Serve(c10::Device device) {
    GrpcArtifacts sent(connections_, options_.artifacts_dir);  // The inspector works beside the engine.
    SharedArtifacts inspected(sent, shared_);
    Inspector inspector([&] { return SetUpTorchThread(device, options_.threads); },
                        [&](const v1::Inspect& request) {
                          return InspectUnlessBusy(request, device_lock_,
                                                   [&] { return Inspect(request, device, inspected); });
                        },
                        outbox_);
    Surveyor surveyor(shared_, outbox_);
    Session session(MakeSessionOptions(), *session_stub_, *engine_, inspector, surveyor, outbox_);
    WorkerMonitor monitor({.hello = hello_,
                           .connected = [&] { return session.connected(); },
                           .activity = [this] { return engine_->activity(); },
                           .use = [this] { return device_use_.Take(); },
                           .counted = &counted_});
    HttpServer http;  // Last: gone before what its handlers ask.
    GPIPE_RETURN_IF_ERROR(ServeHttp(options_, monitor, http));
    return RunSession(session, monitor, absl::Seconds(options_.leave_within));
  }

  SessionOptions MakeSessionOptions() {
    SessionOptions session_options;
    session_options.hello = hello_;
    session_options.device_use = [this] { return device_use_.Take(); };
    session_options.clock = &clock_offset_;
    return session_options;
  }

  const Options& options_;
  DeviceUseMeter device_use_;
  const v1::Hello hello_;
  ArtifactConnections connections_;
  const std::unique_ptr<v1::WorkerSessionService::StubInterface> session_stub_;
  const SharedFiles shared_;
  GrpcArtifacts sent_;
  SharedArtifacts artifacts_;
  ClockOffset clock_offset_;
  Outbox outbox_;
  prometheus::Registry counted_;
  const SteadyClock clock_;
  MeteredSink metered_{outbox_, counted_, clock_};
  DeviceLock device_lock_;  // The engine takes it on CUDA only.
  const std::shared_ptr<AttemptLog> log_ = AttemptLog::Install(outbox_);
  std::unique_ptr<Engine> engine_;
};

}  // namespace

absl::Status RunWorker(const Options& options, LogContextSource& log_context) {
  BlockSignals();
  GPIPE_ASSIGN_OR_RETURN(auto credentials, MakeCredentials(options.tls, TlsUse::kMutual));
  const CertificateWatch certificate_watch(options.tls);
  GPIPE_ASSIGN_OR_RETURN(const DeviceInfo info, GetDeviceInfo(options.device));
  GPIPE_ASSIGN_OR_RETURN(const WorkFolder folder, WorkFolder::Create(options.work_dir, options.name));
  SetUpTorchProcess();
  if (options.device != "cpu") WarnOfCudnn(info);
  if (!options.trace_dir.empty()) GPIPE_RETURN_IF_ERROR(RoundTrace::SetUpProcess(c10::Device(options.device)));
  GPIPE_ASSIGN_OR_RETURN(const EngineOptions engine_options, MakeEngineOptions(options, folder));
  Daemon daemon(options, info, {options.orchestrator, std::move(credentials)});
  spdlog::info("{} on {} ({}), {} threads; orchestrator {}", options.name, options.device, info.name, options.threads,
               options.orchestrator);
  return daemon.Run(engine_options, log_context);
}

}  // namespace gpipe::worker
