#include <unistd.h>

#include "SQLiteCpp/SQLiteCpp.h"
#include "orchestrator/jobs/database.h"
#include "orchestrator/jobs/schema.h"
#include "tests/unit/orchestrator/store_testing.h"

namespace gpipe::orchestrator {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

class StoreOpenTest : public testing::Test {
 protected:
  std::string DatabaseFile() { return (folder_.path() / "gpipe.db").string(); }

  TemporaryFolder folder_ = *TemporaryFolder::Create("store_open_test");
};

TEST_F(StoreOpenTest, MakesTheFolder) {
  EXPECT_TRUE(Store::Open(folder_.path() / "a" / "b").ok());
  EXPECT_TRUE(std::filesystem::exists(folder_.path() / "a" / "b" / "gpipe.db"));
}

TEST_F(StoreOpenTest, OnlyOneAtATime) {
  auto first = Store::Open(folder_.path());
  ASSERT_TRUE(first.ok());
  auto second = Store::Open(folder_.path());
  EXPECT_THAT(second.status(), IsCode(StatusCode::kFailedPrecondition));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr((folder_.path() / "lock").string()));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("process " + std::to_string(getpid())));
  first->reset();
  EXPECT_TRUE(Store::Open(folder_.path()).ok());
}

TEST_F(StoreOpenTest, CommitsAreDurable) {
  auto store = Store::Open(folder_.path());
  ASSERT_TRUE(store.ok());
  SQLite::Database other(DatabaseFile(), SQLite::OPEN_READONLY);
  EXPECT_EQ(other.execAndGet("PRAGMA journal_mode").getString(), "wal");
  EXPECT_EQ(other.execAndGet("PRAGMA user_version").getInt(), SchemaVersion());
  // synchronous is a setting of the connection: ask the store's own kind.
  auto database = Database::Open(folder_.path() / "another.db");
  ASSERT_TRUE(database.ok());
  constexpr int kFull = 2;
  EXPECT_EQ(
      [&] {
        auto query = (*database)->Prepare("PRAGMA synchronous");
        query->executeStep();
        return query->getColumn(0).getInt();
      }(),
      kFull);
}

// Another process has the database: a batch fails before anybody is answered, and not bit by bit inside.
TEST_F(StoreOpenTest, ABatchBeginsWithTheRightToWrite) {
  auto database = Database::Open(DatabaseFile());
  ASSERT_TRUE(database.ok());
  SQLite::Database other(DatabaseFile(), SQLite::OPEN_READWRITE);
  std::optional<SQLite::Transaction> writes(std::in_place, other, SQLite::TransactionBehavior::IMMEDIATE);
  EXPECT_THAT((*database)->BeginTransaction(), IsCode(StatusCode::kUnavailable));
  EXPECT_FALSE((*database)->in_transaction());
  writes.reset();
  EXPECT_TRUE((*database)->BeginTransaction().ok());
  EXPECT_TRUE((*database)->CommitTransaction().ok());
}

TEST_F(StoreOpenTest, AFailureInABatchFailsItsCommit) {
  auto database = Database::Open(DatabaseFile());
  ASSERT_TRUE(database.ok());
  const auto prepare = [&](const char* sql) {
    return (*database)->Run("asking", [&] {
      (*database)->Prepare(sql)->executeStep();
      return absl::OkStatus();
    });
  };
  ASSERT_TRUE((*database)->BeginTransaction().ok());
  ASSERT_TRUE(prepare("CREATE TABLE made (a)").ok());
  EXPECT_FALSE(prepare("SELECT * FROM nothing").ok());
  EXPECT_FALSE((*database)->CommitTransaction().ok());
  ASSERT_TRUE((*database)->BeginTransaction().ok());
  EXPECT_FALSE(prepare("SELECT * FROM made").ok());
  (*database)->RollbackTransaction();
  ASSERT_TRUE((*database)->BeginTransaction().ok());
  EXPECT_TRUE((*database)->CommitTransaction().ok());
}

TEST_F(StoreOpenTest, ANewerSchemaIsRefusedAndLeftAlone) {
  {
    ASSERT_TRUE(Store::Open(folder_.path()).ok());
  }
  {
    SQLite::Database newer(DatabaseFile(), SQLite::OPEN_READWRITE);
    newer.exec("PRAGMA user_version = 999");
  }
  auto store = Store::Open(folder_.path());
  EXPECT_THAT(store.status(), IsCode(StatusCode::kFailedPrecondition));
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("schema version 999, written by a newer"));
  SQLite::Database after(DatabaseFile(), SQLite::OPEN_READONLY);
  EXPECT_EQ(after.execAndGet("PRAGMA user_version").getInt(), 999);
}

TEST_F(StoreOpenTest, EveryOlderSchemaIsBroughtUpToDate) {
  for (int version = 1; version < SchemaVersion(); ++version) {
    const auto folder = TemporaryFolder::Create("older");
    const std::string file = folder->path() / Store::kDatabaseFile;
    {
      SQLite::Database older(file, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
      ASSERT_TRUE(Migrate(older, version).ok());
    }
    const auto store = Store::Open(folder->path());
    ASSERT_TRUE(store.ok()) << version << ": " << store.status();
    EXPECT_TRUE((*store)->InsertJob(MakeJob("a")).ok()) << version;
    EXPECT_TRUE((*store)->DrainedWorkers().ok()) << version;
    SQLite::Database other(file, SQLite::OPEN_READONLY);
    EXPECT_EQ(other.execAndGet("PRAGMA user_version").getInt(), SchemaVersion());
  }
}

TEST_F(StoreOpenTest, AFileThatIsNoDatabaseIsDataLoss) {
  ASSERT_TRUE(WriteFileAtomically(DatabaseFile(), std::string(8192, 'x')).ok());
  EXPECT_THAT(Store::Open(folder_.path()).status(), IsCode(StatusCode::kDataLoss));
}

TEST_F(StoreOpenTest, AFullDatabaseIsAFullDisk) {
  auto opened = Database::Open(folder_.path() / "small.db");
  ASSERT_TRUE(opened.ok());
  Database& database = **opened;
  {
    database.Prepare("PRAGMA max_page_count = 40")->executeStep();
  }
  auto fill = [&] {
    auto query = database.Prepare(
        "INSERT INTO jobs (id, fingerprint, create_time_nanos, state, spec, message) "
        "VALUES ('a', '', 0, 1, zeroblob(1000000), '')");
    query->exec();
    return absl::OkStatus();
  };
  EXPECT_THAT(database.RunAtomically("filling", fill), IsCode(StatusCode::kResourceExhausted));

  // SQLite may undo the whole batch by itself then; nothing may be committed behind its back.
  ASSERT_TRUE(database.BeginTransaction().ok());
  auto insert = [&] {
    database
        .Prepare(
            "INSERT INTO jobs (id, fingerprint, create_time_nanos, state, spec, message) VALUES ('b', '', 0, 1, '', "
            "'')")
        ->exec();
    return absl::OkStatus();
  };
  ASSERT_TRUE(database.RunAtomically("inserting", insert).ok());
  EXPECT_THAT(database.RunAtomically("filling", fill), IsCode(StatusCode::kResourceExhausted));
  database.RollbackTransaction();
  EXPECT_TRUE(database.RunAtomically("inserting", insert).ok());
}

}  // namespace
}  // namespace gpipe::orchestrator
