#ifndef GPIPE_WORKER_COMM_GLOO_STORE_H_
#define GPIPE_WORKER_COMM_GLOO_STORE_H_

#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/comm/rendezvous.h"

namespace gpipe::worker {

// What c10d's Gloo asks of a key-value store, through a Rendezvous: set, wait and get, under keys `gloo/...`. It throws
// what c10d expects to be thrown; status() tells the reason afterwards. Everything waits until `deadline` at most,
// whatever timeout the caller names.
class GlooStore final : public c10d::Store {
 public:
  GlooStore(Rendezvous* rendezvous, absl::Time deadline) : rendezvous_(rendezvous), deadline_(deadline) {}

  using c10d::Store::set;
  void set(const std::string& key, const std::vector<uint8_t>& value) override;
  std::vector<uint8_t> get(const std::string& key) override;
  void wait(const std::vector<std::string>& keys) override;
  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) override;

  // Not used by Gloo; they throw.
  c10::intrusive_ptr<c10d::Store> clone() override;
  int64_t add(const std::string& key, int64_t value) override;
  bool deleteKey(const std::string& key) override;
  bool check(const std::vector<std::string>& keys) override;
  int64_t getNumKeys() override;

  // The first failure of the rendezvous.
  absl::Status status() const;

 private:
  std::string GetOrThrow(const std::string& key);
  void ThrowUnlessOk(const absl::Status& status);

  Rendezvous* const rendezvous_;
  const absl::Time deadline_;
  mutable absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_GLOO_STORE_H_
