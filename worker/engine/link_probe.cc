#include "worker/engine/link_probe.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/torch_status.h"

namespace gpipe::worker {
namespace {

// The first messages of each size are not counted: buffers grow, pages are touched.
constexpr int kWarmUp = 2;
constexpr int kSmallCount = 101;
constexpr int kLargeCount = 7;
constexpr int64_t kSmallBytes = 1 << 10;
// Large enough that its time is bandwidth, small enough for a slow network: all of it takes a second at 75 MB/s.
constexpr int64_t kLargeBytesCpu = 4 << 20;
constexpr int64_t kLargeBytesCuda = 32 << 20;

int There(int link) { return 2 * link; }
int Back(int link) { return 2 * link + 1; }

CommOptions WithChannels(CommOptions options) {
  options.channels = LinkChannels(options.size);
  return options;
}

}  // namespace

std::vector<Channel> LinkChannels(int workers) {
  std::vector<Channel> channels;
  for (int link = 0; link + 1 < workers; ++link) {
    channels.push_back({.name = absl::StrCat("link", link, ".there"), .sender = link, .receiver = link + 1});
    channels.push_back({.name = absl::StrCat("link", link, ".back"), .sender = link + 1, .receiver = link});
  }
  return channels;
}

v1::LinkSpeed LineThrough(const MessageTime& small, const MessageTime& large) {
  const double seconds = large.seconds > small.seconds ? large.seconds - small.seconds : large.seconds;
  v1::LinkSpeed speed;
  speed.set_bytes_per_second(static_cast<double>(large.bytes - small.bytes) / seconds);
  speed.set_latency_seconds(std::max(0.0, large.seconds - static_cast<double>(large.bytes) / speed.bytes_per_second()));
  return speed;
}

LinkProbe::LinkProbe(CommOptions options, Connector connect, const Beacon& beacon)
    : options_(WithChannels(std::move(options))),
      connect_(std::move(connect)),
      beacon_(beacon),
      timer_(ActionTimer::Create(options_.device)) {}

LinkProbe::~LinkProbe() { beacon_.control.SetCommunicator(nullptr); }

absl::StatusOr<std::optional<v1::LinkSpeed>> LinkProbe::Measure() {
  GPIPE_RETURN_IF_ERROR(beacon_.Enter(v1::PHASE_MEASURING, failpoint::kMeasuring, /*stage=*/-1));
  GPIPE_RETURN_IF_ERROR(beacon_.control.status());
  GPIPE_ASSIGN_OR_RETURN(communicator_, connect_(options_, beacon_.control.rendezvous()));
  beacon_.control.SetCommunicator(communicator_.get());
  return CatchTorch([this] { return MeasureConnected(); });
}

absl::StatusOr<std::optional<v1::LinkSpeed>> LinkProbe::MeasureConnected() {
  std::optional<v1::LinkSpeed> next;
  for (int parity : {0, 1}) {
    for (int link : {options_.rank - 1, options_.rank}) {
      if (link < 0 || link + 1 >= options_.size || link % 2 != parity) continue;
      GPIPE_ASSIGN_OR_RETURN(v1::LinkSpeed speed, MeasureLink(link));
      if (link == options_.rank) next = std::move(speed);
    }
  }
  // On CUDA times are worth something only if nothing broke meanwhile, which this call would hear of.
  GPIPE_RETURN_IF_ERROR(communicator_->AllReduceSum(Zeros(1)));
  return next;
}

absl::StatusOr<v1::LinkSpeed> LinkProbe::MeasureLink(int link) {
  GPIPE_ASSIGN_OR_RETURN(const MessageTime small, TimeMessages(link, kSmallBytes, kSmallCount));
  const int64_t large_bytes = options_.device.is_cuda() ? kLargeBytesCuda : kLargeBytesCpu;
  GPIPE_ASSIGN_OR_RETURN(const MessageTime large, TimeMessages(link, large_bytes, kLargeCount));
  return LineThrough(small, large);
}

// The one end sends first, the other answers. On CUDA all of it is queued and the device measures. The fastest message
// counts: other work on the machines only adds time, on a busy one to most messages and more than the link takes.
absl::StatusOr<MessageTime> LinkProbe::TimeMessages(int link, int64_t bytes, int count) {
  const bool first = options_.rank == link;
  const at::Tensor sent = Zeros(bytes), received = Zeros(bytes);
  timer_->Begin();
  for (int i = 0; i < kWarmUp + count; ++i) {
    timer_->Start();
    if (first) GPIPE_RETURN_IF_ERROR(Send(There(link), sent));
    GPIPE_RETURN_IF_ERROR(Receive(first ? Back(link) : There(link), received));
    if (!first) GPIPE_RETURN_IF_ERROR(Send(Back(link), sent));
    timer_->Stop();
  }
  timer_->End();
  timer_->Synchronize();
  int64_t nanos = std::numeric_limits<int64_t>::max();
  for (int i = kWarmUp; i < kWarmUp + count; ++i) nanos = std::min(nanos, timer_->Nanos(i));
  return MessageTime{.bytes = bytes, .seconds = std::max(static_cast<double>(nanos), 1.0) / 2e9};
}

at::Tensor LinkProbe::Zeros(int64_t bytes) const {
  return at::zeros({bytes}, at::TensorOptions().dtype(at::kByte).device(options_.device));
}

absl::Status LinkProbe::Send(int channel, const at::Tensor& tensor) {
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Work> work, communicator_->Send(channel, tensor));
  return work->Wait();
}

absl::Status LinkProbe::Receive(int channel, const at::Tensor& tensor) {
  GPIPE_ASSIGN_OR_RETURN(std::unique_ptr<Work> work, communicator_->Receive(channel, tensor));
  return work->Wait();
}

void LinkProbe::Abandon(const absl::Status& reason) {
  if (communicator_ != nullptr) communicator_->Abort(reason);
}

}  // namespace gpipe::worker
