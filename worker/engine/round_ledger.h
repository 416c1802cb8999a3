#ifndef GPIPE_WORKER_ENGINE_ROUND_LEDGER_H_
#define GPIPE_WORKER_ENGINE_ROUND_LEDGER_H_

#include <c10/core/Device.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/comm/communicator.h"
#include "worker/data/output_file.h"
#include "worker/engine/clock_offset.h"
#include "worker/engine/grant_gate.h"
#include "worker/engine/message_sink.h"
#include "worker/engine/round_record.h"
#include "worker/stage/stage.h"

namespace gpipe::worker {

// Books what rounds made: reports progress and timings, refuses a loss that is not finite, adds up evaluations, writes
// outputs. A step that was left out, because in fp16 its gradients overflowed, may have any loss. On CPU a round is
// booked when it ends. On CUDA it is booked when the device is done with it, up to kMaxPending rounds later, so that
// the host never waits inside a step. Nothing is booked once the communicator has ended: what it was made of may be
// garbage. Used by the engine's thread only.
class RoundLedger {
 public:
  // A stage that this worker hosts.
  struct HostedLayers {
    int stage = 0;
    int first = 0;  // Of its layers.
    int count = 0;
  };
  struct Options {
    v1::AttemptId attempt;
    c10::Device device = c10::kCPU;
    std::vector<HostedLayers> stages;
    bool reports_loss = false;     // Hosts the last stage.
    bool loss_adds_up = false;     // It is a sum, no mean, over mini-batches too.
    OutputFile* output = nullptr;  // Inference, with the last stage.
    // Takes what a round made for a client, on the CPU; null: there is no client.
    std::function<absl::StatusOr<v1::ArtifactRef>(const RoundPlan& plan, const Values& made)> give;
    // Of the orchestrator's clock, which actions are told by; null: they are told without their beginning.
    const ClockOffset* clock = nullptr;
  };

  // `sink` and `communicator` outlive the ledger.
  RoundLedger(Options options, MessageSink& sink, Communicator& communicator)
      : options_(std::move(options)), sink_(sink), communicator_(communicator) {}

  // A round begins. The record is the caller's to fill until End.
  RoundRecord& Begin(const RoundPlan& plan);

  // The round has ended. OUT_OF_RANGE when a loss booked now is not finite, or gradients overflow at any loss scale.
  absl::Status End();

  // Books all rounds that ended and reports what the current one has done up to clock cycle `complete`. Called where
  // the engine waits anyway: it waits for the device.
  absl::Status Report(Position complete);

  // Books all rounds that ended.
  absl::Status Flush();

 private:
  absl::Status BookOldest();
  // Waits until the device has done what `timer` has seen. Not OK: with what was not received.
  absl::Status AwaitDevice(ActionTimer& timer);
  absl::Status AddLoss(const RoundRecord& record, double loss);
  void AddLossCheck(const RoundRecord& record, double loss);
  absl::Status CheckLoss(const RoundRecord& record, double loss) const;
  // Of a step that was left out because gradients overflowed.
  absl::Status CheckScale(const RoundRecord& record) const;
  absl::Status AddEvaluation(const RoundRecord& record, double loss);
  // What the round made goes where it belongs.
  absl::Status Deliver(RoundRecord& record) const;
  void AddRoundDone(const RoundRecord& record, double loss, v1::Progress& progress) const;
  v1::StageReport ReportOf(size_t hosted, const RoundRecord& record) const;
  static void AddTraffic(const RoundRecord& record, v1::RoundDone& done);
  // The actions timed since the last report.
  void AddActions(RoundRecord& record, v1::Progress& progress) const;
  v1::Progress NewProgress(Position complete) const;
  void Send(v1::Progress progress);

  const Options options_;
  MessageSink& sink_;
  Communicator& communicator_;
  std::unique_ptr<RoundRecord> current_;
  std::deque<std::unique_ptr<RoundRecord>> pending_;  // Oldest first.
  std::vector<std::unique_ptr<ActionTimer>> timers_;  // Not in use.
  Position reported_;
  int64_t device_free_ = 0;  // When the device was done with the last round that is booked, on the steady clock.
  std::vector<double> checked_losses_;  // Of rounds kCheckLoss.

  // The evaluation under way: a mean over all that counts, whatever the batches were.
  struct Evaluated {
    double loss = 0;  // Weighted by what it was divided by: targets where some are ignored, else samples.
    double counted = 0;
    double hits = 0;
    int64_t samples = 0;
  };
  Evaluated evaluation_;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ROUND_LEDGER_H_
