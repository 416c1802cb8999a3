#include "orchestrator/web/update_events.h"

#include <string>
#include <thread>
#include <vector>

#include "gpipe/v1/monitoring.pb.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "gtest/gtest.h"

namespace gpipe::orchestrator {
namespace {

const google::protobuf::Descriptor& JobUpdateType() { return *v1::WatchJobResponse::descriptor(); }

std::string Update(int64_t step) {
  v1::WatchJobResponse update;
  update.mutable_step()->set_step(step);
  update.set_resume_token("t" + std::to_string(step));
  return update.SerializeAsString();
}

TEST(UpdateEventsTest, TheTokenIsTheIdAndTheRestIsTheData) {
  UpdateEvents events;
  EXPECT_EQ(*events.Of(JobUpdateType(), Update(1)), "id: t1\ndata: {\"step\":{\"step\":\"1\"}}\n\n");
  EXPECT_EQ(*events.Of(JobUpdateType(), ""), "data: {}\n\n");
  EXPECT_EQ(events.Of(JobUpdateType(), "\xff"), nullptr);
}

TEST(UpdateEventsTest, WhoAskAtTheSameTimeShareOne) {
  UpdateEvents events;
  constexpr int kWatchers = 8, kUpdates = 200;
  std::vector<std::vector<UpdateEvents::Event>> got(kWatchers);
  {
    std::vector<std::jthread> watchers;
    for (auto& mine : got) {
      watchers.emplace_back([&events, &mine] {
        for (int step = 0; step < kUpdates; ++step) mine.push_back(events.Of(JobUpdateType(), Update(step)));
      });
    }
  }
  EXPECT_EQ(events.made(), kUpdates);
  for (const auto& mine : got) EXPECT_EQ(mine, got[0]);
}

TEST(UpdateEventsTest, TheSameBytesOfAnotherTypeAreAnotherUpdate) {
  UpdateEvents events;
  events.Of(JobUpdateType(), "");
  events.Of(*v1::WatchClusterResponse::descriptor(), "");
  EXPECT_EQ(events.made(), 2);
}

TEST(UpdateEventsTest, OnlyTheNewestAreKept) {
  UpdateEvents events;
  for (size_t step = 0; step <= UpdateEvents::kMost; ++step)
    events.Of(JobUpdateType(), Update(static_cast<int64_t>(step)));
  const int64_t made = events.made();
  events.Of(JobUpdateType(), Update(UpdateEvents::kMost));
  events.Of(JobUpdateType(), Update(1));
  EXPECT_EQ(events.made(), made);
  events.Of(JobUpdateType(), Update(0));
  EXPECT_EQ(events.made(), made + 1);
}

TEST(UpdateEventsTest, LargeOnesPushOthersOut) {
  UpdateEvents events;
  events.Of(JobUpdateType(), Update(1));
  v1::WatchJobResponse large;
  large.mutable_job()->set_reason(std::string(UpdateEvents::kMostBytes, 'x'));
  const UpdateEvents::Event event = events.Of(JobUpdateType(), large.SerializeAsString());
  EXPECT_GT(event->size(), UpdateEvents::kMostBytes);
  events.Of(JobUpdateType(), large.SerializeAsString());
  events.Of(JobUpdateType(), Update(1));
  EXPECT_EQ(events.made(), 4);
}

}  // namespace
}  // namespace gpipe::orchestrator
