#include "orchestrator/jobs/schema.h"

#include <iterator>

#include "absl/strings/str_cat.h"

namespace gpipe::orchestrator {
namespace {

// Step i takes the schema from version i to i + 1. Steps are only ever added: a database out there has run the old
// ones.
constexpr const char* kMigrations[] = {
    // Columns are what is queried on or never changes; `message` is the rest of gpipe.v1.Job.
    // AUTOINCREMENT: a sequence is never used twice, so page tokens and the queue's order hold for ever.
    R"sql(
CREATE TABLE jobs (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  request_id TEXT UNIQUE,
  fingerprint TEXT NOT NULL,
  create_time_nanos INTEGER NOT NULL,
  state INTEGER NOT NULL,
  spec BLOB NOT NULL,
  message BLOB NOT NULL
);
CREATE INDEX jobs_by_state ON jobs (state, sequence);

CREATE TABLE job_files (
  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
  path TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  size INTEGER NOT NULL,
  PRIMARY KEY (job, path)
) WITHOUT ROWID;

CREATE TABLE job_events (
  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
  sequence INTEGER NOT NULL,
  time_nanos INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  state INTEGER NOT NULL,
  actor TEXT NOT NULL,
  message TEXT NOT NULL,
  PRIMARY KEY (job, sequence)
) WITHOUT ROWID;

CREATE TABLE step_metrics (
  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
  step INTEGER NOT NULL,
  message BLOB NOT NULL,
  PRIMARY KEY (job, step)
) WITHOUT ROWID;

CREATE TABLE evaluations (
  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
  step INTEGER NOT NULL,
  message BLOB NOT NULL,
  PRIMARY KEY (job, step)
) WITHOUT ROWID;

CREATE TABLE checkpoints (
  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
  step INTEGER NOT NULL,
  manifest_sha256 TEXT NOT NULL,
  manifest_size INTEGER NOT NULL,
  model_sha256 TEXT NOT NULL,
  model_size INTEGER NOT NULL,
  optimizer_sha256 TEXT NOT NULL,
  optimizer_size INTEGER NOT NULL,
  PRIMARY KEY (job, step)
) WITHOUT ROWID;

-- The checkpoint of another job, or of a folder, that the job started from.
CREATE TABLE resumes (
  job INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
  step INTEGER NOT NULL,
  manifest_sha256 TEXT NOT NULL,
  manifest_size INTEGER NOT NULL,
  model_sha256 TEXT NOT NULL,
  model_size INTEGER NOT NULL,
  optimizer_sha256 TEXT NOT NULL,
  optimizer_size INTEGER NOT NULL
);

CREATE TABLE results (
  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
  path TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  size INTEGER NOT NULL,
  PRIMARY KEY (job, path)
) WITHOUT ROWID;
)sql",
    // `request` is the fingerprint of what was measured; the newest have the highest sequence.
    R"sql(
CREATE TABLE profiles (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  request TEXT NOT NULL,
  kind TEXT NOT NULL,
  message BLOB NOT NULL,
  UNIQUE (request, kind)
);
)sql",
    // A checkpoint has any number of files, by name.
    R"sql(
CREATE TABLE checkpoint_files (
  job INTEGER NOT NULL,
  step INTEGER NOT NULL,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  size INTEGER NOT NULL,
  PRIMARY KEY (job, step, name),
  FOREIGN KEY (job, step) REFERENCES checkpoints ON DELETE CASCADE
) WITHOUT ROWID;
INSERT INTO checkpoint_files SELECT job, step, 'model.safetensors', model_sha256, model_size FROM checkpoints;
INSERT INTO checkpoint_files SELECT job, step, 'optimizer.safetensors', optimizer_sha256, optimizer_size FROM checkpoints;
ALTER TABLE checkpoints DROP COLUMN model_sha256;
ALTER TABLE checkpoints DROP COLUMN model_size;
ALTER TABLE checkpoints DROP COLUMN optimizer_sha256;
ALTER TABLE checkpoints DROP COLUMN optimizer_size;

CREATE TABLE resume_files (
  job INTEGER NOT NULL REFERENCES resumes ON DELETE CASCADE,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  size INTEGER NOT NULL,
  PRIMARY KEY (job, name)
) WITHOUT ROWID;
INSERT INTO resume_files SELECT job, 'model.safetensors', model_sha256, model_size FROM resumes;
INSERT INTO resume_files SELECT job, 'optimizer.safetensors', optimizer_sha256, optimizer_size FROM resumes;
ALTER TABLE resumes DROP COLUMN model_sha256;
ALTER TABLE resumes DROP COLUMN model_size;
ALTER TABLE resumes DROP COLUMN optimizer_sha256;
ALTER TABLE resumes DROP COLUMN optimizer_size;
)sql",
    "ALTER TABLE job_events ADD COLUMN warning INTEGER NOT NULL DEFAULT 0",
    // Who has a file is asked before it is removed; a checkpoint's files are those claimed before it was stored.
    R"sql(
ALTER TABLE checkpoints ADD COLUMN time_nanos INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN end_time_nanos INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET end_time_nanos = create_time_nanos WHERE state IN (5, 6, 7);
CREATE INDEX job_files_by_content ON job_files (sha256);
CREATE INDEX results_by_content ON results (sha256);
CREATE INDEX checkpoint_files_by_content ON checkpoint_files (sha256);
CREATE INDEX checkpoints_by_content ON checkpoints (manifest_sha256);
CREATE INDEX resume_files_by_content ON resume_files (sha256);
CREATE INDEX resumes_by_content ON resumes (manifest_sha256);
)sql",
    // Steps are counted from 1; what a message says of its own number is not looked at.
    R"sql(
CREATE TABLE counted_metrics (
  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
  step INTEGER NOT NULL,
  message BLOB NOT NULL,
  PRIMARY KEY (job, step)
) WITHOUT ROWID;
INSERT INTO counted_metrics SELECT job, step + 1, message FROM step_metrics;
DROP TABLE step_metrics;
ALTER TABLE counted_metrics RENAME TO step_metrics;
)sql",
    "CREATE TABLE drained_workers (name TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID",
};

}  // namespace

int SchemaVersion() { return std::size(kMigrations); }

absl::Status Migrate(SQLite::Database& connection, int version) {
  int at = connection.execAndGet("PRAGMA user_version").getInt();
  if (at > version) {
    return absl::FailedPreconditionError(absl::StrCat(connection.getFilename(), " has schema version ", at,
                                                      ", written by a newer gpipe-orchestrator; this one knows up to ",
                                                      version));
  }
  for (; at < version; ++at) {
    SQLite::Transaction transaction(connection);
    connection.exec(kMigrations[at]);
    connection.exec(absl::StrCat("PRAGMA user_version = ", at + 1));
    transaction.commit();
  }
  return absl::OkStatus();
}

}  // namespace gpipe::orchestrator
