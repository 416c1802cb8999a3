#include "worker/session/session.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/bounded_queue.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "tests/unit/worker/recording_sink.h"

namespace gpipe::worker {
namespace {

using ServerStream = grpc::ServerReaderWriter<v1::OrchestratorMessage, v1::WorkerMessage>;

// An orchestrator whose sessions are functions, one per session, in order.
class ScriptedOrchestrator : public v1::WorkerSessionService::Service {
 public:
  using Script = std::function<grpc::Status(ServerStream& stream)>;

  explicit ScriptedOrchestrator(std::vector<Script> scripts) : scripts_(std::move(scripts)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    stub_ = v1::WorkerSessionService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(port_), grpc::InsecureChannelCredentials()));
  }
  ~ScriptedOrchestrator() override { server_->Shutdown(std::chrono::system_clock::now()); }

  grpc::Status Session(grpc::ServerContext*, ServerStream* stream) override {
    const size_t number = sessions_++;
    // Like a name that is taken by a session that has not ended yet.
    if (number >= scripts_.size()) return {grpc::StatusCode::ALREADY_EXISTS, "no script is left"};
    return scripts_[number](*stream);
  }

  v1::WorkerSessionService::StubInterface& stub() { return *stub_; }
  int sessions() const { return static_cast<int>(sessions_); }

 private:
  const std::vector<Script> scripts_;
  std::atomic<size_t> sessions_ = 0;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::WorkerSessionService::Stub> stub_;
};

// Notes what the session asks of the engine.
class FakeHost : public AttemptHost {
 public:
  void Prepare(v1::Assignment assignment) override { calls.Push("prepare " + assignment.attempt().job()); }
  void MeasureLinks(v1::MeasureLinks request) override { calls.Push("measure " + request.attempt().job()); }
  void Grant(const v1::Grant& grant) override { calls.Push("grant " + std::to_string(grant.cycle())); }
  void OnRendezvousValue(const v1::RendezvousValue& value) override { calls.Push("value " + value.key()); }
  void Abort(const v1::AttemptId& attempt, const absl::Status& reason) override {
    calls.Push("abort " + attempt.job() + " " + std::string(reason.message()));
  }
  void Release(const v1::AttemptId& attempt) override { calls.Push("release " + attempt.job()); }
  void AbortAndWait(const absl::Status&) override { ++aborts; }
  v1::Activity activity() const override {
    v1::Activity activity;
    activity.set_phase(phase);
    return activity;
  }

  BoundedQueue<std::string> calls{64};
  std::atomic<int> aborts = 0;
  std::atomic<v1::Phase> phase = v1::PHASE_IDLE;
};

void SendWelcome(ServerStream& stream, int64_t heartbeat_millis = 10, int64_t lease_millis = 60000) {
  v1::OrchestratorMessage message;
  message.mutable_welcome()->set_heartbeat_millis(heartbeat_millis);
  message.mutable_welcome()->set_lease_millis(lease_millis);
  stream.Write(message);
}

// Reads until the worker hangs up.
void Drain(ServerStream& stream) {
  for (v1::WorkerMessage message; stream.Read(&message);) {
  }
}

v1::Hello Greet(ServerStream& stream) {
  v1::WorkerMessage hello;
  EXPECT_TRUE(stream.Read(&hello));
  EXPECT_TRUE(hello.has_hello()) << "the first message is Hello";
  return hello.hello();
}

SessionOptions Options() {
  SessionOptions options;
  options.hello.set_name("w");
  options.hello.set_incarnation("first");
  options.first_backoff = absl::Milliseconds(1);
  options.max_backoff = absl::Milliseconds(10);
  return options;
}

class SessionTest : public testing::Test {
 protected:
  // Runs a session against the scripts until it ends by itself or `until` returns.
  absl::Status Run(std::vector<ScriptedOrchestrator::Script> scripts, std::function<void(Session&)> until,
                   SessionOptions options = Options()) {
    ScriptedOrchestrator orchestrator(std::move(scripts));
    Session session(std::move(options), orchestrator.stub(), host_, inspector_, surveyor_, outbox_);
    absl::Status ended;
    std::thread thread([&] { ended = session.Run(); });
    until(session);
    thread.join();
    return ended;
  }

  Outbox outbox_;
  FakeHost host_;
  Inspector inspector_{[] { return absl::OkStatus(); },
                       [](const v1::Inspect& request) {
                         v1::Inspected inspected;
                         inspected.set_id(request.id());
                         return inspected;
                       },
                       outbox_};
  Surveyor surveyor_{SharedFiles(), outbox_};
};

TEST_F(SessionTest, HandsMessagesToTheEngineInOrder) {
  auto script = [](ServerStream& stream) {
    Greet(stream);
    SendWelcome(stream);
    v1::OrchestratorMessage message;
    message.mutable_measure_links()->mutable_attempt()->set_job("l");
    stream.Write(message);
    message.mutable_prepare()->mutable_attempt()->set_job("j");
    stream.Write(message);
    message.mutable_rendezvous_value()->set_key("k");
    stream.Write(message);
    message.mutable_grant()->set_cycle(7);
    stream.Write(message);
    message.mutable_abort()->mutable_attempt()->set_job("j");
    message.mutable_abort()->set_reason("why");
    stream.Write(message);
    message.mutable_release()->mutable_attempt()->set_job("j");
    stream.Write(message);
    Drain(stream);
    return grpc::Status::OK;
  };
  const absl::Status ended = Run({script}, [&](Session& session) {
    for (const char* call : {"measure l", "prepare j", "value k", "grant 7", "abort j why", "release j"}) {
      EXPECT_EQ(*host_.calls.Pop(), call);
    }
    session.Stop();
  });
  EXPECT_TRUE(ended.ok()) << ended;
}

TEST_F(SessionTest, ComesBackUnderTheSameNameAfterTheStreamBroke) {
  BoundedQueue<std::string> greeted(8);
  auto breaks = [&](ServerStream& stream) {
    const v1::Hello hello = Greet(stream);
    greeted.Push(hello.name() + " " + hello.incarnation());
    SendWelcome(stream);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "going down");
  };
  auto stays = [&](ServerStream& stream) {
    const v1::Hello hello = Greet(stream);
    EXPECT_GE(host_.aborts, 1) << "what ran is aborted before the next Hello";
    greeted.Push(hello.name() + " " + hello.incarnation());
    SendWelcome(stream);
    Drain(stream);
    return grpc::Status::OK;
  };
  Run({breaks, stays}, [&](Session& session) {
    EXPECT_EQ(*greeted.Pop(), "w first");
    EXPECT_EQ(*greeted.Pop(), "w first");
    session.Stop();
  }).IgnoreError();
}

TEST_F(SessionTest, WhatWasUnsentWhenTheStreamBrokeStaysUnsent) {
  BoundedQueue<int> second(8);
  auto breaks = [&](ServerStream& stream) {
    Greet(stream);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "going down");
  };
  auto stays = [&](ServerStream& stream) {
    Greet(stream);
    SendWelcome(stream);
    for (v1::WorkerMessage message; stream.Read(&message);) {
      EXPECT_FALSE(message.has_released());
      if (message.has_heartbeat()) second.TryPush(1);
    }
    return grpc::Status::OK;
  };
  v1::WorkerMessage stale;
  stale.mutable_released();
  outbox_.Send(stale);
  Run({breaks, stays}, [&](Session& session) {
    second.Pop();
    session.Stop();
  }).IgnoreError();
}

TEST_F(SessionTest, HeartbeatsGoOnAndCarryTheActivity) {
  BoundedQueue<v1::Phase> beats(64);
  auto script = [&](ServerStream& stream) {
    Greet(stream);
    SendWelcome(stream, /*heartbeat_millis=*/5);
    for (v1::WorkerMessage message; stream.Read(&message);) {
      if (message.has_heartbeat()) beats.TryPush(message.heartbeat().activity().phase());
    }
    return grpc::Status::OK;
  };
  Run({script}, [&](Session& session) {
    EXPECT_EQ(*beats.Pop(), v1::PHASE_IDLE);
    EXPECT_EQ(*beats.Pop(), v1::PHASE_IDLE);
    host_.phase = v1::PHASE_BACKWARD;
    while (*beats.Pop() != v1::PHASE_BACKWARD) {
    }
    session.Stop();
  }).IgnoreError();
}

TEST_F(SessionTest, AChangeOfPhaseIsToldLongBeforeTheNextHeartbeat) {
  BoundedQueue<v1::Phase> beats(64);
  auto script = [&](ServerStream& stream) {
    Greet(stream);
    SendWelcome(stream, /*heartbeat_millis=*/3600 * 1000);
    for (v1::WorkerMessage message; stream.Read(&message);) {
      if (message.has_heartbeat()) beats.TryPush(message.heartbeat().activity().phase());
    }
    return grpc::Status::OK;
  };
  Run({script}, [&](Session& session) {
    EXPECT_EQ(*beats.Pop(), v1::PHASE_IDLE);
    host_.phase = v1::PHASE_OPTIMIZER;
    outbox_.ActivityChanged();
    EXPECT_EQ(*beats.Pop(), v1::PHASE_OPTIMIZER);
    session.Stop();
  }).IgnoreError();
}

TEST_F(SessionTest, HeartbeatsTellOfTheMachineAndOfTheOrchestratorsClock) {
  constexpr int64_t kAhead = 5'000'000'000'000;
  ClockOffset clock;
  SessionOptions options = Options();
  options.clock = &clock;
  options.device_use = [] {
    v1::DeviceUse use;
    use.set_process_bytes(42);
    return use;
  };
  BoundedQueue<int64_t> used(64);
  auto script = [&](ServerStream& stream) {
    Greet(stream);
    SendWelcome(stream);
    for (v1::WorkerMessage message; stream.Read(&message);) {
      if (!message.has_heartbeat()) continue;
      v1::OrchestratorMessage alive;
      alive.mutable_alive()->set_sent_nanos(message.heartbeat().sent_nanos());
      alive.mutable_alive()->set_answered_nanos(SteadyNanos() + kAhead);
      stream.Write(alive);
      used.Push(message.heartbeat().use().process_bytes());
    }
    return grpc::Status::OK;
  };
  Run(
      {script},
      [&](Session& session) {
        do EXPECT_EQ(*used.Pop(), 42);
        while (clock.OnOrchestrator(1) == 0);
        const int64_t before = SteadyNanos();
        const int64_t there = clock.OnOrchestrator(before);
        EXPECT_NEAR(static_cast<double>(there - before), kAhead, 1e9);
        session.Stop();
      },
      options)
      .IgnoreError();
}

TEST_F(SessionTest, AnOrchestratorThatHangsIsLostAfterTheLease) {
  BoundedQueue<int> sessions(8);
  auto hangs = [&](ServerStream& stream) {
    Greet(stream);
    SendWelcome(stream, /*heartbeat_millis=*/5, /*lease_millis=*/50);
    v1::OrchestratorMessage alive;
    alive.mutable_alive();
    stream.Write(alive);
    sessions.Push(1);
    Drain(stream);  // Reads, and never says a word again.
    return grpc::Status::OK;
  };
  auto second = [&](ServerStream& stream) {
    Greet(stream);
    sessions.Push(2);
    Drain(stream);
    return grpc::Status::OK;
  };
  Run({hangs, second}, [&](Session& session) {
    EXPECT_EQ(*sessions.Pop(), 1);
    EXPECT_EQ(*sessions.Pop(), 2);
    EXPECT_EQ(host_.aborts, 1);
    session.Stop();
  }).IgnoreError();
}

TEST_F(SessionTest, ARefusalThatLastsIsReturned) {
  SessionOptions options = Options();
  options.refusal_patience = absl::Milliseconds(30);
  const absl::Status ended = Run({}, [](Session&) {}, options);
  EXPECT_EQ(ended.code(), absl::StatusCode::kAlreadyExists) << ended;
}

TEST_F(SessionTest, AHelloThatIsWrongIsNotSaidAgain) {
  const auto refuse = [](ServerStream&) { return grpc::Status(grpc::INVALID_ARGUMENT, "hello.name: must be a name"); };
  const absl::Status ended = Run({refuse}, [](Session&) {}, Options());
  EXPECT_EQ(ended.code(), absl::StatusCode::kInvalidArgument) << ended;
}

TEST_F(SessionTest, AFirstMessageThatIsNoWelcomeEndsTheSession) {
  BoundedQueue<int> again(8);
  auto rude = [](ServerStream& stream) {
    Greet(stream);
    v1::OrchestratorMessage grant;
    grant.mutable_grant();
    stream.Write(grant);
    Drain(stream);
    return grpc::Status::OK;
  };
  auto polite = [&](ServerStream& stream) {
    Greet(stream);
    again.Push(1);
    Drain(stream);
    return grpc::Status::OK;
  };
  Run({rude, polite}, [&](Session& session) {
    again.Pop();
    session.Stop();
  }).IgnoreError();
}

TEST_F(SessionTest, LeavesWhenTheOrchestratorLetsIt) {
  BoundedQueue<int> welcomed(1);
  auto script = [&](ServerStream& stream) {
    Greet(stream);
    SendWelcome(stream);
    for (v1::WorkerMessage message; stream.Read(&message);) {
      if (message.has_heartbeat()) welcomed.TryPush(1);
      if (!message.has_leaving()) continue;
      EXPECT_EQ(message.leaving().reason(), "SIGTERM");
      v1::OrchestratorMessage granted;
      granted.mutable_leave_granted();
      stream.Write(granted);
    }
    return grpc::Status::OK;
  };
  const absl::Status ended = Run({script}, [&](Session& session) {
    welcomed.Pop();
    session.Leave("SIGTERM", absl::Seconds(30));
  });
  EXPECT_TRUE(ended.ok()) << ended;
}

TEST_F(SessionTest, AnswersInspections) {
  BoundedQueue<int64_t> answered(1);
  auto script = [&](ServerStream& stream) {
    Greet(stream);
    SendWelcome(stream);
    v1::OrchestratorMessage message;
    message.mutable_inspect()->set_id(42);
    stream.Write(message);
    for (v1::WorkerMessage answer; stream.Read(&answer);) {
      if (answer.has_inspected()) answered.Push(answer.inspected().id());
    }
    return grpc::Status::OK;
  };
  Run({script}, [&](Session& session) {
    EXPECT_EQ(*answered.Pop(), 42);
    session.Stop();
  }).IgnoreError();
}

TEST(Inspector, ADeviceThatCannotBeSetUpIsTheAnswer) {
  RecordingSink sink;
  Inspector inspector([] { return absl::InternalError("no such device"); },
                      [](const v1::Inspect&) { return v1::Inspected(); }, sink);
  v1::Inspect request;
  request.set_id(7);
  inspector.Enqueue(request);
  ASSERT_TRUE(sink.WaitFor([](const v1::WorkerMessage& m) { return m.inspected().id() == 7; }));
  EXPECT_EQ(sink.messages().back().inspected().status().message(), "no such device");
}

TEST(Inspector, MoreThanItCanQueueIsRefusedForNow) {
  RecordingSink sink;
  absl::Notification go;
  Inspector inspector(
      [&] {
        go.WaitForNotification();
        return absl::OkStatus();
      },
      [](const v1::Inspect&) { return v1::Inspected(); }, sink);
  v1::Inspect request;
  for (int i = 0; i < 17; ++i) inspector.Enqueue(request);
  ASSERT_EQ(sink.messages().size(), 1u);
  EXPECT_EQ(sink.messages()[0].inspected().status().code(), static_cast<int>(absl::StatusCode::kUnavailable));
  go.Notify();
}

TEST_F(SessionTest, StopEndsTheWaitForAnOrchestratorThatIsNotThere) {
  auto stub = v1::WorkerSessionService::NewStub(grpc::CreateChannel("127.0.0.1:1", grpc::InsecureChannelCredentials()));
  SessionOptions options = Options();
  options.first_backoff = options.max_backoff = absl::Hours(1);
  Session session(options, *stub, host_, inspector_, surveyor_, outbox_);
  std::thread thread([&] { EXPECT_TRUE(session.Run().ok()); });
  session.Leave("SIGTERM", absl::Seconds(30));
  thread.join();
}

}  // namespace
}  // namespace gpipe::worker
