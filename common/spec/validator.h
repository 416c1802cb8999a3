#ifndef GPIPE_COMMON_SPEC_VALIDATOR_H_
#define GPIPE_COMMON_SPEC_VALIDATOR_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gpipe/v1/job_spec.pb.h"

namespace gpipe::spec {

// Of JobSpec.max_restarts: what it is unless given, and the most it may be.
inline constexpr int kDefaultMaxRestarts = 3, kMostRestarts = 1000;

// Checks all that a spec says by itself: required fields, ranges, sum of balance, stages against layers, stash and pop
// pairs (torchgpipe's five mismatches), arguments of each layer, one task, one data source. No file and no tensor is
// looked at. Used by the client before it uploads and by the orchestrator for every request.
// INVALID_ARGUMENT lists every violation with its field path.
absl::Status Validate(const v1::JobSpec& spec);

// A copy in which every default that needs no tensors is written out (checkpoint, chunks, betas, strides, ...), so that
// nothing after this has a default of its own. REQUIRES: Validate(spec) is OK.
v1::JobSpec WithDefaults(const v1::JobSpec& spec);

// The files of a spec that its client sends, as field path and value, in order of appearance; a pattern stands for
// itself. There are more if the weights are an index, those that it names (common/safetensors/index.h), and beside
// tokens the indices of Megatron's.
struct NamedFile {
  std::string field;
  std::string path;
};
std::vector<NamedFile> FilesOf(const v1::JobSpec& spec);

// The lists of files of a spec's data sets that are not empty, by field path, to read or to change.
struct FileList {
  std::string field;
  google::protobuf::RepeatedPtrField<std::string>* paths;
  const v1::Tokens* tokens = nullptr;  // How they are read, if they are tokens.
};
std::vector<FileList> DataFilesOf(v1::JobSpec& spec);

// `linear`, `conv_2d`, ...: the name of a layer's kind in YAML.
std::string LayerKind(const v1::Layer& layer);

// `model.sequential[<index>].<kind>`.
std::string LayerPath(const v1::JobSpec& spec, int index);

}  // namespace gpipe::spec

#endif  // GPIPE_COMMON_SPEC_VALIDATOR_H_
