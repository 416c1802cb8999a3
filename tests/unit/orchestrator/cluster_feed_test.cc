#include "orchestrator/scheduling/cluster_feed.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::SizeIs;
using testing::StartsWith;

// One watcher.
struct FeedReader {
  FeedReader(ClusterFeed& feed, const std::string& resume_token = "") : feed(feed) {
    EXPECT_TRUE(feed.Start(watcher, resume_token).ok());
  }
  // Asks for the next update; false when there is none yet, and one that comes later is read, too.
  bool ReadOne() {
    auto got = std::make_shared<bool>(false);
    feed.Next(watcher, [this, got](const ClusterUpdate& update, const absl::Status&) {
      if (update == nullptr) return;
      *got = true;
      token = update->resume_token();
      words.push_back(WordOf(*update));
    });
    return *got;
  }
  // All that there is now.
  std::vector<std::string> ReadAll() {
    words.clear();
    while (ReadOne()) {
    }
    return words;
  }
  // `w0`, a worker with its reason; `-w0`, gone; `!3`, dropped; `done`.
  static std::string WordOf(const v1::WatchClusterResponse& update) {
    if (update.has_worker()) return update.worker().name() + update.worker().reason();
    if (update.has_worker_gone()) return "-" + update.worker_gone();
    return update.has_dropped() ? "!" + std::to_string(update.dropped()) : "done";
  }

  ClusterFeed& feed;
  const std::shared_ptr<ClusterFeed::Watcher> watcher = std::make_shared<ClusterFeed::Watcher>();
  std::vector<std::string> words;
  std::string token;
};

class ClusterFeedTest : public testing::Test {
 protected:
  void Set(const std::string& name, const std::string& reason = "") {
    v1::WatchClusterResponse update;
    update.mutable_worker()->set_name(name);
    update.mutable_worker()->set_reason(reason);
    feed_.Publish(name, update, false);
  }
  void Remove(const std::string& name) {
    v1::WatchClusterResponse update;
    update.set_worker_gone(name);
    feed_.Publish(name, update, true);
  }
  ClusterFeed feed_;
};

TEST_F(ClusterFeedTest, BeginsWithAllThatIsThere) {
  Set("a");
  Set("b");
  Remove("b");
  Set("a", "1");
  FeedReader reader(feed_);
  EXPECT_THAT(reader.ReadAll(), ElementsAre("a1", "done"));
  Set("c");
  EXPECT_THAT(reader.words, ElementsAre("a1", "done", "c")) << "it waits for it";
}

TEST_F(ClusterFeedTest, ASlowWatcherMissesWhatIsReplacedAndIsTold) {
  Set("a");
  Set("b");
  FeedReader reader(feed_);
  for (int i = 0; i < 3; ++i) reader.ReadOne();
  for (int i = 1; i <= 5; ++i) Set("a", std::to_string(i));
  Remove("b");
  for (int i = 0; i < 3; ++i) reader.ReadOne();
  EXPECT_THAT(reader.words, ElementsAre("a", "b", "done", "!4", "a5", "-b"));
}

TEST_F(ClusterFeedTest, AWatcherComesBackWithItsToken) {
  Set("a");
  FeedReader reader(feed_);
  reader.ReadAll();
  feed_.End(reader.watcher, absl::CancelledError("gone"));
  Set("b");
  Set("a", "1");
  FeedReader back(feed_, reader.token);
  EXPECT_THAT(back.ReadAll(), ElementsAre("b", "a1", "done"));
  FeedReader stranger(feed_, "ffffffffffff-1");
  EXPECT_THAT(stranger.ReadAll(), ElementsAre("b", "a1", "done"));
}

TEST_F(ClusterFeedTest, WhoWasAwayTooLongGetsEverythingAgain) {
  Set("a");
  Set("b");
  FeedReader reader(feed_);
  reader.ReadAll();
  feed_.End(reader.watcher, absl::CancelledError("gone"));
  Remove("b");
  for (size_t i = 0; i < ClusterFeed::kMaxOver; ++i) Remove("x" + std::to_string(i));
  FeedReader back(feed_, reader.token);
  const std::vector<std::string> words = back.ReadAll();
  ASSERT_THAT(words, SizeIs(3));
  EXPECT_THAT(words[0], StartsWith("!"));
  EXPECT_EQ(words[1], "a");
  EXPECT_EQ(words[2], "done");
}

TEST_F(ClusterFeedTest, ClosingEndsAllWatches) {
  FeedReader reader(feed_);
  absl::Status end;
  reader.ReadAll();
  feed_.Close(absl::UnavailableError("shutting down"));
  feed_.Next(reader.watcher, [&](const ClusterUpdate& update, const absl::Status& why) {
    EXPECT_EQ(update, nullptr);
    end = why;
  });
  EXPECT_TRUE(absl::IsUnavailable(end));
  EXPECT_TRUE(absl::IsUnavailable(feed_.Start(std::make_shared<ClusterFeed::Watcher>(), "")));
}

}  // namespace
}  // namespace gpipe::orchestrator
