#ifndef GPIPE_ORCHESTRATOR_JOBS_DATABASE_H_
#define GPIPE_ORCHESTRATOR_JOBS_DATABASE_H_

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "SQLiteCpp/SQLiteCpp.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gpipe::orchestrator {

// How long a connection waits for others; the lock file keeps other orchestrators out, so that this is for backups and
// for somebody's sqlite3 shell.
inline constexpr int kBusyTimeoutMillis = 5000;

// What SQLite says as a status; `doing` as in "storing the job".
absl::Status ToStatus(std::string_view doing, const SQLite::Exception& error);

// The SQLite connection behind the Store, and the wall where its exceptions become statuses. For one thread.
class Database {
 public:
  // Opens or creates the file with the settings that make a commit durable, and migrates it.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::filesystem::path& path);

  // Runs `body`, which may throw SQLite::Exception, and translates. `doing` is for the message ("storing the job").
  absl::Status Run(std::string_view doing, const std::function<absl::Status()>& body);
  // The same as one change: undone when `body` fails, and else committed, unless in a transaction, with that.
  absl::Status RunAtomically(std::string_view doing, const std::function<absl::Status()>& body);

  // A compiled statement in use. It is reset at the end, because one left in the middle of its rows would keep the
  // database from folding its log back. Its methods throw SQLite::Exception: for use inside Run.
  class Query {
   public:
    explicit Query(SQLite::Statement* statement) : statement_(statement) {}
    Query(const Query&) = delete;
    Query& operator=(const Query&) = delete;
    ~Query() { statement_->tryReset(); }
    SQLite::Statement* operator->() const { return statement_; }
    // Binds the values to ?1, ?2, ....
    template <typename... Values>
    Query& Bind(const Values&... values) {
      int index = 0;
      (BindValue(++index, values), ...);
      return *this;
    }

   private:
    void BindValue(int index, int64_t value) { statement_->bind(index, value); }
    void BindValue(int index, std::string_view text) { statement_->bind(index, std::string(text)); }
    SQLite::Statement* statement_;
  };
  // Each statement is compiled once. REQUIRES: `sql` is a literal; no Query of it is in use.
  Query Prepare(const char* sql);
  int64_t LastInsertRowid() const { return connection_.getLastInsertRowid(); }

  bool in_transaction() const { return transaction_ != nullptr; }
  absl::Status BeginTransaction();
  // Fails when anything has failed since it began, whoever was told. The transaction is over afterwards in any case.
  absl::Status CommitTransaction();
  void RollbackTransaction() {
    transaction_.reset();
    failure_ = absl::OkStatus();
  }

 private:
  explicit Database(const std::filesystem::path& path);
  bool UndoneBySqlite() const;

  SQLite::Database connection_;
  std::map<std::string_view, std::unique_ptr<SQLite::Statement>> statements_;  // Keyed by literals.
  std::unique_ptr<SQLite::Transaction> transaction_;
  absl::Status failure_;  // The first one in the transaction.
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_JOBS_DATABASE_H_
