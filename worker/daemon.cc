#include "worker/daemon.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <thread>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/random_id.h"
#include "common/status_macros.h"
#include "common/version.h"
#include "grpcpp/grpcpp.h"
#include "spdlog/spdlog.h"
#include "worker/device_info.h"
#include "worker/engine/engine.h"
#include "worker/engine/round_trace.h"
#include "worker/engine/torch_setup.h"
#include "worker/exported/inspect_exported.h"
#include "worker/model/inspect.h"
#include "worker/session/attempt_log.h"
#include "worker/session/grpc_artifacts.h"
#include "worker/session/session.h"
#include "worker/work_folder.h"

namespace gpipe::worker {
namespace {

constexpr absl::Duration kLeavePatience = absl::Seconds(5);

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

v1::Hello MakeHello(const Options& options, const DeviceInfo& device) {
  v1::Hello hello;
  hello.set_name(options.name);
  hello.set_device(options.device);
  hello.set_device_name(device.name);
  hello.set_threads(options.threads);
  hello.set_memory_bytes(device.memory_bytes);
  hello.set_data_address(options.data_address);
  hello.set_version(std::string(kVersion));
  hello.set_incarnation(RandomId());
  return hello;
}

std::shared_ptr<grpc::Channel> Dial(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // A plan of many stages and micro-batches is larger than the default.
  // The session has a backoff of its own.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
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

// Runs the session on a thread of its own while main waits for signals.
absl::Status RunSession(Session& session) {
  absl::Status ended;
  const pthread_t main_thread = pthread_self();
  std::thread thread([&] {
    ended = session.Run();
    pthread_kill(main_thread, SIGUSR1);
  });
  if (const int signal = WaitForSignal(); signal != SIGUSR1) {
    ExitAtOnceOnNextSignal();
    const char* name = signal == SIGTERM ? "SIGTERM" : "SIGINT";
    spdlog::info("{}: leaving after this clock cycle", name);
    session.Leave(absl::StrCat("received ", name), kLeavePatience);
  }
  thread.join();
  return ended;
}

}  // namespace

absl::Status RunWorker(const Options& options) {
  BlockSignals();
  GPIPE_ASSIGN_OR_RETURN(const DeviceInfo info, GetDeviceInfo(options.device));
  GPIPE_ASSIGN_OR_RETURN(const WorkFolder folder, WorkFolder::Create(options.work_dir, options.name));
  SetUpTorchProcess();
  if (!options.trace_dir.empty()) GPIPE_RETURN_IF_ERROR(RoundTrace::SetUpProcess(c10::Device(options.device)));

  EngineOptions engine_options;
  engine_options.device = c10::Device(options.device);
  engine_options.threads = options.threads;
  engine_options.data_address = options.data_address;
  engine_options.work_dir = folder.path();
  engine_options.trace_dir = options.trace_dir;
  engine_options.shared_root = options.shared_root;
  engine_options.max_shard_bytes = options.max_shard_bytes;
  GPIPE_ASSIGN_OR_RETURN(engine_options.failpoint, FailpointFromEnvironment());

  const std::shared_ptr<grpc::Channel> channel = Dial(options.orchestrator);
  ArtifactConnections connections(options.orchestrator, ArtifactConnections::kDefaultCount,
                                  ArtifactConnections::Absent::kAwait);
  const auto session_stub = v1::WorkerSessionService::NewStub(channel);
  const SharedFiles shared(options.shared_root);
  GrpcArtifacts sent(connections, options.artifacts_dir);
  SharedArtifacts artifacts(sent, shared);
  Outbox outbox;
  const std::shared_ptr<AttemptLog> log = AttemptLog::Install(outbox);
  GPIPE_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, Engine::Create(engine_options, artifacts, outbox));
  log->Follow([&engine] { return engine->activity().attempt(); });
  const auto unfollow = absl::MakeCleanup([&log] { log->Follow(nullptr); });
  GrpcArtifacts sent_to_inspector(connections, options.artifacts_dir);  // It works beside the engine.
  SharedArtifacts inspected(sent_to_inspector, shared);
  Inspector inspector([&] { return SetUpTorchThread(engine_options.device, options.threads); },
                      [&](const v1::Inspect& request) { return Inspect(request, engine_options.device, inspected); },
                      outbox);
  Surveyor surveyor(shared, outbox);
  SessionOptions session_options;
  session_options.hello = MakeHello(options, info);
  Session session(session_options, *session_stub, *engine, inspector, surveyor, outbox);
  spdlog::info("{} on {} ({}), {} threads; orchestrator {}", options.name, options.device, info.name, options.threads,
               options.orchestrator);
  return RunSession(session);
}

}  // namespace gpipe::worker
