#include "worker/exported/archive.h"

#include <ATen/ATen.h>
#include <caffe2/serialize/file_adapter.h>
#include <caffe2/serialize/inline_container.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "worker/data/tensor_loader.h"
#include "worker/exported/argument_source.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

using caffe2::serialize::PyTorchStreamReader;
using exported::StoredTensor;

constexpr char kWeights[] = "data/weights/";
constexpr char kConstants[] = "data/constants/";
// As client/python/gpipe/_export/modes.py names them.
constexpr std::string_view kModel = "model";
constexpr std::string_view kEvaluation = "evaluation";
constexpr char kEvaluationNote[] = "extra/gpipe_evaluation";

std::string ProgramRecord(std::string_view name) { return absl::StrCat("models/", AbslView(name), ".json"); }

absl::StatusOr<c10::ScalarType> TypeOf(const StoredTensor& tensor) {
  const auto type = ToScalarType(tensor.dtype);
  if (!type) return absl::UnimplementedError(absl::StrCat("dtype ", tensor.dtype.code, " is not supported"));
  return *type;
}

at::Tensor Meta(const StoredTensor& tensor, c10::ScalarType type) {
  return at::empty_strided(tensor.sizes, tensor.strides, at::device(c10::kMeta).dtype(type));
}

bool IsEmpty(const StoredTensor& tensor) {
  return std::find(tensor.sizes.begin(), tensor.sizes.end(), 0) != tensor.sizes.end();
}

uint16_t ReadShort(const char* bytes) {
  return static_cast<uint16_t>(static_cast<unsigned char>(bytes[0]) | static_cast<unsigned char>(bytes[1]) << 8);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Archive>> Archive::Open(const std::filesystem::path& path, ModelMode mode) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    return absl::NotFoundError(absl::StrCat(path.string(), ": no file"));
  auto archive = OpenSource([&] { return std::make_shared<caffe2::serialize::FileAdapter>(path.string()); }, mode);
  if (archive.ok()) return archive;
  return absl::Status(archive.status().code(), absl::StrCat(path.string(), ": ", archive.status().message()));
}

absl::StatusOr<std::unique_ptr<Archive>> Archive::Open(Artifacts& artifacts, const v1::ArtifactRef& ref,
                                                       ModelMode mode) {
  const auto remote = std::make_shared<ArtifactReader>(artifacts, ref);
  auto archive = OpenSource([&] { return remote; }, mode);
  GPIPE_RETURN_IF_ERROR(remote->status());
  if (archive.ok()) (*archive)->remote_ = remote;
  return archive;
}

absl::StatusOr<std::unique_ptr<Archive>> Archive::OpenSource(absl::FunctionRef<Source()> open, ModelMode mode) {
  absl::StatusOr<std::unique_ptr<Archive>> archive = CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<Archive>> {
    std::unique_ptr<Archive> opened(new Archive(open()));
    GPIPE_RETURN_IF_ERROR(opened->Parse(mode));
    GPIPE_RETURN_IF_ERROR(opened->FindValues());
    opened->FindTies();
    return opened;
  });
  if (archive.ok()) return archive;
  const absl::Status& why = archive.status();
  const auto code = absl::IsInternal(why) ? absl::StatusCode::kInvalidArgument : why.code();
  return absl::Status(code, absl::StrCat("not a model that can be run: ", why.message()));
}

Archive::Archive(Source source) : source_(std::move(source)), reader_(std::make_unique<PyTorchStreamReader>(source_)) {}

Archive::~Archive() = default;

absl::Status Archive::Parse(ModelMode mode) {
  GPIPE_ASSIGN_OR_RETURN(program_, ReadProgram(kModel));
  naming_inputs_ = program_.inputs;
  if (reader_->hasRecord(kEvaluationNote)) {
    GPIPE_ASSIGN_OR_RETURN(evaluation_note_, ReadText(kEvaluationNote));
  }
  is_evaluation_ = mode == ModelMode::kEvaluation && reader_->hasRecord(ProgramRecord(kEvaluation));
  if (is_evaluation_) {
    GPIPE_ASSIGN_OR_RETURN(program_, ReadProgram(kEvaluation));
  }
  GPIPE_RETURN_IF_ERROR(ReadTables(is_evaluation_ ? kEvaluation : kModel));
  for (const exported::Input& input : program_.inputs) {
    if (input.kind == exported::InputKind::kUserInput || input.kind == exported::InputKind::kConstant) continue;
    GPIPE_RETURN_IF_ERROR(Find(input.name).status());
    if (input.kind == exported::InputKind::kParameter) parameters_.insert(input.name);
    // Of buffers no optimizer knows, whatever their flag says.
    const auto stored = weights_.find(input.name);
    if (input.kind == exported::InputKind::kBuffer && stored != weights_.end()) stored->second.requires_grad = false;
  }
  return absl::OkStatus();
}

absl::StatusOr<exported::Program> Archive::ReadProgram(std::string_view name) const {
  GPIPE_ASSIGN_OR_RETURN(const std::string program, ReadText(ProgramRecord(name)));
  return exported::ParseProgram(program);
}

absl::Status Archive::ReadTables(std::string_view name) {
  const auto record = [&](const char* folder, const char* end) { return absl::StrCat(folder, AbslView(name), end); };
  GPIPE_ASSIGN_OR_RETURN(const std::string weights, ReadText(record(kWeights, "_weights_config.json")));
  GPIPE_ASSIGN_OR_RETURN(weights_, exported::ParseTensorTable(weights));
  GPIPE_ASSIGN_OR_RETURN(const std::string constants, ReadText(record(kConstants, "_constants_config.json")));
  GPIPE_ASSIGN_OR_RETURN(constants_, exported::ParseTensorTable(constants));
  return absl::OkStatus();
}

absl::Status Archive::FindValues() {
  std::map<std::string, std::string> names;  // Of those without values, by record.
  for (auto& [name, tensor] : weights_) {
    if (IsEmpty(tensor)) continue;
    GPIPE_RETURN_IF_ERROR(CheckRecord(name, tensor));
    if (!tensor.elsewhere && HasBytes(RecordOf(name))) continue;
    tensor.elsewhere = true;
    const auto [first, added] = names.emplace(tensor.record, name);
    if (added || absl::StartsWith(tensor.record, exported::kElsewhereRecord)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("its weights ('", first->second, "', '", name,
                     "', ...) were on the meta device, and torch.export.save does not keep which of those are tied; "
                     "save it with gpipe.export, which does"));
  }
  for (const auto& [name, tensor] : constants_) {
    if (IsEmpty(tensor)) continue;
    GPIPE_RETURN_IF_ERROR(CheckRecord(name, tensor));
    if (!tensor.elsewhere && HasBytes(RecordOf(name))) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("'", name,
                     "' has no value: it is no part of state_dict(), so that no file of weights has it; "
                     "export the model with it off the meta device"));
  }
  return absl::OkStatus();
}

void Archive::FindTies() {
  std::map<std::tuple<std::string, std::vector<int64_t>, std::vector<int64_t>, int64_t>, std::string> first;
  const auto add = [&](const std::string& name, const StoredTensor& tensor) {
    const auto key = std::make_tuple(tensor.record, tensor.sizes, tensor.strides, tensor.offset);
    const std::string& canonical = first.emplace(key, name).first->second;
    if (canonical_.emplace(name, canonical).second && canonical != name) aliases_[canonical].push_back(name);
  };
  for (const exported::Input& input : naming_inputs_) {
    if (const auto found = weights_.find(input.name); found != weights_.end()) add(input.name, found->second);
  }
  // Names that the program does not use, but state_dict() has.
  for (const auto& [name, tensor] : weights_) add(name, tensor);
}

const std::string& Archive::CanonicalName(const std::string& name) const {
  const auto found = canonical_.find(name);
  return found == canonical_.end() ? name : found->second;
}

std::string Archive::KeyOf(const std::string& name) const {
  const auto constant = constants_.find(name);
  return constant == constants_.end() ? CanonicalName(name) : absl::StrCat(name, " in ", constant->second.record);
}

std::vector<std::string> Archive::AliasesOf(const std::string& name) const {
  const auto found = aliases_.find(name);
  return found == aliases_.end() ? std::vector<std::string>() : found->second;
}

std::vector<std::string> Archive::StateNames() const {
  std::vector<std::string> names;
  std::set<std::string> known;
  const auto add = [&](const std::string& name) {
    if (known.insert(CanonicalName(name)).second) names.push_back(CanonicalName(name));
  };
  for (const exported::Input& input : program_.inputs) {
    if (weights_.contains(input.name)) add(input.name);
  }
  for (const auto& [name, tensor] : weights_) add(name);
  return names;
}

bool Archive::HasValues(const std::string& name) const {
  const auto found = Find(name);
  return found.ok() && !(*found)->elsewhere;
}

bool Archive::IsTrainable(const std::string& name) const {
  const auto found = weights_.find(name);
  return found != weights_.end() && found->second.requires_grad;
}

absl::StatusOr<std::string> Archive::ReadText(const std::string& record) const {
  if (!reader_->hasRecord(record)) return absl::InvalidArgumentError(absl::StrCat("the archive has no ", record));
  const auto [data, size] = reader_->getRecord(record);
  return std::string(static_cast<const char*>(data.get()), size);
}

absl::StatusOr<const StoredTensor*> Archive::Find(const std::string& name) const {
  for (const exported::TensorTable* table : {&weights_, &constants_}) {
    if (const auto found = table->find(name); found != table->end()) return &found->second;
  }
  return absl::NotFoundError(absl::StrCat("the archive has no tensor '", name, "'"));
}

std::string Archive::RecordOf(const std::string& name) const {
  const auto found = weights_.find(name);
  return found != weights_.end() ? absl::StrCat(kWeights, found->second.record)
                                 : absl::StrCat(kConstants, constants_.at(name).record);
}

absl::StatusOr<at::Tensor> Archive::Load(const std::string& name, c10::Device device) const {
  GPIPE_ASSIGN_OR_RETURN(const StoredTensor* tensor, Find(name));
  if (tensor->elsewhere) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", name, "' was exported without values; say where they are with model.weights"));
  }
  absl::StatusOr<at::Tensor> loaded = CatchTorch([&] { return LoadRecord(name, *tensor, device); });
  if (remote_ != nullptr) GPIPE_RETURN_IF_ERROR(remote_->status());
  return loaded;
}

absl::Status Archive::CheckRecord(const std::string& name, const StoredTensor& tensor) const {
  if (tensor.elsewhere) return absl::OkStatus();
  const std::string record = RecordOf(name);
  if (!reader_->hasRecord(record)) return absl::InvalidArgumentError(absl::StrCat("the archive has no ", record));
  const auto type = TypeOf(tensor);
  if (!type.ok()) return absl::OkStatus();  // The program need not use it.
  const uint64_t bytes = reader_->getRecordSize(record);
  const uint64_t needed =
      at::detail::computeStorageNbytes(tensor.sizes, tensor.strides, c10::elementSize(*type), tensor.offset);
  if (bytes == 0 || bytes >= needed) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tensor '", name, "' has ", bytes, " bytes in the archive instead of ", needed));
}

bool Archive::HasBytes(const std::string& record) const {
  return reader_->hasRecord(record) && reader_->getRecordSize(record) > 0;
}

absl::StatusOr<uint64_t> Archive::OffsetOf(const std::string& record) const {
  // The zip format's local header: of fixed size, with the lengths of the name and of more that follow.
  constexpr size_t kHeaderBytes = 30, kMethod = 8, kNameLength = 26, kMoreLength = 28;
  const uint64_t begin = reader_->getRecordHeaderOffset(record);
  std::array<char, kHeaderBytes> header{};
  GPIPE_RETURN_IF_ERROR(Read(begin, absl::MakeSpan(header)));
  if (ReadShort(&header[kMethod]) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(record, " is compressed; torch.export.save does not compress"));
  }
  return begin + kHeaderBytes + ReadShort(&header[kNameLength]) + ReadShort(&header[kMoreLength]);
}

absl::Status Archive::Read(uint64_t offset, absl::Span<char> data) const {
  const size_t got = source_->read(offset, data.data(), data.size(), "tensor");
  if (got == data.size()) return absl::OkStatus();
  if (remote_ != nullptr) GPIPE_RETURN_IF_ERROR(remote_->status());
  return absl::DataLossError(absl::StrCat("the archive ends at ", offset + got));
}

// As with safetensors, machines here are little-endian, and so is torch.export's record.
absl::StatusOr<at::Tensor> Archive::LoadRecord(const std::string& name, const StoredTensor& tensor,
                                               c10::Device device) const {
  GPIPE_ASSIGN_OR_RETURN(const c10::ScalarType type, TypeOf(tensor));
  if (IsEmpty(tensor)) return at::empty_strided(tensor.sizes, tensor.strides, at::device(device).dtype(type));
  const size_t element = c10::elementSize(type);
  const uint64_t needed = at::detail::computeStorageNbytes(tensor.sizes, tensor.strides, element, tensor.offset);
  GPIPE_ASSIGN_OR_RETURN(const uint64_t begin, OffsetOf(RecordOf(name)));
  const uint64_t first = static_cast<uint64_t>(tensor.offset) * element;
  const at::Tensor memory =
      at::empty({static_cast<int64_t>((needed - first) / element)}, at::device(device).dtype(type));
  TensorLoader loader(device);
  GPIPE_RETURN_IF_ERROR(loader.Fill(
      memory, type, [&](uint64_t offset, absl::Span<char> data) { return Read(begin + first + offset, data); }));
  at::Tensor view = at::empty({0}, memory.options());
  view.set_(memory.storage(), 0, tensor.sizes, tensor.strides);
  // What the view does not have would stay in memory with it.
  return view.numel() < memory.numel() ? view.clone() : view;
}

absl::StatusOr<at::Tensor> Archive::Allocate(const std::string& name, c10::Device device) const {
  GPIPE_ASSIGN_OR_RETURN(const at::Tensor described, Describe(name));
  // Of overlapping elements each gets its own place.
  return CatchTorch([&]() -> absl::StatusOr<at::Tensor> { return at::empty_like(described, at::device(device)); });
}

absl::StatusOr<at::Tensor> Archive::Describe(const std::string& name) const {
  GPIPE_ASSIGN_OR_RETURN(const StoredTensor* tensor, Find(name));
  GPIPE_ASSIGN_OR_RETURN(const c10::ScalarType type, TypeOf(*tensor));
  return CatchTorch([&]() -> absl::StatusOr<at::Tensor> { return Meta(*tensor, type); });
}

}  // namespace gpipe::worker
