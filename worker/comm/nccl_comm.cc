#include "worker/comm/nccl_comm.h"

#include <c10/cuda/CUDAGuard.h>

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/status_macros.h"
#include "spdlog/spdlog.h"
#include "worker/comm/nccl_status.h"

namespace gpipe::worker {
namespace {

// NCCL has no event for "ready", nor has a stream for "idle" that a wait could be ended of. An operation is enqueued by
// a thread of NCCL's within tens of microseconds, which is waited for without sleeping; connecting takes tens of
// milliseconds.
constexpr int kPollsWithoutSleep = 1000;
constexpr absl::Duration kPollEvery = absl::Microseconds(200);

void LogFailure(const absl::Status& status) {
  if (!status.ok()) spdlog::warn("{}", status.ToString());
}

ncclResult_t AsyncResult(ncclComm_t comm) {
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(comm, &state);
  return asked == ncclSuccess ? state : asked;
}

// A communicator that is not blocking may say either.
bool Goes(ncclResult_t result) { return result == ncclSuccess || result == ncclInProgress; }

// What is enqueued within a group is one kernel. A group is ended after an error too; what it had is not enqueued then.
ncclResult_t InGroup(at::TensorList tensors, absl::FunctionRef<ncclResult_t(const at::Tensor& tensor)> enqueue) {
  if (tensors.size() == 1) return enqueue(tensors.front());
  ncclResult_t result = ncclGroupStart();
  if (result != ncclSuccess) return result;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.numel() > 0 && Goes(result)) result = enqueue(tensor);
  }
  const ncclResult_t ended = ncclGroupEnd();
  return Goes(result) ? ended : result;
}

absl::Status AsyncErrorOf(ncclComm_t comm, const std::string& name) {
  if (comm == nullptr) return absl::OkStatus();
  const ncclResult_t result = AsyncResult(comm);
  if (Goes(result)) return absl::OkStatus();
  return NcclStatus(result, name, comm);
}

}  // namespace

NcclComm::NcclComm(std::string name, int rank, int device, cudaStream_t stream)
    : name_(std::move(name)),
      rank_(rank),
      raw_stream_(stream),
      stream_(c10::cuda::getStreamFromExternal(stream, static_cast<c10::DeviceIndex>(device))) {}

NcclComm::~NcclComm() {
  AbortAll({this});
  LogFailure(CudaStatus(cudaStreamDestroy(raw_stream_), "destroying a stream"));
}

absl::StatusOr<std::unique_ptr<NcclComm>> NcclComm::Create(std::string name, const ncclUniqueId& id, int rank, int size,
                                                           int device, const KeepWaiting& keep_waiting) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  int least = 0;
  int greatest = 0;
  GPIPE_RETURN_IF_ERROR(CudaStatus(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for priorities"));
  cudaStream_t stream = nullptr;
  GPIPE_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest), "making a stream"));
  std::unique_ptr<NcclComm> comm(new NcclComm(std::move(name), rank, device, stream));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  config.splitShare = 1;  // For Quicken().
  absl::MutexLock lock(&comm->mutex_);
  const ncclResult_t result = ncclCommInitRankConfig(&comm->comm_, size, id, rank, &config);
  GPIPE_RETURN_IF_ERROR(comm->AwaitReady(result, "connecting", keep_waiting));
  return comm;
}

// A child that is blocking shares the connections of its parent, so that enqueueing on it waits for nobody. (To make
// the parent blocking would make its connecting one that nobody can end.)
absl::Status NcclComm::Quicken(const KeepWaiting& keep_waiting) {
  absl::MutexLock lock(&mutex_);
  absl::MutexLock child_lock(&child_mutex_);
  GPIPE_RETURN_IF_ERROR(CheckOpen());
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 1;
  const ncclResult_t begun = ncclCommSplit(comm_, /*color=*/0, /*key=*/rank_, &child_, &config);
  // NCCL 2.28 says success where it has only begun; a thread of its writes child_ before the parent is ready again,
  // also when that is no longer waited for.
  GPIPE_RETURN_IF_ERROR(AwaitReady(begun == ncclSuccess ? ncclInProgress : begun, "splitting", keep_waiting));
  if (child_ != nullptr) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("NCCL made no child of ", name_));
}

absl::Status NcclComm::AwaitIdle(const KeepWaiting& keep_waiting) const {
  cudaError_t state = cudaStreamQuery(raw_stream_);
  for (; state == cudaErrorNotReady; state = cudaStreamQuery(raw_stream_)) {
    GPIPE_RETURN_IF_ERROR(keep_waiting());
    absl::SleepFor(kPollEvery);
  }
  return CudaStatus(state, absl::StrCat("waiting for ", name_));
}

absl::Status NcclComm::Enqueue(const char* doing, const KeepWaiting& keep_waiting, Operation operation) {
  {
    absl::ReaderMutexLock lock(&child_mutex_);
    if (child_ != nullptr) return NcclStatus(operation(child_), absl::StrCat(doing, " ", name_), child_);
  }
  GPIPE_RETURN_IF_ERROR(keep_waiting());  // A child may be gone because of an abort, in which the parent follows.
  absl::MutexLock lock(&mutex_);
  GPIPE_RETURN_IF_ERROR(CheckOpen());
  return AwaitReady(operation(comm_), doing, keep_waiting);
}

absl::Status NcclComm::Send(at::TensorList tensors, int peer, const KeepWaiting& keep_waiting) {
  return Enqueue("sending", keep_waiting, [&](ncclComm_t comm) {
    return InGroup(tensors, [&](const at::Tensor& tensor) {
      return ncclSend(tensor.const_data_ptr(), tensor.nbytes(), ncclUint8, peer, comm, raw_stream_);
    });
  });
}

absl::Status NcclComm::Receive(at::TensorList tensors, int peer, const KeepWaiting& keep_waiting) {
  return Enqueue("receiving", keep_waiting, [&](ncclComm_t comm) {
    return InGroup(tensors, [&](const at::Tensor& tensor) {
      return ncclRecv(tensor.mutable_data_ptr(), tensor.nbytes(), ncclUint8, peer, comm, raw_stream_);
    });
  });
}

absl::Status NcclComm::Broadcast(const at::Tensor& tensor, int root, const KeepWaiting& keep_waiting) {
  return Enqueue("broadcasting", keep_waiting, [&](ncclComm_t comm) {
    void* data = tensor.mutable_data_ptr();
    return ncclBroadcast(data, data, tensor.nbytes(), ncclUint8, root, comm, raw_stream_);
  });
}

absl::Status NcclComm::AsyncError() {
  {
    absl::ReaderMutexLock lock(&child_mutex_);
    GPIPE_RETURN_IF_ERROR(AsyncErrorOf(child_, name_));
  }
  absl::MutexLock lock(&mutex_);
  return AsyncErrorOf(comm_, name_);
}

void NcclComm::StartFinalizing() {
  absl::MutexLock lock(&mutex_);
  if (comm_ == nullptr) return;
  const ncclResult_t result = ncclCommFinalize(comm_);
  if (result != ncclInProgress) LogFailure(NcclStatus(result, absl::StrCat("finalizing ", name_), comm_));
}

absl::Status NcclComm::FinishFinalizing(const KeepWaiting& keep_waiting) {
  absl::MutexLock lock(&mutex_);
  if (comm_ == nullptr) return absl::OkStatus();
  return AwaitReady(ncclInProgress, "finalizing", keep_waiting);
}

bool NcclComm::childless() {
  absl::ReaderMutexLock lock(&child_mutex_);
  return child_ == nullptr;
}

void NcclComm::EndChild(Ending end) {
  absl::ReaderMutexLock lock(&child_mutex_);
  if (child_ == nullptr || child_ending_.exchange(true)) return;
  LogFailure(NcclStatus(end(child_), absl::StrCat("ending the child of ", name_)));
}

void NcclComm::ForgetChild() {
  absl::MutexLock lock(&child_mutex_);
  child_ = nullptr;
}

void NcclComm::End(Ending end) {
  absl::MutexLock lock(&mutex_);
  if (comm_ == nullptr) return;
  LogFailure(NcclStatus(end(std::exchange(comm_, nullptr)), absl::StrCat("ending ", name_)));
}

// In a group NCCL tells the device at once to stop, for each communicator, and frees them at the end. So an operation
// that waits for the device to be enqueued, whose queue is full, returns before its communicator is freed.
//
// A child ends before its parent, whose connections it uses; the parent is told with it. What has no child ends with
// the children: one that went on would keep the device busy, and those that are freed waiting. A split that was given
// up is over when its parent has been ended; then there may be a child after all.
absl::Status NcclComm::EndAll(const std::vector<NcclComm*>& comms, Ending end) {
  absl::Status ended = NcclStatus(ncclGroupStart(), "ending");
  for (NcclComm* comm : comms) comm->EndChild(end);
  for (NcclComm* comm : comms) {
    if (comm->childless()) comm->End(end);
    comm->EndChild(end);
  }
  for (NcclComm* comm : comms) comm->ForgetChild();
  ended.Update(NcclStatus(ncclGroupEnd(), "ending"));

  ended.Update(NcclStatus(ncclGroupStart(), "ending"));
  for (NcclComm* comm : comms) comm->End(end);
  ended.Update(NcclStatus(ncclGroupEnd(), "ending"));
  return ended;
}

void NcclComm::AbortAll(const std::vector<NcclComm*>& comms) { LogFailure(EndAll(comms, ncclCommAbort)); }

// Ending a child waits for what it has under way, with no way to give that up: so that is waited for before.
absl::Status NcclComm::CloseAll(const std::vector<NcclComm*>& comms, const KeepWaiting& keep_waiting) {
  for (NcclComm* comm : comms) GPIPE_RETURN_IF_ERROR(comm->AwaitIdle(keep_waiting));
  for (NcclComm* comm : comms) comm->StartFinalizing();
  for (NcclComm* comm : comms) GPIPE_RETURN_IF_ERROR(comm->FinishFinalizing(keep_waiting));
  return EndAll(comms, ncclCommDestroy);
}

absl::Status NcclComm::CheckOpen() {
  if (comm_ != nullptr) return absl::OkStatus();
  return absl::CancelledError(absl::StrCat("NCCL, ", name_, ": aborted"));
}

absl::Status NcclComm::AwaitReady(ncclResult_t result, const char* doing, const KeepWaiting& keep_waiting) {
  for (int polls = 0; result == ncclInProgress; ++polls) {
    result = AsyncResult(comm_);
    if (result != ncclInProgress) break;
    GPIPE_RETURN_IF_ERROR(keep_waiting());
    if (polls < kPollsWithoutSleep) {
      std::this_thread::yield();
    } else {
      absl::SleepFor(kPollEvery);
    }
  }
  if (result == ncclSuccess) return absl::OkStatus();
  return NcclStatus(result, absl::StrCat(doing, " ", name_), comm_);
}

}  // namespace gpipe::worker
