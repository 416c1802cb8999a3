#include "orchestrator/jobs/snapshot.h"

#include "SQLiteCpp/SQLiteCpp.h"
#include "absl/strings/str_cat.h"
#include "common/artifacts/disk_room.h"
#include "common/status_macros.h"
#include "orchestrator/jobs/database.h"

namespace gpipe::orchestrator {

// One read transaction, which in a database with a write-ahead log keeps nobody from writing.
absl::Status WriteSnapshot(const std::filesystem::path& database, const std::filesystem::path& target) {
  std::error_code error;
  const auto size = static_cast<int64_t>(std::filesystem::file_size(database, error));
  GPIPE_RETURN_IF_ERROR(CheckRoom(target.parent_path(), error ? 0 : size));
  const std::string doing = absl::StrCat("copying ", database.string());
  try {
    SQLite::Database connection(database.string(), SQLite::OPEN_READWRITE, kBusyTimeoutMillis);
    SQLite::Statement copy(connection, "VACUUM INTO ?1");
    copy.bind(1, target.string());
    copy.exec();
  } catch (const SQLite::Exception& failed) {
    return ToStatus(doing, failed);
  }
  return absl::OkStatus();
}

absl::Status VisitFiles(const std::filesystem::path& snapshot,
                        absl::FunctionRef<absl::Status(const v1::ArtifactRef&)> visit) {
  try {
    SQLite::Database connection(snapshot.string(), SQLite::OPEN_READONLY);
    connection.exec("PRAGMA temp_store = MEMORY");  // There may be no folder for it to sort in.
    SQLite::Statement query(connection,
                            "SELECT sha256, size FROM (SELECT sha256, size FROM job_files "
                            "UNION SELECT sha256, size FROM results UNION SELECT sha256, size FROM checkpoint_files "
                            "UNION SELECT manifest_sha256, manifest_size FROM checkpoints "
                            "UNION SELECT sha256, size FROM resume_files "
                            "UNION SELECT manifest_sha256, manifest_size FROM resumes) WHERE sha256 <> ''");
    while (query.executeStep()) {
      v1::ArtifactRef file;
      file.set_sha256(query.getColumn(0).getString());
      file.set_size(query.getColumn(1).getInt64());
      GPIPE_RETURN_IF_ERROR(visit(file));
    }
  } catch (const SQLite::Exception& failed) {
    return ToStatus("listing the files of jobs", failed);
  }
  return absl::OkStatus();
}

}  // namespace gpipe::orchestrator
