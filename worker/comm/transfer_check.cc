#include "worker/comm/transfer_check.h"

#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace gpipe::worker {
namespace {

class NoWork final : public Work {
 public:
  absl::Status Wait() override { return absl::OkStatus(); }
};

class SeveralWorks final : public Work {
 public:
  explicit SeveralWorks(std::vector<std::unique_ptr<Work>> works) : works_(std::move(works)) {}

  absl::Status Wait() override {
    for (const auto& work : works_) GPIPE_RETURN_IF_ERROR(work->Wait());
    return absl::OkStatus();
  }

 private:
  const std::vector<std::unique_ptr<Work>> works_;
};

absl::Status CheckTensors(at::TensorList tensors, c10::Device device) {
  for (const at::Tensor& tensor : tensors) GPIPE_RETURN_IF_ERROR(CheckTensor(tensor, device));
  return absl::OkStatus();
}

absl::Status CheckIndex(const std::vector<Channel>& channels, int channel) {
  if (channel >= 0 && channel < static_cast<int>(channels.size())) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("no channel ", channel, ": there are ", channels.size()));
}

}  // namespace

absl::Status CheckTensor(const at::Tensor& tensor, c10::Device device) {
  if (!tensor.defined()) return absl::InvalidArgumentError("the tensor is undefined");
  if (!tensor.is_contiguous()) return absl::InvalidArgumentError("the tensor is not contiguous");
  const bool same_index = !device.has_index() || tensor.device().index() == device.index();
  if (tensor.device().type() == device.type() && same_index) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the tensor is on ", tensor.device().str(), ", the communicator on ", device.str()));
}

absl::Status CheckSend(const std::vector<Channel>& channels, int rank, int channel, at::TensorList tensors,
                       c10::Device device) {
  GPIPE_RETURN_IF_ERROR(CheckIndex(channels, channel));
  if (channels[channel].sender != rank) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker ", rank, " is not the sender of channel ", channels[channel].name));
  }
  return CheckTensors(tensors, device);
}

absl::Status CheckReceive(const std::vector<Channel>& channels, int rank, int channel, at::TensorList tensors,
                          c10::Device device) {
  GPIPE_RETURN_IF_ERROR(CheckIndex(channels, channel));
  if (channels[channel].receiver != rank) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker ", rank, " is not the receiver of channel ", channels[channel].name));
  }
  return CheckTensors(tensors, device);
}

absl::Status CheckChannels(const std::vector<Channel>& channels, int size) {
  std::set<std::string> names;
  for (const Channel& channel : channels) {
    const bool ends_exist = channel.sender >= 0 && channel.sender < size && channel.receiver >= 0 &&
                            channel.receiver < size && channel.sender != channel.receiver;
    if (!ends_exist) {
      return absl::InvalidArgumentError(absl::StrCat("channel ", channel.name, " from worker ", channel.sender, " to ",
                                                     channel.receiver, " of ", size, " workers"));
    }
    if (!names.insert(channel.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("two channels named ", channel.name));
    }
  }
  return absl::OkStatus();
}

std::unique_ptr<Work> CompletedWork() { return std::make_unique<NoWork>(); }

absl::StatusOr<std::unique_ptr<Work>> StartEach(
    at::TensorList tensors, absl::FunctionRef<absl::StatusOr<std::unique_ptr<Work>>(const at::Tensor& tensor)> start) {
  if (tensors.size() == 1) return start(tensors.front());
  std::vector<std::unique_ptr<Work>> works;
  for (const at::Tensor& tensor : tensors) {
    GPIPE_ASSIGN_OR_RETURN(works.emplace_back(), start(tensor));
  }
  return std::make_unique<SeveralWorks>(std::move(works));
}

}  // namespace gpipe::worker
