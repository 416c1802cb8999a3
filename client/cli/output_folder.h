#ifndef GPIPE_CLIENT_CLI_OUTPUT_FOLDER_H_
#define GPIPE_CLIENT_CLI_OUTPUT_FOLDER_H_

#include <filesystem>

#include "absl/status/statusor.h"

namespace gpipe::client {

// The folder that `gpipe run` leaves its results in: claimed before anything starts. One that was made for a run that
// came to nothing goes away again.
class OutputFolder {
 public:
  // `resume`: the folder that the job goes on from, or empty. INVALID_ARGUMENT: it cannot be written to; or it holds
  // the results of another run, which are neither gone on from nor to be replaced.
  static absl::StatusOr<OutputFolder> Claim(const std::filesystem::path& path, const std::filesystem::path& resume,
                                            bool overwrite);
  OutputFolder(OutputFolder&& other) noexcept;
  OutputFolder& operator=(OutputFolder&&) = delete;
  ~OutputFolder();

  const std::filesystem::path& path() const { return path_; }
  // Whether its results are what the job goes on from.
  bool continues() const { return continues_; }

  // Removes what an earlier run left, if it is to be replaced: now that there is something else.
  absl::Status Clear() const;

 private:
  OutputFolder(std::filesystem::path path, bool continues, bool overwrite, bool made);

  std::filesystem::path path_;
  bool continues_;
  bool overwrite_;
  bool made_;
};

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_CLI_OUTPUT_FOLDER_H_
