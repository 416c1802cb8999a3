#ifndef GPIPE_WORKER_EXPORTED_ARCHIVE_H_
#define GPIPE_WORKER_EXPORTED_ARCHIVE_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/exported/program.h"
#include "common/exported/tensor_table.h"
#include "worker/exported/artifact_reader.h"

namespace caffe2::serialize {
class PyTorchStreamReader;
class ReadAdapterInterface;
}  // namespace caffe2::serialize

namespace gpipe::worker {

// Which of a model's programs is wanted. An archive has that for training, and, where gpipe.export has found that it is
// another one, that for evaluation.
enum class ModelMode { kTraining, kEvaluation };

// A .pt2 file of torch.export.save. Opening reads the program and the tables, not the tensors. Used by one thread.
class Archive {
 public:
  // NOT_FOUND: no such file. INVALID_ARGUMENT or UNIMPLEMENTED says why it cannot be run.
  static absl::StatusOr<std::unique_ptr<Archive>> Open(const std::filesystem::path& path,
                                                       ModelMode mode = ModelMode::kTraining);
  // One at the orchestrator: only what is used of it travels. `artifacts` must outlive the archive; its errors, here
  // and in Load, stay what they are.
  static absl::StatusOr<std::unique_ptr<Archive>> Open(Artifacts& artifacts, const v1::ArtifactRef& ref,
                                                       ModelMode mode = ModelMode::kTraining);
  ~Archive();

  const exported::Program& program() const { return program_; }

  // Whether program() is the model in evaluation. Otherwise it is the model in training, and is turned into that in
  // evaluation by what is known of its operators.
  bool is_evaluation() const { return is_evaluation_; }
  // What gpipe.export has found out about the training program in evaluation (evaluation.h); empty: it has not saved
  // it.
  const std::string& evaluation_note() const { return evaluation_note_; }

  // The name under which a tensor is kept: of several names for the same memory, seen the same way, the first one in
  // the training program's order (tied parameters are one parameter).
  const std::string& CanonicalName(const std::string& name) const;

  // What tells a tensor from others in all of an archive's programs: constants of two may have one name.
  std::string KeyOf(const std::string& name) const;

  // The other names of a canonical one.
  std::vector<std::string> AliasesOf(const std::string& name) const;

  // Canonical names of all that state_dict() has, used by the program or not, in the program's order.
  std::vector<std::string> StateNames() const;

  // Whether it is a parameter, trained or not (requires_grad when it was exported).
  bool IsParameter(const std::string& name) const { return parameters_.contains(name); }
  // Whether it is a parameter that the model trained.
  bool IsTrainable(const std::string& name) const;

  // Whether the archive holds its values: parameters and persistent buffers may have been exported without.
  bool HasValues(const std::string& name) const;

  // A new tensor with the bytes of the archive, which are read in pieces (TensorLoader). NOT_FOUND: no such tensor.
  // INVALID_ARGUMENT: its record is compressed; it was exported without values.
  absl::StatusOr<at::Tensor> Load(const std::string& name, c10::Device device) const;
  // The same with any values.
  absl::StatusOr<at::Tensor> Allocate(const std::string& name, c10::Device device) const;
  // The same without memory.
  absl::StatusOr<at::Tensor> Describe(const std::string& name) const;

 private:
  using Reader = caffe2::serialize::PyTorchStreamReader;
  using Source = std::shared_ptr<caffe2::serialize::ReadAdapterInterface>;

  static absl::StatusOr<std::unique_ptr<Archive>> OpenSource(absl::FunctionRef<Source()> open, ModelMode mode);

  explicit Archive(Source source);
  absl::Status Parse(ModelMode mode);
  absl::StatusOr<exported::Program> ReadProgram(std::string_view name) const;
  absl::Status ReadTables(std::string_view name);
  // Marks the tensors that have none. INVALID_ARGUMENT: it is not known which of those are tied, or one is a constant;
  // a record is missing or too short.
  absl::Status FindValues();
  // Whether the record of a tensor that is said to be in the archive is there, as far as its size tells.
  absl::Status CheckRecord(const std::string& name, const exported::StoredTensor& tensor) const;
  void FindTies();
  absl::StatusOr<std::string> ReadText(const std::string& record) const;
  absl::StatusOr<const exported::StoredTensor*> Find(const std::string& name) const;
  std::string RecordOf(const std::string& name) const;

  bool HasBytes(const std::string& record) const;
  // Where the bytes of a record begin in the file.
  absl::StatusOr<uint64_t> OffsetOf(const std::string& record) const;
  absl::Status Read(uint64_t offset, absl::Span<char> data) const;
  absl::StatusOr<at::Tensor> LoadRecord(const std::string& name, const exported::StoredTensor& tensor,
                                        c10::Device device) const;

  std::shared_ptr<const ArtifactReader> remote_;  // Null: a local file.
  const Source source_;
  const std::unique_ptr<Reader> reader_;
  exported::Program program_;
  std::vector<exported::Input> naming_inputs_;  // The training program's.
  bool is_evaluation_ = false;
  std::string evaluation_note_;
  exported::TensorTable weights_;     // Parameters and persistent buffers.
  exported::TensorTable constants_;   // Constants and other buffers.
  std::set<std::string> parameters_;  // Also names that are not canonical.
  std::map<std::string, std::string> canonical_;
  std::map<std::string, std::vector<std::string>> aliases_;  // By canonical name.
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_ARCHIVE_H_
