#include "orchestrator/jobs/database.h"

#include <sqlite3.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "orchestrator/jobs/schema.h"

namespace gpipe::orchestrator {
namespace {

absl::StatusCode CodeOf(int sqlite_error) {
  switch (sqlite_error & 0xff) {  // Extended codes carry the primary one in the low byte.
    case SQLITE_FULL:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::StatusCode::kDataLoss;
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return absl::StatusCode::kPermissionDenied;
    case SQLITE_BUSY:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

absl::Status ToStatus(std::string_view doing, const SQLite::Exception& error) {
  const absl::Status status(CodeOf(error.getErrorCode()), absl::StrCat(AbslView(doing), ": ", error.what()));
  return absl::IsResourceExhausted(status) ? WithReason(status, reason::kDiskFull) : status;
}

Database::Database(const std::filesystem::path& path)
    : connection_(path.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, kBusyTimeoutMillis) {}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::filesystem::path& path) {
  std::unique_ptr<Database> database;
  try {
    database.reset(new Database(path));
  } catch (const SQLite::Exception& error) {
    return ToStatus(absl::StrCat("opening ", path.string()), error);
  }
  GPIPE_RETURN_IF_ERROR(database->Run(absl::StrCat("opening ", path.string()), [&] {
    database->connection_.exec("PRAGMA foreign_keys = ON");
    // FULL: with NORMAL a commit that was acknowledged can vanish in a power cut.
    database->connection_.exec("PRAGMA synchronous = FULL");
    // Before anything is written: a newer database is left as it is.
    GPIPE_RETURN_IF_ERROR(Migrate(database->connection_));
    database->connection_.exec("PRAGMA journal_mode = WAL");
    return absl::OkStatus();
  }));
  return database;
}

absl::Status Database::Run(std::string_view doing, const std::function<absl::Status()>& body) {
  try {
    return body();
  } catch (const SQLite::Exception& error) {
    absl::Status status = ToStatus(doing, error);
    if (in_transaction()) failure_.Update(status);
    return status;
  }
}

// SQLite itself rolls a transaction back when, for one, the disk is full.
bool Database::UndoneBySqlite() const {
  return in_transaction() && sqlite3_get_autocommit(connection_.getHandle()) != 0;
}

absl::Status Database::RunAtomically(std::string_view doing, const std::function<absl::Status()>& body) {
  // A change after that would be committed on its own, without those before it.
  if (UndoneBySqlite()) {
    return absl::AbortedError(
        absl::StrCat(AbslView(doing), ": the batch was undone by an earlier error of the database"));
  }
  return Run(doing, [&] {
    connection_.exec("SAVEPOINT change");
    // SQLite::Savepoint would leave the savepoint, and with it a transaction, open after rolling back to it.
    auto undo = absl::MakeCleanup([&] { (void)connection_.tryExec("ROLLBACK TO change; RELEASE change"); });
    GPIPE_RETURN_IF_ERROR(body());
    connection_.exec("RELEASE change");
    std::move(undo).Cancel();
    return absl::OkStatus();
  });
}

Database::Query Database::Prepare(const char* sql) {
  std::unique_ptr<SQLite::Statement>& statement = statements_[sql];
  if (statement == nullptr) statement = std::make_unique<SQLite::Statement>(connection_, sql);
  statement->clearBindings();
  return Query(statement.get());
}

absl::Status Database::BeginTransaction() {
  return Run("beginning a batch", [&] {
    // At once with the right to write: to ask for it later is refused without waiting when another has it.
    transaction_ = std::make_unique<SQLite::Transaction>(connection_, SQLite::TransactionBehavior::IMMEDIATE);
    return absl::OkStatus();
  });
}

absl::Status Database::CommitTransaction() {
  absl::Status status = failure_;
  status.Update(Run("committing a batch", [&] {
    if (status.ok()) transaction_->commit();
    return absl::OkStatus();
  }));
  RollbackTransaction();  // Nothing is left to undo when it was committed.
  return status;
}

}  // namespace gpipe::orchestrator
