#ifndef GPIPE_CLIENT_API_SUBMISSION_H_
#define GPIPE_CLIENT_API_SUBMISSION_H_

#include <filesystem>
#include <string>

#include "absl/status/statusor.h"
#include "client/api/cluster_client.h"
#include "common/spec/reader.h"

namespace gpipe::client {

// From a spec file to a job. Every INVALID_ARGUMENT here, local or from the orchestrator, reads `FILE:LINE: field:
// what`.

// Reads the file and checks all that can be checked without the orchestrator, files it names included. Patterns of data
// files are expanded in the spec.
absl::StatusOr<spec::SpecFile> LoadSpec(const std::filesystem::path& path);

struct SubmitOptions {
  // A job id, or a folder with a checkpoint (NewestCheckpoint); empty starts from the beginning.
  std::string resume;
  // Empty makes a random one. The same id again gives the same job.
  std::string request_id;
};

// Gives what the spec names (FileDelivery) and submits. When the connection breaks on the way it is tried again with
// the same request id, so that there is one job whatever was lost.
absl::StatusOr<v1::Job> Submit(ClusterClient& client, const spec::SpecFile& file, const SubmitOptions& options);

struct PlanOptions {
  // Plan for so many workers; 0 for those the spec asks for.
  int workers = 0;
  // Check only, as for a submission: a program whose weights nobody has given is refused. The plan then has no stages
  // where finding them takes measured times.
  bool validate_only = false;
};

// Gives what the spec names and asks for the plan.
absl::StatusOr<v1::PlanJobResponse> Plan(ClusterClient& client, const spec::SpecFile& file, const PlanOptions& options);

// The folder itself if it is a checkpoint, else the one with the highest step in its `checkpoints`. A checkpoint
// without a manifest is torn and does not count. INVALID_ARGUMENT when there is none.
absl::StatusOr<std::filesystem::path> NewestCheckpoint(const std::filesystem::path& folder);

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_API_SUBMISSION_H_
