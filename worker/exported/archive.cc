#include "worker/exported/archive.h"

#include <ATen/ATen.h>
#include <caffe2/serialize/inline_container.h>

#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/exported/argument_source.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

using caffe2::serialize::PyTorchStreamReader;
using exported::StoredTensor;

// As with safetensors, machines here are little-endian, and so is torch.export's record.
at::Tensor ViewOf(const at::Tensor& storage, const StoredTensor& tensor, c10::ScalarType type) {
  at::Tensor view = at::empty({0}, storage.options().dtype(type));
  view.set_(storage.storage(), tensor.offset, tensor.sizes, tensor.strides);
  return view;
}

absl::StatusOr<c10::ScalarType> TypeOf(const StoredTensor& tensor) {
  const auto type = ToScalarType(tensor.dtype);
  if (!type) return absl::UnimplementedError(absl::StrCat("dtype ", tensor.dtype.code, " is not supported"));
  return *type;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Archive>> Archive::Open(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    return absl::NotFoundError(absl::StrCat(path.string(), ": no file"));
  auto archive = OpenReader([&] { return std::make_unique<PyTorchStreamReader>(path.string()); });
  if (archive.ok()) return archive;
  return absl::Status(archive.status().code(), absl::StrCat(path.string(), ": ", archive.status().message()));
}

absl::StatusOr<std::unique_ptr<Archive>> Archive::Open(Artifacts& artifacts, const v1::ArtifactRef& ref) {
  const auto remote = std::make_shared<ArtifactReader>(artifacts, ref);
  auto archive = OpenReader([&] {
    return std::make_unique<PyTorchStreamReader>(std::shared_ptr<caffe2::serialize::ReadAdapterInterface>(remote));
  });
  GPIPE_RETURN_IF_ERROR(remote->status());
  if (archive.ok()) (*archive)->remote_ = remote;
  return archive;
}

absl::StatusOr<std::unique_ptr<Archive>> Archive::OpenReader(absl::FunctionRef<std::unique_ptr<Reader>()> make) {
  absl::StatusOr<std::unique_ptr<Archive>> archive = CatchTorch([&]() -> absl::StatusOr<std::unique_ptr<Archive>> {
    std::unique_ptr<Archive> opened(new Archive(make()));
    GPIPE_RETURN_IF_ERROR(opened->Parse());
    opened->FindTies();
    return opened;
  });
  if (archive.ok()) return archive;
  const absl::Status& why = archive.status();
  const auto code = absl::IsInternal(why) ? absl::StatusCode::kInvalidArgument : why.code();
  return absl::Status(code, absl::StrCat("not a model that can be run: ", why.message()));
}

Archive::Archive(std::unique_ptr<Reader> reader) : reader_(std::move(reader)) {}

Archive::~Archive() = default;

absl::Status Archive::Parse() {
  GPIPE_ASSIGN_OR_RETURN(const std::string program, ReadText("models/model.json"));
  GPIPE_ASSIGN_OR_RETURN(program_, exported::ParseProgram(program));
  GPIPE_ASSIGN_OR_RETURN(const std::string weights, ReadText("data/weights/model_weights_config.json"));
  GPIPE_ASSIGN_OR_RETURN(weights_, exported::ParseTensorTable(weights));
  GPIPE_ASSIGN_OR_RETURN(const std::string constants, ReadText("data/constants/model_constants_config.json"));
  GPIPE_ASSIGN_OR_RETURN(constants_, exported::ParseTensorTable(constants));
  for (const exported::Input& input : program_.inputs) {
    if (input.kind == exported::InputKind::kUserInput || input.kind == exported::InputKind::kConstant) continue;
    GPIPE_RETURN_IF_ERROR(Find(input.name).status());
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
  for (const exported::Input& input : program_.inputs) {
    if (const auto found = weights_.find(input.name); found != weights_.end()) add(input.name, found->second);
  }
  // Names that the program does not use, but state_dict() has.
  for (const auto& [name, tensor] : weights_) add(name, tensor);
}

const std::string& Archive::CanonicalName(const std::string& name) const {
  const auto found = canonical_.find(name);
  return found == canonical_.end() ? name : found->second;
}

std::vector<std::string> Archive::AliasesOf(const std::string& name) const {
  const auto found = aliases_.find(name);
  return found == aliases_.end() ? std::vector<std::string>() : found->second;
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
  return found != weights_.end() ? absl::StrCat("data/weights/", found->second.record)
                                 : absl::StrCat("data/constants/", constants_.at(name).record);
}

absl::StatusOr<at::Tensor> Archive::Load(const std::string& name, c10::Device device) const {
  GPIPE_ASSIGN_OR_RETURN(const StoredTensor* tensor, Find(name));
  absl::StatusOr<at::Tensor> loaded = CatchTorch([&] { return LoadRecord(name, *tensor, device); });
  if (remote_ != nullptr) GPIPE_RETURN_IF_ERROR(remote_->status());
  return loaded;
}

absl::StatusOr<at::Tensor> Archive::LoadRecord(const std::string& name, const StoredTensor& tensor,
                                               c10::Device device) const {
  GPIPE_ASSIGN_OR_RETURN(const c10::ScalarType type, TypeOf(tensor));
  const std::string record = RecordOf(name);
  if (!reader_->hasRecord(record)) return absl::InvalidArgumentError(absl::StrCat("the archive has no ", record));
  const size_t bytes = reader_->getRecordSize(record);
  const uint64_t needed =
      at::detail::computeStorageNbytes(tensor.sizes, tensor.strides, c10::elementSize(type), tensor.offset);
  if (needed > bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", name, "' has ", bytes, " bytes in the archive instead of ", needed));
  }
  at::Tensor storage = at::empty({static_cast<int64_t>(bytes)}, at::dtype(c10::kByte));
  reader_->getRecord(record, storage.mutable_data_ptr(), bytes);
  const at::Tensor view = ViewOf(storage, tensor, type);
  // A storage larger than its view would stay, and with it what the view does not have.
  return view.to(device, type, /*non_blocking=*/false, /*copy=*/view.nbytes() < bytes);
}

absl::StatusOr<at::Tensor> Archive::Describe(const std::string& name) const {
  GPIPE_ASSIGN_OR_RETURN(const StoredTensor* tensor, Find(name));
  GPIPE_ASSIGN_OR_RETURN(const c10::ScalarType type, TypeOf(*tensor));
  return CatchTorch([&]() -> absl::StatusOr<at::Tensor> {
    return at::empty_strided(tensor->sizes, tensor->strides, at::device(c10::kMeta).dtype(type));
  });
}

}  // namespace gpipe::worker
