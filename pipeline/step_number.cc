#include "pipeline/step_number.h"

namespace gpipe::pipeline {

int64_t StepNumber(const Round& round) {
  switch (round.kind) {
    case RoundKind::kTrain:
      return round.step + 1;
    case RoundKind::kInfer:
      return round.index + 1;
    case RoundKind::kEvaluate:
    case RoundKind::kCheckLoss:
    case RoundKind::kCheckpoint:
    case RoundKind::kStoreModel:
      return round.step;
    default:  // Asked for by a client, which counts them.
      return round.index + 1;
  }
  return round.step;
}

std::string NameOf(const Round& round) {
  const std::string number = std::to_string(StepNumber(round));
  switch (round.kind) {
    case RoundKind::kTrain:
      return "step " + number;
    case RoundKind::kInfer:
      return "batch " + number;
    case RoundKind::kEvaluate:
      return "the evaluation after step " + number;
    case RoundKind::kCheckpoint:
      return "the checkpoint of step " + number;
    case RoundKind::kStoreModel:
      return "the storing of the model after step " + number;
    case RoundKind::kCheckLoss:
      return "the look at the loss";
    case RoundKind::kForward:
    case RoundKind::kPredict:
      return "forward of round " + number;
    case RoundKind::kBackward:
      return "backward of round " + number;
    default:
      return "round " + number;
  }
  return "step " + number;
}

}  // namespace gpipe::pipeline
