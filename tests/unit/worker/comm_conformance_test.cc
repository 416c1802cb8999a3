// What every Communicator promises, checked over every implementation (comm_harness.h).

#include <ATen/ATen.h>
#include <c10/cuda/CUDAStream.h>

#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/unit/worker/comm_harness.h"
#include "worker/comm/meeting.h"

namespace gpipe::worker {
namespace {

// The promise is a second; a loaded machine that runs the tests gets more.
constexpr absl::Duration kPromptly = absl::Seconds(5);

const Channel kForward{"edge0.forward", 0, 1};
const Channel kBackward{"edge0.backward", 1, 0};
const Channel kSkip{"edge1.forward", 0, 1};

at::Tensor Filled(const RankContext& rank, int64_t elements, double value, at::ScalarType dtype = at::kFloat) {
  return at::full({elements}, value, at::TensorOptions().dtype(dtype).device(rank.device));
}

bool AllEqual(const at::Tensor& tensor, double value) {
  const at::Tensor host = tensor.cpu();
  return host.equal(at::full_like(host, value));
}

// Waits until the transfer is really over, also where Wait only orders streams.
absl::Status Finish(const RankContext& rank, Work& work) {
  const absl::Status status = work.Wait();
  if (!status.ok() || !rank.device.is_cuda()) return status;
  c10::cuda::getCurrentCUDAStream().synchronize();
  return work.Wait();
}

absl::Status SendAll(RankContext& rank, int channel, const at::Tensor& tensor) {
  auto work = rank.comm->Send(channel, tensor);
  return work.ok() ? Finish(rank, **work) : work.status();
}

absl::Status ReceiveAll(RankContext& rank, int channel, const at::Tensor& tensor) {
  auto work = rank.comm->Receive(channel, tensor);
  return work.ok() ? Finish(rank, **work) : work.status();
}

class CommConformanceTest : public testing::TestWithParam<HarnessCase> {
 protected:
  void SetUp() override { harness_ = GetParam().make(); }

  std::unique_ptr<CommHarness> harness_;
};

// Says what is not covered, so that a green run on a machine without a GPU is not mistaken for more.
class NcclNotice : public testing::Environment {
 public:
  void SetUp() override {
    if (at::hasCUDA() || IsRankProcess()) return;
    std::cout << "no CUDA device: the suite does not run over NCCL here" << std::endl;
  }
};
const testing::Environment* const kNotice = testing::AddGlobalTestEnvironment(new NcclNotice);

TEST_P(CommConformanceTest, KnowsRankAndSize) {
  harness_->Run(3, {kForward}, [](RankContext& rank) {
    EXPECT_EQ(rank.rank, rank.comm->rank());
    EXPECT_EQ(3, rank.comm->size());
  });
}

TEST_P(CommConformanceTest, KeepsTheOrderOfAChannel) {
  constexpr int kCount = 64;
  constexpr int kWindow = 8;
  harness_->Run(2, {kForward}, [](RankContext& rank) {
    std::vector<at::Tensor> tensors;
    std::vector<std::unique_ptr<Work>> works;
    for (int i = 0; i < kCount + kWindow; ++i) {
      if (i < kCount) {
        tensors.push_back(Filled(rank, 1000, rank.rank == 0 ? i : -1));
        auto work = rank.rank == 0 ? rank.comm->Send(0, tensors[i]) : rank.comm->Receive(0, tensors[i]);
        ASSERT_TRUE(work.ok()) << work.status();
        works.push_back(*std::move(work));
      }
      if (i < kWindow) continue;
      EXPECT_TRUE(works[i - kWindow]->Wait().ok());
      EXPECT_TRUE(AllEqual(tensors[i - kWindow], i - kWindow)) << i - kWindow;
    }
  });
}

TEST_P(CommConformanceTest, ChannelsDoNotWaitForEachOther) {
  harness_->Run(2, {kForward, kSkip, kBackward}, [](RankContext& rank) {
    std::vector<at::Tensor> tensors;
    for (int channel = 0; channel < 3; ++channel) {
      const bool sends = (channel == 2) == (rank.rank == 1);
      tensors.push_back(Filled(rank, 5000, sends ? channel : -1));
    }
    // Worker 0 sends 1 before 0, worker 1 asks for 0 before 1; the other direction goes on beside them.
    const std::vector<int> order = rank.rank == 0 ? std::vector<int>{2, 1, 0} : std::vector<int>{0, 2, 1};
    std::vector<std::unique_ptr<Work>> works;
    for (int channel : order) {
      const bool sends = (channel == 2) == (rank.rank == 1);
      auto work = sends ? rank.comm->Send(channel, tensors[channel]) : rank.comm->Receive(channel, tensors[channel]);
      ASSERT_TRUE(work.ok()) << work.status();
      works.push_back(*std::move(work));
    }
    for (auto& work : works) EXPECT_TRUE(work->Wait().ok());
    for (int channel = 0; channel < 3; ++channel) EXPECT_TRUE(AllEqual(tensors[channel], channel)) << channel;
  });
}

TEST_P(CommConformanceTest, SeveralTensorsAreOneTransfer) {
  harness_->Run(2, {kForward}, [](RankContext& rank) {
    const bool sends = rank.rank == 0;
    for (int round = 0; round < 3; ++round) {
      std::vector<at::Tensor> tensors;
      for (const int64_t elements : {7, 0, 1 << 20, 1}) tensors.push_back(Filled(rank, elements, sends ? round : -1));
      tensors.push_back(Filled(rank, 5, sends ? round : -1, at::kLong));
      auto several = sends ? rank.comm->Send(0, tensors) : rank.comm->Receive(0, tensors);
      ASSERT_TRUE(several.ok()) << several.status();
      const at::Tensor next = Filled(rank, 3, sends ? 10 : -1);
      auto one = sends ? rank.comm->Send(0, next) : rank.comm->Receive(0, next);
      ASSERT_TRUE(one.ok()) << one.status();
      EXPECT_TRUE((*several)->Wait().ok());
      for (const at::Tensor& tensor : tensors) EXPECT_TRUE(AllEqual(tensor, round)) << tensor.sizes();
      EXPECT_TRUE((*one)->Wait().ok());
      EXPECT_TRUE(AllEqual(next, 10));
    }
    const std::vector<at::Tensor> scattered = {Filled(rank, 4, 0), Filled(rank, 4, 0).reshape({2, 2}).t()};
    const auto refused = sends ? rank.comm->Send(0, scattered) : rank.comm->Receive(0, scattered);
    EXPECT_EQ(absl::StatusCode::kInvalidArgument, refused.status().code());
  });
}

TEST_P(CommConformanceTest, MovesEverySize) {
  harness_->Run(2, {kForward}, [](RankContext& rank) {
    for (int64_t elements : {0, 1, 7, 1000, 1 << 20, 1 << 24}) {
      const at::Tensor tensor = Filled(rank, elements, rank.rank == 0 ? 3 : -1);
      const absl::Status status = rank.rank == 0 ? SendAll(rank, 0, tensor) : ReceiveAll(rank, 0, tensor);
      EXPECT_TRUE(status.ok()) << elements << ": " << status;
      EXPECT_TRUE(AllEqual(tensor, 3)) << elements;
    }
  });
}

TEST_P(CommConformanceTest, MovesEveryType) {
  harness_->Run(2, {kForward}, [](RankContext& rank) {
    for (at::ScalarType dtype : {at::kFloat, at::kDouble, at::kLong, at::kInt, at::kBool, at::kBFloat16, at::kHalf}) {
      const at::Tensor tensor = Filled(rank, 333, rank.rank == 0 ? 1 : 0, dtype);
      const absl::Status status = rank.rank == 0 ? SendAll(rank, 0, tensor) : ReceiveAll(rank, 0, tensor);
      EXPECT_TRUE(status.ok()) << dtype << ": " << status;
      EXPECT_TRUE(AllEqual(tensor, 1)) << dtype;
    }
  });
}

TEST_P(CommConformanceTest, ADroppedWorkIsWaitedFor) {
  harness_->Run(2, {kForward}, [](RankContext& rank) {
    const at::Tensor tensor = Filled(rank, 100000, rank.rank == 0 ? 5 : -1);
    {
      auto work = rank.rank == 0 ? rank.comm->Send(0, tensor) : rank.comm->Receive(0, tensor);
      EXPECT_TRUE(work.ok()) << work.status();
    }
    EXPECT_TRUE(AllEqual(tensor, 5));
  });
}

TEST_P(CommConformanceTest, StartingNeverWaitsForThePeer) {
  constexpr int kCount = 100;
  harness_->Run(2, {kForward}, [](RankContext& rank) {
    if (rank.rank == 1) rank.Barrier("started");
    std::vector<at::Tensor> tensors;
    std::vector<std::unique_ptr<Work>> works;
    const absl::Time start = absl::Now();
    for (int i = 0; i < kCount; ++i) {
      tensors.push_back(Filled(rank, 1 << 14, rank.rank == 0 ? i : -1));
      auto work = rank.rank == 0 ? rank.comm->Send(0, tensors[i]) : rank.comm->Receive(0, tensors[i]);
      ASSERT_TRUE(work.ok()) << work.status();
      works.push_back(*std::move(work));
      if (!rank.device.is_cuda()) continue;
      EXPECT_TRUE(works[i]->Wait().ok());  // There it is the stream that waits.
    }
    if (rank.device.is_cuda()) {
      std::cout << "worker " << rank.rank << ", host time of a transfer: " << (absl::Now() - start) / kCount
                << std::endl;
    }
    if (rank.rank == 0) rank.Barrier("started");
    for (int i = 0; i < kCount; ++i) {
      EXPECT_TRUE(works[i]->Wait().ok());
      EXPECT_TRUE(AllEqual(tensors[i], i)) << i;
    }
  });
}

TEST_P(CommConformanceTest, RefusesWrongUse) {
  harness_->Run(2, {kForward}, [](RankContext& rank) {
    const at::Tensor tensor = Filled(rank, 4, 0);
    auto& comm = *rank.comm;
    const auto wrong_end = rank.rank == 0 ? comm.Receive(0, tensor) : comm.Send(0, tensor);
    EXPECT_EQ(absl::StatusCode::kInvalidArgument, wrong_end.status().code());
    EXPECT_EQ(absl::StatusCode::kInvalidArgument, comm.Send(1, tensor).status().code());
    EXPECT_EQ(absl::StatusCode::kInvalidArgument, comm.Receive(-1, tensor).status().code());
    const at::Tensor transposed = Filled(rank, 6, 0).view({2, 3}).t();
    const auto scattered = rank.rank == 0 ? comm.Send(0, transposed) : comm.Receive(0, transposed);
    EXPECT_EQ(absl::StatusCode::kInvalidArgument, scattered.status().code());
  });
}

TEST_P(CommConformanceTest, SumsInRankOrder) {
  harness_->Run(4, {}, [](RankContext& rank) {
    // Every rank knows all parts, so each can form the sum itself; float32 keeps 1 out of 1e8 only in this order.
    std::vector<at::Tensor> parts;
    for (int other = 0; other < 4; ++other) {
      const std::vector<double> lead = {1e8, 1, -1e8, 1};
      parts.push_back(at::cat({at::full({1}, lead[other]), at::sin(at::arange(5000) * (other + 1.7)) * 1e4}));
    }
    at::Tensor expected = parts[0].clone();
    for (int other = 1; other < 4; ++other) expected.add_(parts[other]);
    const at::Tensor tensor = parts[rank.rank].to(rank.device).clone();
    const absl::Status status = rank.comm->AllReduceSum(tensor);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_TRUE(tensor.cpu().equal(expected));
    EXPECT_EQ(1, tensor[0].item<float>());
  });
}

TEST_P(CommConformanceTest, SumsAgainAndAgain) {
  harness_->Run(3, {}, [](RankContext& rank) {
    for (int i = 0; i < 20; ++i) {
      const at::Tensor tensor = Filled(rank, 10, rank.rank + i, at::kLong);
      EXPECT_TRUE(rank.comm->AllReduceSum(tensor).ok());
      EXPECT_TRUE(AllEqual(tensor, 3 + 3 * i)) << i;
    }
  });
}

TEST_P(CommConformanceTest, BroadcastsFromEveryRoot) {
  harness_->Run(4, {}, [](RankContext& rank) {
    for (int root = 0; root < 4; ++root) {
      const at::Tensor tensor = Filled(rank, 1000, rank.rank == root ? 10 + root : -1);
      EXPECT_TRUE(rank.comm->Broadcast(tensor, root).ok());
      EXPECT_TRUE(AllEqual(tensor, 10 + root)) << root;
    }
  });
}

TEST_P(CommConformanceTest, AbortWakesABlockedReceiver) {
  harness_->Run(2, {kForward}, [](RankContext& rank) {
    if (rank.rank == 1) {
      const at::Tensor tensor = Filled(rank, 1000, -1);
      auto work = rank.comm->Receive(0, tensor);
      ASSERT_TRUE(work.ok()) << work.status();
      absl::Notification waiting;
      std::thread aborter([&] {
        waiting.WaitForNotification();
        rank.comm->Abort(absl::CancelledError("the user cancelled"));
      });
      const absl::Time start = absl::Now();
      waiting.Notify();
      const absl::Status status = Finish(rank, **work);
      EXPECT_EQ(absl::CancelledError("the user cancelled"), status);
      EXPECT_LT(absl::Now() - start, kPromptly);
      aborter.join();
    }
    rank.Barrier("over");
  });
}

TEST_P(CommConformanceTest, AbortWakesABlockedCollective) {
  harness_->Run(3, {}, [](RankContext& rank) {
    if (rank.rank != 2) {  // Worker 2 never comes.
      std::thread aborter([&] { rank.comm->Abort(absl::CancelledError("the user cancelled")); });
      const at::Tensor tensor = Filled(rank, 1000, 1);
      absl::Status status = rank.comm->AllReduceSum(tensor);
      if (rank.device.is_cuda()) {
        c10::cuda::getCurrentCUDAStream().synchronize();
        aborter.join();
        status = rank.comm->AllReduceSum(tensor);
      } else {
        aborter.join();
      }
      EXPECT_FALSE(status.ok());
      EXPECT_EQ(absl::CancelledError("the user cancelled"), rank.comm->AllReduceSum(tensor));
    }
    rank.Barrier("over");
  });
}

TEST_P(CommConformanceTest, EveryCallAfterAnAbortFailsWithItsStatus) {
  harness_->Run(2, {kForward, kBackward}, [](RankContext& rank) {
    const absl::Status reason = absl::UnavailableError("worker 7 is lost");
    rank.comm->Abort(reason);
    rank.comm->Abort(absl::InternalError("a second reason"));
    const at::Tensor tensor = Filled(rank, 10, 1);
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(reason, rank.comm->Send(rank.rank, tensor).status());
      EXPECT_EQ(reason, rank.comm->Receive(1 - rank.rank, tensor).status());
      EXPECT_EQ(reason, rank.comm->AllReduceSum(tensor));
      EXPECT_EQ(reason, rank.comm->Broadcast(tensor, 0));
    }
    rank.Barrier("over");
  });
}

TEST_P(CommConformanceTest, AReceiverOfAVanishedPeerFails) {
  harness_->Run(
      2, {kForward, kBackward},
      [](RankContext& rank) {
        if (rank.rank == 1) {
          rank.Barrier("vanishing");
          return rank.Vanish();
        }
        const at::Tensor tensor = Filled(rank, 1000, -1);
        auto work = rank.comm->Receive(1, tensor);
        ASSERT_TRUE(work.ok()) << work.status();
        rank.Barrier("vanishing");
        const absl::Time start = absl::Now();
        EXPECT_EQ(absl::StatusCode::kUnavailable, Finish(rank, **work).code());
        EXPECT_LT(absl::Now() - start, kPromptly);
        EXPECT_EQ(absl::StatusCode::kUnavailable, rank.comm->Send(0, tensor).status().code());
      },
      1);
}

// Amid a transfer that is too large for the buffers on the way.
TEST_P(CommConformanceTest, ASenderToAVanishedPeerFails) {
  harness_->Run(
      2, {kForward},
      [](RankContext& rank) {
        const at::Tensor tensor = Filled(rank, 1 << 26, 1);
        if (rank.rank == 1) {
          auto work = rank.is_process ? rank.comm->Receive(0, tensor) : absl::CancelledError("not asked for");
          rank.Barrier("vanishing");
          return rank.Vanish();
        }
        rank.Barrier("vanishing");
        const absl::Time start = absl::Now();
        const absl::Status status = SendAll(rank, 0, tensor);
        EXPECT_EQ(absl::StatusCode::kUnavailable, status.code()) << status;
        EXPECT_LT(absl::Now() - start, kPromptly);
      },
      1);
}

// The sender dies when half of a message is there.
TEST_P(CommConformanceTest, AReceiverOfHalfAMessageFails) {
  harness_->Run(
      2, {kForward},
      [](RankContext& rank) {
        const at::Tensor tensor = Filled(rank, 1 << 26, 1);
        if (rank.rank == 0) {
          auto work = rank.is_process ? rank.comm->Send(0, tensor) : absl::CancelledError("not sent");
          ASSERT_TRUE(rank.side->Get("asked", absl::Seconds(60)).ok());
          return rank.Vanish();
        }
        auto work = rank.comm->Receive(0, tensor);
        ASSERT_TRUE(work.ok()) << work.status();
        ASSERT_TRUE(rank.side->Put("asked", "").ok());
        const absl::Time start = absl::Now();
        const absl::Status status = Finish(rank, **work);
        EXPECT_EQ(absl::StatusCode::kUnavailable, status.code()) << status;
        EXPECT_LT(absl::Now() - start, kPromptly);
      },
      0);
}

TEST_P(CommConformanceTest, WhatWasSentArrivesAfterThePeerLeft) {
  harness_->Run(2, {kForward}, [](RankContext& rank) {
    const at::Tensor tensor = Filled(rank, 100000, rank.rank == 0 ? 4 : -1);
    if (rank.rank == 0) {
      EXPECT_TRUE(SendAll(rank, 0, tensor).ok());
      rank.comm.reset();
      return rank.Barrier("left");
    }
    auto work = rank.comm->Receive(0, tensor);
    ASSERT_TRUE(work.ok()) << work.status();
    rank.Barrier("left");
    EXPECT_TRUE((*work)->Wait().ok());
    EXPECT_TRUE(AllEqual(tensor, 4));
  });
}

// Garbage must never be taken for what was sent: either it is there, or the communicator says that it has ended.
TEST_P(CommConformanceTest, WhatAPeerSentLastIsThereOrTheCommunicatorHasEnded) {
  harness_->Run(
      2, {kForward},
      [](RankContext& rank) {
        const at::Tensor tensor = Filled(rank, 1 << 24, rank.rank == 0 ? 4 : -1);
        if (rank.rank == 0) {
          auto work = rank.is_process ? rank.comm->Send(0, tensor) : absl::CancelledError("not sent");
          if (work.ok()) (*work)->Wait().IgnoreError();
          rank.Barrier("vanishing");
          return rank.Vanish();
        }
        auto work = rank.comm->Receive(0, tensor);
        ASSERT_TRUE(work.ok()) << work.status();
        rank.Barrier("vanishing");
        const absl::Time start = absl::Now();
        absl::Status status = Finish(rank, **work);
        status.Update(rank.comm->status());
        EXPECT_TRUE(!status.ok() || AllEqual(tensor, 4));
        EXPECT_LT(absl::Now() - start, kPromptly);
      },
      0);
}

TEST_P(CommConformanceTest, AfterAMeetingAllHasArrivedAndAPeerMayGo) {
  harness_->Run(
      3, {kForward},
      [](RankContext& rank) {
        const at::Tensor tensor = Filled(rank, 1 << 24, rank.rank == 0 ? 4 : -1);
        if (rank.rank == 1) rank.Barrier("sent");
        std::unique_ptr<Work> work;
        if (rank.rank < 2) {
          auto started = rank.rank == 0 ? rank.comm->Send(0, tensor) : rank.comm->Receive(0, tensor);
          ASSERT_TRUE(started.ok()) << started.status();
          work = *std::move(started);
        }
        if (rank.rank != 1) rank.Barrier("sent");
        if (work != nullptr) {
          ASSERT_TRUE(work->Wait().ok());
        }
        const absl::Status met = Meet(*rank.comm, rank.device);
        if (rank.rank == 0) {
          EXPECT_TRUE(met.ok()) << met;
          work.reset();  // Before its communicator.
          return rank.Vanish();
        }
        // What the first of them said at the meeting may not have come any more; what it had sent before has.
        if (rank.rank == 1) {
          EXPECT_TRUE(AllEqual(tensor, 4));
        }
      },
      0);
}

TEST_P(CommConformanceTest, ItsStatusIsTheAborts) {
  harness_->Run(2, {kForward}, [](RankContext& rank) {
    EXPECT_TRUE(rank.comm->status().ok());
    rank.Barrier("looked");
    rank.comm->Abort(absl::CancelledError("the user cancelled"));
    EXPECT_EQ(absl::CancelledError("the user cancelled"), rank.comm->status());
    EXPECT_FALSE(Meet(*rank.comm, rank.device).ok());
    rank.Barrier("over");
  });
}

INSTANTIATE_TEST_SUITE_P(Over, CommConformanceTest, testing::ValuesIn(AllHarnesses()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace gpipe::worker
