#include <filesystem>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/spec/checks.h"
#include "common/spec/client_data.h"

namespace gpipe::spec {
namespace {

constexpr char kField[] = "train.dataset.client";
constexpr char kExchangeRoot[] = "/dev/shm/";

void CheckInputs(const v1::JobSpec& spec, FieldErrors& errors) {
  const v1::ClientData& data = spec.train().dataset().client();
  const std::string field = absl::StrCat(kField, ".inputs");
  if (data.inputs().empty()) errors.Add(field, "is required: one for each input of the model");
  if (data.inputs_size() > 1 && !spec.model().has_exported()) errors.Add(field, "a layer list has one input");
  std::set<std::string> names;
  for (int i = 0; i < data.inputs_size(); ++i) {
    const v1::ClientInput& input = data.inputs(i);
    const std::string path = ElementPath(field, i);
    if (input.name().empty()) errors.Add(path + ".name", "is required");
    if (!names.insert(input.name()).second) errors.Add(path + ".name", "is that of another input, too");
    if (!ClientDtype(input.dtype())) {
      errors.Add(path + ".dtype", absl::StrCat("'", input.dtype(), "' is no type; they are like float32 and int64"));
    }
    for (int j = 0; j < input.shape_size(); ++j) CheckPositive(input.shape(j), ElementPath(path + ".shape", j), errors);
  }
}

// Workers write there what they make: nothing else of a machine may be named.
void CheckExchange(const std::string& exchange, FieldErrors& errors) {
  if (exchange.empty()) return;
  const std::filesystem::path path(exchange);
  const bool good = absl::StartsWith(exchange, kExchangeRoot) && path == path.lexically_normal() &&
                    path.parent_path() == std::filesystem::path(kExchangeRoot).parent_path();
  if (!good) errors.Add(absl::StrCat(kField, ".exchange"), "must be a folder directly below /dev/shm");
}

// What belongs to a timeline, or to a loss that the workers compute.
void CheckNothingElse(const v1::JobSpec& spec, FieldErrors& errors) {
  const v1::Train& train = spec.train();
  const struct {
    const char* field;
    bool given;
  } fields[] = {{"train.steps", train.steps() != 0},
                {"train.epochs", train.epochs() != 0},
                {"train.evaluate", train.has_evaluate()},
                {"train.checkpoint_every", train.checkpoint_every() != 0},
                {"train.lr_schedule", train.has_lr_schedule() && !train.lr_schedule().has_constant()},
                {"train.shuffle", train.shuffle()},
                {"train.drop_last", train.drop_last()},
                {"train.dataset.unbatched", !train.dataset().unbatched().empty()},
                {"max_restarts", spec.max_restarts() != 0}};
  for (const auto& [field, given] : fields) {
    if (given) errors.Add(field, "has no use with client data: the client asks for what is done");
  }
  const bool other = train.loss().kind_case() != v1::Loss::KIND_NOT_SET && !train.loss().has_client();
  if (other) errors.Add("train.loss", "must be `client`, or left out: with client data the client computes it");
  if (train.precision() == v1::PRECISION_FP16) {
    errors.Add("train.precision", "fp16 needs a loss that the workers scale; use bf16");
  }
}

}  // namespace

bool IsInExchangeFolder(const std::string& folder, const std::string& path) {
  const std::filesystem::path file(path);
  return !folder.empty() && file.parent_path() == folder && file == file.lexically_normal();
}

std::optional<v1::DataType> ClientDtype(const std::string& dtype) {
  v1::DataType parsed = v1::DATA_TYPE_UNSPECIFIED;
  const bool known = v1::DataType_Parse(absl::StrCat("DATA_TYPE_", absl::AsciiStrToUpper(dtype)), &parsed);
  if (!known || parsed == v1::DATA_TYPE_UNSPECIFIED) return std::nullopt;
  return parsed;
}

void CheckClientData(const v1::JobSpec& spec, FieldErrors& errors) {
  CheckInputs(spec, errors);
  CheckExchange(spec.train().dataset().client().exchange(), errors);
  CheckNothingElse(spec, errors);
}

}  // namespace gpipe::spec
