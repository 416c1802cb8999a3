#include "worker/comm/star.h"

#include <ATen/ATen.h>

#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

absl::Status SendAndWait(StarLinks& links, int peer, const at::Tensor& tensor) {
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Work> work, links.SendTo(peer, tensor));
  return work->Wait();
}

absl::Status ReceiveAndWait(StarLinks& links, int peer, const at::Tensor& tensor) {
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Work> work, links.ReceiveFrom(peer, tensor));
  return work->Wait();
}

// All receives are posted at once; the parts are added in rank order, whichever arrives first.
absl::Status ReceiveSum(StarLinks& links, int size, const at::Tensor& tensor) {
  std::vector<at::Tensor> parts;
  std::vector<std::unique_ptr<Work>> works;
  for (int peer = 1; peer < size; ++peer) {
    parts.push_back(at::empty_like(tensor));
    GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Work> work, links.ReceiveFrom(peer, parts.back()));
    works.push_back(std::move(work));
  }
  for (size_t i = 0; i < works.size(); ++i) {
    GPIPE_RETURN_IF_ERROR(works[i]->Wait());
    tensor.add_(parts[i]);
  }
  return absl::OkStatus();
}

absl::Status SendToAll(StarLinks& links, int rank, int size, const at::Tensor& tensor) {
  std::vector<std::unique_ptr<Work>> works;
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Work> work, links.SendTo(peer, tensor));
    works.push_back(std::move(work));
  }
  for (std::unique_ptr<Work>& work : works) GPIPE_RETURN_IF_ERROR(work->Wait());
  return absl::OkStatus();
}

}  // namespace

absl::Status StarReduceSum(StarLinks& links, int rank, int size, const at::Tensor& tensor) {
  if (rank != 0) return SendAndWait(links, 0, tensor);
  return CatchTorch([&] { return ReceiveSum(links, size, tensor); });
}

absl::Status StarBroadcast(StarLinks& links, int rank, int size, const at::Tensor& tensor, int root) {
  if (rank != root) return ReceiveAndWait(links, root, tensor);
  return SendToAll(links, rank, size, tensor);
}

}  // namespace gpipe::worker
