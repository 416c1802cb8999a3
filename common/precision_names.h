#ifndef GPIPE_COMMON_PRECISION_NAMES_H_
#define GPIPE_COMMON_PRECISION_NAMES_H_

namespace gpipe {

// What a checkpoint's optimizer.safetensors has of mixed precision, written by workers and read by the orchestrator
// (docs/precision.md): a master `0.weight/master` for each parameter, unless the model's own files have them, and once
// what the loss is multiplied by, under the name of the precision, with how many steps ago that last changed. No
// optimizer has state of these names, also not of a parameter that is called `precision`.
inline constexpr char kMasterSlot[] = "master";
inline constexpr char kScaleOfBf16[] = "precision/bf16";
inline constexpr char kScaleOfFp16[] = "precision/fp16";
inline constexpr char kGoodSteps[] = "precision/good_steps";

}  // namespace gpipe

#endif  // GPIPE_COMMON_PRECISION_NAMES_H_
