#include "worker/data/tensor_file.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "worker/data/tensor_writer.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

constexpr std::pair<v1::DataType, c10::ScalarType> kTypes[] = {
    {v1::DATA_TYPE_FLOAT32, c10::kFloat},
    {v1::DATA_TYPE_FLOAT64, c10::kDouble},
    {v1::DATA_TYPE_FLOAT16, c10::kHalf},
    {v1::DATA_TYPE_BFLOAT16, c10::kBFloat16},
    {v1::DATA_TYPE_INT64, c10::kLong},
    {v1::DATA_TYPE_INT32, c10::kInt},
    {v1::DATA_TYPE_INT16, c10::kShort},
    {v1::DATA_TYPE_INT8, c10::kChar},
    {v1::DATA_TYPE_UINT8, c10::kByte},
    {v1::DATA_TYPE_BOOL, c10::kBool},
    {v1::DATA_TYPE_UINT16, c10::kUInt16},
    {v1::DATA_TYPE_UINT32, c10::kUInt32},
    {v1::DATA_TYPE_UINT64, c10::kUInt64},
    {v1::DATA_TYPE_FLOAT8_E4M3, c10::kFloat8_e4m3fn},
    {v1::DATA_TYPE_FLOAT8_E5M2, c10::kFloat8_e5m2},
    {v1::DATA_TYPE_COMPLEX64, c10::kComplexFloat},
    {v1::DATA_TYPE_COMPLEX128, c10::kComplexDouble},
};

// Read-only; a file that shrinks while it is mapped is not survived, so files are replaced, never rewritten.
absl::StatusOr<void*> Map(const std::filesystem::path& path, size_t& size) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  struct stat info{};
  void* data = MAP_FAILED;
  if (::fstat(fd, &info) == 0) {
    size = static_cast<size_t>(info.st_size);
    data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  }
  const int error = errno;
  ::close(fd);
  if (data == MAP_FAILED) return ErrnoStatus(error, "cannot map", path);
  return data;
}

}  // namespace

c10::ScalarType ToScalarType(v1::DataType dtype) {
  for (const auto& [proto, torch] : kTypes) {
    if (proto == dtype) return torch;
  }
  return c10::ScalarType::Undefined;
}

v1::DataType ToDataType(c10::ScalarType type) {
  for (const auto& [proto, torch] : kTypes) {
    if (torch == type) return proto;
  }
  return v1::DATA_TYPE_UNSPECIFIED;
}

TensorFile::TensorFile(std::filesystem::path path, safetensors::Header header, void* data, size_t size)
    : path_(std::move(path)), header_(std::move(header)), data_(data), size_(size) {}

TensorFile::~TensorFile() { ::munmap(data_, size_); }

absl::StatusOr<std::unique_ptr<TensorFile>> TensorFile::Open(const std::filesystem::path& path) {
  GPIPE_ASSIGN_OR_RETURN(auto header, safetensors::ReadHeader(path));
  size_t size = 0;
  GPIPE_ASSIGN_OR_RETURN(void* data, Map(path, size));
  std::unique_ptr<TensorFile> file(new TensorFile(path, std::move(header), data, size));
  for (const auto& [name, info] : file->header_.tensors) {
    if (info.end > size)
      return absl::InvalidArgumentError(absl::StrCat(path.string(), ": changed while it was opened"));
  }
  return file;
}

absl::StatusOr<at::Tensor> TensorFile::Get(const std::string& name) const {
  const auto found = header_.tensors.find(name);
  if (found == header_.tensors.end()) {
    return absl::NotFoundError(absl::StrCat(path_.string(), ": no tensor '", name, "'"));
  }
  const safetensors::TensorInfo& info = found->second;
  if (info.dtype == v1::DATA_TYPE_UNSPECIFIED) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_.string(), ": tensor '", name, "' is ", info.dtype_name, ", which nothing here reads"));
  }
  return CatchTorch([&]() -> absl::StatusOr<at::Tensor> {
    const auto type = ToScalarType(info.dtype);
    void* bytes = static_cast<char*>(data_) + info.begin;
    if (info.begin % c10::elementSize(type) == 0) return at::from_blob(bytes, info.shape, at::dtype(type));
    // Safetensors only promises byte alignment; kernels want their elements aligned.
    at::Tensor copy = at::empty(info.shape, at::dtype(type));
    std::memcpy(copy.mutable_data_ptr(), bytes, info.end - info.begin);
    return copy;
  });
}

absl::Status WriteTensorFile(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors) {
  GPIPE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  GPIPE_RETURN_IF_ERROR(WriteTensors(tensors, [&file](std::string_view bytes) { return file.Append(bytes); }));
  return file.Publish();
}

}  // namespace gpipe::worker
