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

// NCCL has no event for "ready". An operation is enqueued by a thread of NCCL's within tens of microseconds, which is
// waited for without sleeping; connecting takes tens of milliseconds.
constexpr int kPollsWithoutSleep = 1000;
constexpr absl::Duration kPollEvery = absl::Microseconds(200);

void LogFailure(const absl::Status& status) {
  if (!status.ok()) spdlog::warn("{}", status.ToString());
}

}  // namespace

NcclComm::NcclComm(std::string name, int device, cudaStream_t stream)
    : name_(std::move(name)),
      raw_stream_(stream),
      stream_(c10::cuda::getStreamFromExternal(stream, static_cast<c10::DeviceIndex>(device))) {}

NcclComm::~NcclComm() {
  Abort();
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
  std::unique_ptr<NcclComm> comm(new NcclComm(std::move(name), device, stream));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  absl::MutexLock lock(&comm->mutex_);
  const ncclResult_t result = ncclCommInitRankConfig(&comm->comm_, size, id, rank, &config);
  GPIPE_RETURN_IF_ERROR(comm->AwaitReady(result, "connecting", keep_waiting));
  return comm;
}

absl::Status NcclComm::Send(const at::Tensor& tensor, int peer, const KeepWaiting& keep_waiting) {
  absl::MutexLock lock(&mutex_);
  GPIPE_RETURN_IF_ERROR(CheckOpen());
  const ncclResult_t result = ncclSend(tensor.const_data_ptr(), tensor.nbytes(), ncclUint8, peer, comm_, raw_stream_);
  return AwaitReady(result, "sending", keep_waiting);
}

absl::Status NcclComm::Receive(const at::Tensor& tensor, int peer, const KeepWaiting& keep_waiting) {
  absl::MutexLock lock(&mutex_);
  GPIPE_RETURN_IF_ERROR(CheckOpen());
  const ncclResult_t result = ncclRecv(tensor.mutable_data_ptr(), tensor.nbytes(), ncclUint8, peer, comm_, raw_stream_);
  return AwaitReady(result, "receiving", keep_waiting);
}

absl::Status NcclComm::Broadcast(const at::Tensor& tensor, int root, const KeepWaiting& keep_waiting) {
  absl::MutexLock lock(&mutex_);
  GPIPE_RETURN_IF_ERROR(CheckOpen());
  void* data = tensor.mutable_data_ptr();
  const ncclResult_t result = ncclBroadcast(data, data, tensor.nbytes(), ncclUint8, root, comm_, raw_stream_);
  return AwaitReady(result, "broadcasting", keep_waiting);
}

absl::Status NcclComm::AsyncError() {
  absl::MutexLock lock(&mutex_);
  if (comm_ == nullptr) return absl::OkStatus();
  ncclResult_t state = ncclSuccess;
  ncclResult_t result = ncclCommGetAsyncError(comm_, &state);
  if (result == ncclSuccess) result = state;
  if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
  return NcclStatus(result, name_, comm_);
}

void NcclComm::Abort() {
  absl::MutexLock lock(&mutex_);
  if (comm_ == nullptr) return;
  LogFailure(NcclStatus(ncclCommAbort(std::exchange(comm_, nullptr)), absl::StrCat("aborting ", name_)));
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

void NcclComm::Destroy() {
  absl::MutexLock lock(&mutex_);
  if (comm_ == nullptr) return;
  LogFailure(NcclStatus(ncclCommDestroy(std::exchange(comm_, nullptr)), absl::StrCat("destroying ", name_)));
}

// In a group NCCL first tells the device to stop, for each communicator, and frees them at the end.
void NcclComm::AbortAll(const std::vector<NcclComm*>& comms) {
  LogFailure(NcclStatus(ncclGroupStart(), "aborting"));
  for (NcclComm* comm : comms) comm->Abort();
  LogFailure(NcclStatus(ncclGroupEnd(), "aborting"));
}

absl::Status NcclComm::CloseAll(const std::vector<NcclComm*>& comms, const KeepWaiting& keep_waiting) {
  for (NcclComm* comm : comms) comm->StartFinalizing();
  for (NcclComm* comm : comms) GPIPE_RETURN_IF_ERROR(comm->FinishFinalizing(keep_waiting));
  GPIPE_RETURN_IF_ERROR(NcclStatus(ncclGroupStart(), "closing"));
  for (NcclComm* comm : comms) comm->Destroy();
  return NcclStatus(ncclGroupEnd(), "closing");
}

absl::Status NcclComm::CheckOpen() {
  if (comm_ != nullptr) return absl::OkStatus();
  return absl::CancelledError(absl::StrCat("NCCL, ", name_, ": aborted"));
}

absl::Status NcclComm::AwaitReady(ncclResult_t result, const char* doing, const KeepWaiting& keep_waiting) {
  for (int polls = 0; result == ncclInProgress; ++polls) {
    ncclResult_t state = ncclSuccess;
    result = ncclCommGetAsyncError(comm_, &state);
    if (result == ncclSuccess) result = state;
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
