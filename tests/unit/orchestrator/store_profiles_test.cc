#include "SQLiteCpp/SQLiteCpp.h"
#include "absl/strings/str_cat.h"
#include "orchestrator/jobs/schema.h"
#include "tests/unit/orchestrator/store_testing.h"

namespace gpipe::orchestrator {
namespace {

v1::Inspected Profile(int64_t nanos) {
  v1::Inspected profile;
  profile.add_layers()->set_forward_nanos(nanos);
  return profile;
}

class StoreProfilesTest : public testing::Test {
 protected:
  void Reopen() {
    store_.reset();
    store_ = *Store::Open(folder_.path());
  }
  // 0 when it is not there.
  int64_t NanosOf(const std::string& request, const std::string& kind) {
    const auto found = store_->FindProfile(request, kind);
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() && found->has_value() ? (*found)->layers(0).forward_nanos() : 0;
  }

  TemporaryFolder folder_ = *TemporaryFolder::Create("store_profiles_test");
  std::unique_ptr<Store> store_ = *Store::Open(folder_.path());
};

TEST_F(StoreProfilesTest, AreKeptByRequestAndKindAndReplaced) {
  EXPECT_TRUE(store_->AddProfile("a", "fast", Profile(1)).ok());
  EXPECT_TRUE(store_->AddProfile("a", "slow", Profile(2)).ok());
  EXPECT_TRUE(store_->AddProfile("b", "fast", Profile(3)).ok());
  EXPECT_TRUE(store_->AddProfile("b", "fast", Profile(4)).ok());
  Reopen();
  EXPECT_EQ(NanosOf("a", "fast"), 1);
  EXPECT_EQ(NanosOf("a", "slow"), 2);
  EXPECT_EQ(NanosOf("b", "fast"), 4);
  EXPECT_EQ(NanosOf("b", "slow"), 0);
}

TEST_F(StoreProfilesTest, OnlyTheNewestAreKept) {
  for (int64_t i = 0; i < Store::kMaxProfiles; ++i) {
    ASSERT_TRUE(store_->AddProfile(absl::StrCat(i), "k", Profile(i + 1)).ok());
  }
  EXPECT_EQ(NanosOf("0", "k"), 1);
  EXPECT_TRUE(store_->AddProfile("0", "k", Profile(1)).ok());  // The newest now.
  EXPECT_TRUE(store_->AddProfile("more", "k", Profile(1)).ok());
  EXPECT_EQ(NanosOf("0", "k"), 1);
  EXPECT_EQ(NanosOf("1", "k"), 0);
  EXPECT_EQ(NanosOf("2", "k"), 3);
}

TEST_F(StoreProfilesTest, ADatabaseFromBeforeGetsTheirTable) {
  store_.reset();
  std::filesystem::remove(folder_.path() / "gpipe.db");
  {
    SQLite::Database old((folder_.path() / "gpipe.db").string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    ASSERT_TRUE(Migrate(old, 1).ok());
  }
  Reopen();
  EXPECT_TRUE(store_->AddProfile("a", "k", Profile(1)).ok());
  EXPECT_EQ(NanosOf("a", "k"), 1);
}

}  // namespace
}  // namespace gpipe::orchestrator
