#include "tests/unit/orchestrator/store_testing.h"

namespace gpipe::orchestrator {
namespace {

using testing::ElementsAre;
using testing::Pair;

class StoreWorkersTest : public StoreTest {};

TEST_F(StoreWorkersTest, DrainedOnesAreKeptByNameUntilTheyAreUndrained) {
  EXPECT_TRUE(store_->AddDrained("w1", "it is old").ok());
  EXPECT_TRUE(store_->AddDrained("w2", "").ok());
  EXPECT_TRUE(store_->AddDrained("w1", "it is hot").ok());
  Reopen();
  EXPECT_THAT(*store_->DrainedWorkers(), ElementsAre(Pair("w1", "it is hot"), Pair("w2", "")));
  EXPECT_TRUE(store_->RemoveDrained("w1").ok());
  EXPECT_TRUE(store_->RemoveDrained("w3").ok());
  Reopen();
  EXPECT_THAT(*store_->DrainedWorkers(), ElementsAre(Pair("w2", "")));
}

}  // namespace
}  // namespace gpipe::orchestrator
