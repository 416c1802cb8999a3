#ifndef GPIPE_PIPELINE_TIMELINE_H_
#define GPIPE_PIPELINE_TIMELINE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace gpipe::pipeline {

// The numbers that decide which mini-batches a job runs in which order; see gpipe.v1.Timeline.
struct TimelineSpec {
  int64_t samples = 0;
  int64_t batch_size = 0;
  int64_t steps = 0;  // Optimizer steps of the whole job; 0 in inference.
  bool drop_last = false;
  int64_t evaluate_every = 0;
  int64_t evaluation_samples = 0;  // 0: no evaluation.
  int64_t checkpoint_every = 0;
  int64_t first_step = 0;  // Steps done before this attempt.
  int64_t check_loss_samples = 0;
};

// From kForward on: what a client asks for, which no timeline has (gpipe.v1.RoundKind says what each is).
enum class RoundKind {
  kTrain,
  kEvaluate,
  kCheckpoint,
  kInfer,
  kCheckLoss,
  kStoreModel,
  kForward,
  kBackward,
  kUpdate,
  kZeroGradients,
  kDrop,
  kPredict,
  kGetState,
  kSetState,
};

// One entry of the job's sequence. Grants and reports count in rounds.
struct Round {
  int64_t index = 0;  // From 0 in each attempt.
  RoundKind kind = RoundKind::kTrain;
  int64_t step = 0;           // kTrain: steps done before it. Otherwise: steps done.
  int64_t epoch = 0;          // kTrain.
  int64_t first_sample = 0;   // Position in the epoch's order, or in the evaluation or inference data set. kCheckLoss:
                              // in the order of the first epoch.
  int64_t batch_size = 0;     // 0 for what computes nothing (ComputesNothing).
  bool last_of_kind = false;  // kEvaluate, kCheckLoss: that is complete after it. kInfer: the job is.

  bool operator==(const Round&) const = default;
};

// What a round of some kind does, for whoever does not do it himself.
struct RoundTraits {
  RoundKind kind;
  bool computes;  // Runs a program.
  bool batch;     // Of a mini-batch; else batch_size is 0.
  bool trains;    // In training mode.
  bool asked;     // By a client.
};

// The one list of them, in the order of the enumeration.
inline constexpr std::array<RoundTraits, 14> kRoundTraits = {{
    {RoundKind::kTrain, true, true, true, false},
    {RoundKind::kEvaluate, true, true, false, false},
    {RoundKind::kCheckpoint, false, false, false, false},
    {RoundKind::kInfer, true, true, false, false},
    {RoundKind::kCheckLoss, true, true, false, false},
    {RoundKind::kStoreModel, false, false, false, false},
    {RoundKind::kForward, true, true, true, true},
    {RoundKind::kBackward, true, true, true, true},
    {RoundKind::kUpdate, true, false, true, true},
    {RoundKind::kZeroGradients, false, false, false, true},
    {RoundKind::kDrop, false, false, false, true},
    {RoundKind::kPredict, true, true, false, true},
    {RoundKind::kGetState, false, false, false, true},
    {RoundKind::kSetState, false, false, false, true},
}};

constexpr const RoundTraits& TraitsOf(RoundKind kind) { return kRoundTraits[static_cast<std::size_t>(kind)]; }

// Whether rounds of that kind run no program and read no samples.
constexpr bool ComputesNothing(RoundKind kind) { return !TraitsOf(kind).computes; }

// Walks a job's rounds: the look at its loss, if there is any; training mini-batches; after step n the evaluation when
// due, one round per mini-batch (the last one may be smaller), then a checkpoint when due: whoever starts from it has
// the evaluation behind him. The evaluation after the last step always runs, if there is any, and the model is stored
// before it. Copyable; a copy walks on by itself. Not for use by two threads at once.
class RoundCursor {
 public:
  // REQUIRES: samples >= 1, batch_size >= 1; not (drop_last and samples < batch_size); check_loss_samples <= samples
  // / 2.
  explicit RoundCursor(const TimelineSpec& spec);

  // The next round, or nullopt at the end.
  std::optional<Round> Next();

  // Steps done after the rounds so far; whether the next round is a training step.
  int64_t step() const { return step_; }
  bool trains_next() const;

 private:
  std::optional<Round> NextTrain();
  std::optional<Round> NextEvaluate();
  std::optional<Round> NextInfer();
  Round NextCheckLoss();

  TimelineSpec spec_;
  int64_t index_ = 0;
  int64_t step_;
  int64_t evaluation_position_ = 0;
  int64_t infer_position_ = 0;
  int loss_checks_;  // Rounds kCheckLoss to come.
  bool store_due_ = false;
  bool checkpoint_due_ = false;
  bool evaluation_due_ = false;
};

inline constexpr int kLossCheckRounds = 3;

// Mini-batches per epoch.
int64_t StepsPerEpoch(int64_t samples, int64_t batch_size, bool drop_last);

// Rounds of one attempt, without walking them.
int64_t CountRounds(const TimelineSpec& spec);

}  // namespace gpipe::pipeline

#endif  // GPIPE_PIPELINE_TIMELINE_H_
