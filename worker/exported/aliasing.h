#ifndef GPIPE_WORKER_EXPORTED_ALIASING_H_
#define GPIPE_WORKER_EXPORTED_ALIASING_H_

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/exported/program.h"
#include "worker/exported/archive.h"

namespace gpipe::worker {

// Which values of a program share memory that is written to, as the operators' schemas say.
struct Aliasing {
  // Values, by name, whose memory some node writes to; those with one number share it.
  std::map<std::string, size_t> written;
  // Those among them whose memory is a parameter's or a buffer's: it outlives the forward pass.
  std::set<std::string> written_state;
  // Nodes [first, second] must stay together: between them lie the first definition (of what the
  // program is bound to: the first use) and the last write of memory that is written to; of the latter, all uses.
  std::vector<std::pair<size_t, size_t>> unbroken;
};

absl::StatusOr<Aliasing> FindAliasing(const Archive& archive);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_ALIASING_H_
