#include "orchestrator/cluster/session_channel.h"

#include <optional>
#include <vector>

#include "gtest/gtest.h"

namespace gpipe::orchestrator {
namespace {

v1::OrchestratorMessage Numbered(int64_t number) {
  v1::OrchestratorMessage message;
  message.mutable_alive()->set_sent_nanos(number);
  return message;
}

// A call that may answer before what was asked of it returns, as gRPC is free to: a lock of the channel that were held
// then would hang the test.
class FakeCall final : public SessionCall {
 public:
  void Read(v1::WorkerMessage*) override { ++reads; }
  void Write(const v1::OrchestratorMessage* message) override {
    written.push_back(message->alive().sent_nanos());
    if (writes_at_once) channel->OnWriteDone(true);
  }
  void Cancel() override {
    ++cancels;
    if (!written.empty() && !writes_at_once) channel->OnWriteDone(false);
    finished_while_asked = finished.has_value();
  }
  void Finish(const absl::Status& status) override {
    EXPECT_FALSE(finished.has_value());
    finished = status;
  }

  SessionChannel* channel = nullptr;
  bool writes_at_once = false;
  std::vector<int64_t> written;
  int reads = 0, cancels = 0;
  bool finished_while_asked = false;
  std::optional<absl::Status> finished;
};

class SessionChannelTest : public testing::Test {
 protected:
  SessionChannelTest() { call_.channel = &channel_; }

  WorkerFiles files_;
  FakeCall call_;
  SessionChannel channel_{&call_, &files_, 1};
};

TEST_F(SessionChannelTest, WritesOneAfterTheOtherAndThenFinishes) {
  channel_.Send(Numbered(1));
  channel_.Send(Numbered(2));
  channel_.Close(absl::NotFoundError("why"));
  channel_.Send(Numbered(3));
  EXPECT_EQ(call_.written, (std::vector<int64_t>{1}));
  channel_.OnWriteDone(true);
  EXPECT_FALSE(call_.finished.has_value());
  channel_.OnWriteDone(true);
  EXPECT_EQ(call_.written, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(call_.finished, absl::NotFoundError("why"));
  v1::WorkerMessage message;
  channel_.Read(&message);
  EXPECT_EQ(call_.reads, 0);
}

TEST_F(SessionChannelTest, AWriteMayBeDoneBeforeItReturns) {
  call_.writes_at_once = true;
  channel_.Send(Numbered(1));
  channel_.Send(Numbered(2));
  EXPECT_EQ(call_.written, (std::vector<int64_t>{1, 2}));
  channel_.Close(absl::OkStatus());
  EXPECT_EQ(call_.finished, absl::OkStatus());
}

TEST_F(SessionChannelTest, ACancellationMayCallBackAndIsOverBeforeTheCallIs) {
  channel_.Send(Numbered(1));
  channel_.Send(Numbered(2));
  channel_.Cancel(absl::AbortedError("first"));
  EXPECT_EQ(call_.cancels, 1);
  EXPECT_FALSE(call_.finished_while_asked);
  EXPECT_EQ(call_.written, (std::vector<int64_t>{1}));
  EXPECT_EQ(call_.finished, absl::AbortedError("first"));
  channel_.Cancel(absl::InternalError("second"));
  EXPECT_EQ(call_.cancels, 1);
}

TEST_F(SessionChannelTest, AWorkerThatDoesNotReadIsCancelled) {
  for (size_t i = 0; i < SessionChannel::kMaxOutgoing; ++i) channel_.Send(Numbered(1));
  EXPECT_EQ(call_.cancels, 0);
  channel_.Send(Numbered(2));
  EXPECT_EQ(call_.cancels, 1);
  ASSERT_TRUE(call_.finished.has_value());
  EXPECT_TRUE(absl::IsResourceExhausted(*call_.finished)) << *call_.finished;
}

}  // namespace
}  // namespace gpipe::orchestrator
