#include "worker/comm/gloo_store.h"

#include <c10/util/Exception.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace gpipe::worker {
namespace {

std::string FullKey(const std::string& key) { return absl::StrCat("gloo/", key); }

[[noreturn]] void ThrowUnused(const char* method) {
  C10_THROW_ERROR(NotImplementedError, absl::StrCat("the rendezvous has no ", method));
}

}  // namespace

void GlooStore::set(const std::string& key, const std::vector<uint8_t>& value) {
  ThrowUnlessOk(rendezvous_->Put(FullKey(key), std::string(value.begin(), value.end())));
}

std::vector<uint8_t> GlooStore::get(const std::string& key) {
  const std::string value = GetOrThrow(key);
  return std::vector<uint8_t>(value.begin(), value.end());
}

void GlooStore::wait(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) GetOrThrow(key);
}

void GlooStore::wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) { wait(keys); }

c10::intrusive_ptr<c10d::Store> GlooStore::clone() { ThrowUnused("clone"); }
int64_t GlooStore::add(const std::string& key, int64_t value) { ThrowUnused("add"); }
bool GlooStore::deleteKey(const std::string& key) { ThrowUnused("deleteKey"); }
bool GlooStore::check(const std::vector<std::string>& keys) { ThrowUnused("check"); }
int64_t GlooStore::getNumKeys() { ThrowUnused("getNumKeys"); }

absl::Status GlooStore::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

std::string GlooStore::GetOrThrow(const std::string& key) {
  const absl::Duration left = std::max(deadline_ - absl::Now(), absl::ZeroDuration());
  absl::StatusOr<std::string> value = rendezvous_->Get(FullKey(key), left);
  ThrowUnlessOk(value.status());
  return *std::move(value);
}

void GlooStore::ThrowUnlessOk(const absl::Status& status) {
  if (status.ok()) return;
  {
    absl::MutexLock lock(&mutex_);
    if (status_.ok()) status_ = status;
  }
  C10_THROW_ERROR(DistStoreError, status.ToString());
}

}  // namespace gpipe::worker
