#include "worker/data/survey.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/data/in_file.h"
#include "common/data/pattern.h"
#include "common/data/sample_table.h"
#include "common/field_error.h"
#include "common/grpc_status.h"
#include "common/safetensors/header.h"
#include "common/safetensors/index.h"
#include "common/status_macros.h"
#include "common/string_view.h"

namespace gpipe::worker {
namespace {

// Answers for one field.
class FieldSurvey {
 public:
  FieldSurvey(const v1::SharedPaths& asked, const SharedFiles& shared) : asked_(asked), shared_(shared) {
    found_.set_field(asked.field());
  }

  absl::StatusOr<v1::SharedContent> Answer() {
    for (const std::string& path : asked_.paths()) GPIPE_RETURN_IF_ERROR(AddPath(path));
    switch (asked_.content()) {
      case v1::SharedPaths::CONTENT_SAMPLES:
      case v1::SharedPaths::CONTENT_TOKENS:
        GPIPE_RETURN_IF_ERROR(AddSamples());
        break;
      case v1::SharedPaths::CONTENT_WEIGHTS:
        GPIPE_RETURN_IF_ERROR(AddWeights());
        break;
      default:
        break;
    }
    return std::move(found_);
  }

 private:
  static std::string InSpec(const std::string& shared_path) {
    return absl::StrCat(AbslView(data::kSharedPrefix), shared_path);
  }

  absl::Status AddPath(const std::string& path) {
    GPIPE_ASSIGN_OR_RETURN(const std::vector<std::string> files,
                           data::Expand(shared_.prefix(), data::SharedPath(path)));
    for (const std::string& file : files) {
      GPIPE_RETURN_IF_ERROR(AddFile(file));
      found_.add_paths(InSpec(file));
    }
    return absl::OkStatus();
  }

  absl::Status AddFile(const std::string& shared_path) {
    GPIPE_ASSIGN_OR_RETURN((*found_.mutable_files())[InSpec(shared_path)], shared_.Describe(shared_path));
    return absl::OkStatus();
  }

  absl::Status AddSamples() {
    const bool tokens = asked_.content() == v1::SharedPaths::CONTENT_TOKENS;
    std::vector<data::DataPath> files;
    for (const std::string& path : found_.paths()) {
      const std::string shared_path = data::SharedPath(path);
      files.push_back({.name = path, .path = shared_.Locate(shared_path)});
      const std::string index = data::IndexBeside(shared_path);
      std::error_code error;
      if (!tokens || !std::filesystem::exists(shared_.Locate(index), error)) continue;
      files.back().index = shared_.Locate(index);
      GPIPE_RETURN_IF_ERROR(AddFile(index));
    }
    auto table = tokens ? data::OpenTokens(std::move(files), asked_.tokens()) : data::OpenTensors(std::move(files));
    GPIPE_RETURN_IF_ERROR(table.status());
    for (const auto& [name, tensor] : table->tensors) AddTensor(name, tensor);
    if (!tokens) return absl::OkStatus();
    GPIPE_ASSIGN_OR_RETURN(const int64_t largest, data::LargestTokenSeen(*table));
    found_.set_largest_token(largest);
    return absl::OkStatus();
  }

  void AddTensor(const std::string& name, const data::SampleTensor& samples) {
    v1::ModelTensor& tensor = *found_.add_tensors();
    tensor.set_name(name);
    tensor.set_dtype(samples.dtype);
    if (!samples.single) tensor.add_shape(samples.samples);
    for (const int64_t size : samples.shape) tensor.add_shape(size);
  }

  absl::Status AddWeights() {
    const std::string path = found_.paths(0);
    if (!safetensors::IsIndex(path)) return AddTensorsOf(path, /*index=*/nullptr);
    GPIPE_ASSIGN_OR_RETURN(const safetensors::WeightMap index,
                           safetensors::ReadIndex(shared_.Locate(data::SharedPath(path)), path));
    for (const std::string& shard : safetensors::ShardsOf(index)) {
      GPIPE_RETURN_IF_ERROR(AddFile(data::SharedPath(shard)));
      GPIPE_RETURN_IF_ERROR(AddTensorsOf(shard, &index));
    }
    if (found_.tensors_size() == static_cast<int>(index.size())) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' names ", index.size(), " tensors, of which its files have ", found_.tensors_size()));
  }

  // Of a shard, those that the index says are there.
  absl::Status AddTensorsOf(const std::string& path, const safetensors::WeightMap* index) {
    const auto header = safetensors::ReadHeader(shared_.Locate(data::SharedPath(path)));
    if (!header.ok()) return data::InFile(path, header.status());
    for (const auto& [name, info] : header->tensors) {
      if (index != nullptr && (!index->contains(name) || index->at(name) != path)) continue;
      v1::ModelTensor& tensor = *found_.add_tensors();
      tensor.set_name(name);
      tensor.set_dtype(info.dtype);
      tensor.mutable_shape()->Assign(info.shape.begin(), info.shape.end());
    }
    return absl::OkStatus();
  }

  const v1::SharedPaths& asked_;
  const SharedFiles& shared_;
  v1::SharedContent found_;
};

}  // namespace

v1::Surveyed AnswerSurvey(const v1::Survey& request, const SharedFiles& shared) {
  v1::Surveyed answer;
  answer.set_id(request.id());
  FieldErrors errors;
  for (const v1::SharedPaths& asked : request.asked()) {
    absl::StatusOr<v1::SharedContent> found = FieldSurvey(asked, shared).Answer();
    if (found.ok()) {
      *answer.add_found() = *std::move(found);
    } else {
      errors.Add(asked.field(), StdView(found.status().message()));
    }
  }
  *answer.mutable_status() = ToProto(errors.ToStatus());
  return answer;
}

}  // namespace gpipe::worker
