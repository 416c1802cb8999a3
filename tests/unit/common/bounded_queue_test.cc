#include "common/bounded_queue.h"

#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace gpipe {
namespace {

TEST(BoundedQueueTest, KeepsOrderAndBound) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.TryPush(2));
  EXPECT_FALSE(queue.TryPush(3));
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_TRUE(queue.TryPush(3));
  EXPECT_EQ(queue.Pop(), 2);
  EXPECT_EQ(queue.Pop(), 3);
}

TEST(BoundedQueueTest, ClosedRefusesAndHandsOutTheRest) {
  BoundedQueue<std::unique_ptr<int>> queue(4);
  ASSERT_TRUE(queue.Push(std::make_unique<int>(7)));
  queue.Close();
  EXPECT_FALSE(queue.Push(std::make_unique<int>(8)));
  EXPECT_FALSE(queue.TryPush(std::make_unique<int>(8)));
  const auto item = queue.Pop();
  ASSERT_TRUE(item.has_value());
  EXPECT_EQ(**item, 7);
  EXPECT_EQ(queue.Pop(), std::nullopt);
}

TEST(BoundedQueueTest, CloseWakesAWaitingPop) {
  BoundedQueue<int> queue(1);
  std::optional<int> popped = 1;
  std::jthread waiter([&] { popped = queue.Pop(); });
  queue.Close();
  waiter.join();
  EXPECT_EQ(popped, std::nullopt);
}

TEST(BoundedQueueTest, CloseWakesAWaitingPush) {
  BoundedQueue<int> queue(1);
  ASSERT_TRUE(queue.Push(1));
  bool pushed = true;
  std::jthread waiter([&] { pushed = queue.Push(2); });
  queue.Close();
  waiter.join();
  EXPECT_FALSE(pushed);
}

TEST(BoundedQueueTest, ManyThreadsLoseAndRepeatNothing) {
  constexpr int kThreads = 4, kEach = 2000;
  BoundedQueue<int> queue(3);
  std::vector<std::vector<int>> taken(kThreads);
  {
    std::vector<std::jthread> consumers;
    for (int t = 0; t < kThreads; ++t) {
      consumers.emplace_back([&, t] {
        while (const auto item = queue.Pop()) taken[t].push_back(*item);
      });
    }
    {
      std::vector<std::jthread> producers;
      for (int t = 0; t < kThreads; ++t) {
        producers.emplace_back([&, t] {
          for (int i = 0; i < kEach; ++i) EXPECT_TRUE(queue.Push(t * kEach + i));
        });
      }
    }
    queue.Close();
  }
  std::vector<int> count(kThreads * kEach);
  for (const auto& items : taken) {
    for (const int item : items) ++count[item];
  }
  for (const int times : count) EXPECT_EQ(times, 1);
}

}  // namespace
}  // namespace gpipe
