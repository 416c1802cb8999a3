#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_ASKED_ROUNDS_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_ASKED_ROUNDS_H_

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "gpipe/v1/plan.pb.h"
#include "orchestrator/planning/round_source.h"

namespace gpipe::orchestrator {

// The rounds that a client asks for, checked, each with its program; at the end, the storing of the model. Programs for
// mini-batches of sizes that nobody had before are made here, and added to the plan. For the loop's thread.
class AskedRounds final : public RoundSource {
 public:
  // Asked for and not taken yet; forward passes whose backward has not come.
  static constexpr size_t kMaxWaiting = 4096, kMaxOpenForwards = 65536;
  // Programs are kept for as long as the job runs.
  static constexpr size_t kMaxSizes = 256;

  // `plan` outlives this. REQUIRES: HasClientData(spec), with its defaults.
  AskedRounds(const v1::JobSpec& spec, v1::Plan* plan);

  // INVALID_ARGUMENT by field path, RESOURCE_EXHAUSTED: nothing has changed. FAILED_PRECONDITION after Close.
  absl::Status Ask(const v1::AskedRound& asked);
  // No more will be asked for.
  void Close();

  std::optional<v1::Round> Next() override;
  bool over() const override { return closed_ && waiting_.empty(); }
  // A client's job does not begin again.
  std::optional<int64_t> AddCheckpoint(Then) override { return std::nullopt; }

  // Rounds that were asked for so far.
  int64_t asked() const { return asked_; }

  // Programs that were added since the last call, as positions in the plan.
  std::vector<int> TakeNewPrograms();

 private:
  absl::Status Check(const v1::AskedRound& asked) const;
  absl::Status CheckData(const v1::AskedRound& asked) const;
  // Whether each micro-batch gives batch normalisations enough; looked at once for each size.
  absl::Status CheckTrains(int64_t batch_size);
  // The position of the program, which is made if it is not there.
  absl::StatusOr<int> ProgramOf(v1::ProgramKind kind, int64_t batch_size);
  int Find(v1::ProgramKind kind, int64_t batch_size) const;
  v1::Round RoundOf(const v1::AskedRound& asked, int64_t batch_size) const;

  const v1::JobSpec spec_;
  v1::Plan* const plan_;
  int told_programs_;  // How many of the plan's the workers know, or will with the next rounds.
  size_t sizes_ = 1;   // Of mini-batches that there are programs for.
  int64_t asked_ = 0;  // Rounds, so far.
  std::deque<v1::Round> waiting_;
  std::set<int64_t> trained_sizes_;      // Of mini-batches that may be trained on.
  std::map<int64_t, int64_t> forwards_;  // Open ones: round -> samples.
  bool closed_ = false;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_ASKED_ROUNDS_H_
