#ifndef GPIPE_WORKER_ENGINE_ACTION_TIMER_H_
#define GPIPE_WORKER_ENGINE_ACTION_TIMER_H_

#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <memory>

namespace gpipe::worker {

// When the actions of one round ran. On CPU by the steady clock; on CUDA by events on the current stream, so that the
// host neither waits nor measures its own queueing. Used by the engine's thread only.
class ActionTimer {
 public:
  static std::unique_ptr<ActionTimer> Create(c10::Device device);
  virtual ~ActionTimer() = default;

  // A round begins; forgets the last one. REQUIRES: the last one is complete.
  virtual void Begin() = 0;
  // Brackets one action; Stop returns its number, from 0.
  virtual void Start() = 0;
  virtual size_t Stop() = 0;
  // The round ends.
  virtual void End() = 0;

  // Whether all that was asked of the device so far is done, without waiting; and waiting for it.
  virtual bool Complete() const = 0;
  virtual void Synchronize() = 0;

  // How long the action took, and from the round's beginning to its own. REQUIRES: the action is complete; for
  // WallNanos, the round is.
  virtual int64_t Nanos(size_t action) const = 0;
  virtual int64_t NanosBefore(size_t action) const = 0;
  virtual int64_t WallNanos() const = 0;

  // When the round began, on this process's steady clock; on CUDA as near as the host can know. `device_free` is when
  // the device was done with the round before. REQUIRES: Complete, or Synchronize was called.
  virtual int64_t BeginNanos(int64_t device_free) const = 0;
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ACTION_TIMER_H_
