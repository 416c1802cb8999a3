#ifndef GPIPE_WORKER_MONITOR_METERED_SINK_H_
#define GPIPE_WORKER_MONITOR_METERED_SINK_H_

#include <cstdint>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/metrics/counted.h"
#include "worker/engine/message_sink.h"

namespace gpipe::worker {

// Counts what the engine tells the orchestrator, on its way: there is nothing that is measured for metrics only. Any
// thread, as any sink; what it does takes microseconds for each mini-batch.
class MeteredSink final : public MessageSink {
 public:
  // All must outlive it.
  MeteredSink(MessageSink& sink, prometheus::Registry& registry, const Clock& clock);

  void Send(v1::WorkerMessage message) override;
  void ActivityChanged() override { sink_.ActivityChanged(); }

 private:
  void Count(const v1::Progress& progress);
  void Count(const v1::RoundDone& round);
  void Count(const v1::CheckpointShard& shard);
  void Count(const v1::Failed& failed);
  void NoteCheckpoint(const v1::RoundDone& round);

  MessageSink& sink_;
  const Clock& clock_;
  metrics::CounterFamily failures_;
  metrics::CounterFamily nccl_errors_;
  prometheus::Histogram& round_duration_;
  metrics::CounterFamily compute_;
  metrics::CounterFamily idle_;
  prometheus::Family<prometheus::Gauge>& saved_;
  prometheus::Counter& data_wait_;
  prometheus::Counter& sent_;
  prometheus::Counter& received_;
  prometheus::Counter& comm_seconds_;
  prometheus::Histogram& checkpoint_seconds_;
  prometheus::Counter& checkpoint_bytes_;

  absl::Mutex mutex_;
  // Of checkpoints that are under way, by step.
  std::map<int64_t, absl::Time> checkpoint_began_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_MONITOR_METERED_SINK_H_
