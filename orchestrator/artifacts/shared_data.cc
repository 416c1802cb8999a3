#include "orchestrator/artifacts/shared_data.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/data/pattern.h"
#include "common/spec/validator.h"

namespace gpipe::orchestrator {
namespace {

void Ask(const std::string& field, const std::string& path, v1::SharedPaths::Content content, v1::Survey& survey) {
  if (!data::IsShared(path)) return;
  v1::SharedPaths& asked = *survey.add_asked();
  asked.set_field(field);
  asked.add_paths(path);
  asked.set_content(content);
}

data::SampleTable TableOf(const v1::SharedContent& found, bool tokens) {
  data::SampleTable table;
  table.tokens = tokens;
  if (tokens) table.largest_token = found.largest_token();
  for (const std::string& path : found.paths()) table.files.push_back({.name = path, .path = {}});
  for (const v1::ModelTensor& given : found.tensors()) {
    data::SampleTensor& tensor = table.tensors[given.name()];
    tensor.dtype = given.dtype();
    tensor.single = given.shape().empty();
    tensor.samples = tensor.single ? 1 : given.shape(0);
    if (!tensor.single) tensor.shape.assign(given.shape().begin() + 1, given.shape().end());
  }
  return table;
}

}  // namespace

v1::Survey MakeSurvey(const v1::JobSpec& spec) {
  v1::Survey survey;
  Ask("model.exported.path", spec.model().exported().path(), v1::SharedPaths::CONTENT_FILE, survey);
  Ask("model.weights", spec.model().weights(), v1::SharedPaths::CONTENT_WEIGHTS, survey);
  v1::JobSpec copy = spec;
  for (const spec::FileList& list : spec::DataFilesOf(copy)) {
    if (!data::IsShared(list.paths->Get(0))) continue;
    v1::SharedPaths& asked = *survey.add_asked();
    asked.set_field(list.field);
    *asked.mutable_paths() = *list.paths;
    asked.set_content(list.tokens != nullptr ? v1::SharedPaths::CONTENT_TOKENS : v1::SharedPaths::CONTENT_SAMPLES);
    if (list.tokens != nullptr) *asked.mutable_tokens() = *list.tokens;
  }
  return survey;
}

absl::Status TakeSurvey(const v1::Survey& asked, const v1::Surveyed& answer, v1::JobSpec& spec, FileMap& files,
                        SharedTables& tables) {
  if (answer.found_size() != asked.asked_size()) {
    return absl::InternalError(absl::StrCat("a worker answered ", answer.found_size(), " of ", asked.asked_size(),
                                            " questions about shared files"));
  }
  std::map<std::string, const v1::SharedContent*> by_field;
  for (int i = 0; i < answer.found_size(); ++i) {
    const v1::SharedContent& found = answer.found(i);
    if (found.field() != asked.asked(i).field() || found.paths().empty()) {
      return absl::InternalError(absl::StrCat("a worker answered nothing about ", asked.asked(i).field()));
    }
    for (const auto& [path, ref] : found.files()) files[path] = ref;
    tables[found.field()] = TableOf(found, asked.asked(i).content() == v1::SharedPaths::CONTENT_TOKENS);
    by_field[found.field()] = &found;
  }
  for (const spec::FileList& list : spec::DataFilesOf(spec)) {
    if (const auto found = by_field.find(list.field); found != by_field.end()) *list.paths = found->second->paths();
  }
  return absl::OkStatus();
}

}  // namespace gpipe::orchestrator
