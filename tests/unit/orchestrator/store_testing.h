#ifndef GPIPE_TESTS_UNIT_ORCHESTRATOR_STORE_TESTING_H_
#define GPIPE_TESTS_UNIT_ORCHESTRATOR_STORE_TESTING_H_

#include <memory>
#include <string>

#include "common/file.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "google/protobuf/util/time_util.h"
#include "gtest/gtest.h"
#include "orchestrator/jobs/store.h"

namespace gpipe::orchestrator {

MATCHER_P(IsCode, code, "") { return arg.code() == code; }

inline v1::ArtifactRef MakeRef(char digit, int64_t size) {
  v1::ArtifactRef ref;
  ref.set_sha256(std::string(64, digit));
  ref.set_size(size);
  return ref;
}

inline StoredJob MakeJob(const std::string& id, const std::string& request_id = "") {
  StoredJob stored;
  stored.job.set_id(id);
  stored.job.mutable_spec()->set_name("name of " + id);
  stored.job.set_state(v1::Job::STATE_QUEUED);
  *stored.job.mutable_create_time() = google::protobuf::util::TimeUtil::SecondsToTimestamp(1700000000);
  stored.request_id = request_id;
  stored.fingerprint = "f";
  return stored;
}

inline CheckpointFiles MakeCheckpoint(int64_t step) {
  return CheckpointFiles{.step = step,
                         .manifest = MakeRef('a', 1),
                         .files = {{"model.safetensors", MakeRef('b', 2)}, {"optimizer.safetensors", MakeRef('c', 3)}}};
}

inline bool Same(const google::protobuf::Message& a, const google::protobuf::Message& b) {
  return google::protobuf::util::MessageDifferencer::Equals(a, b);
}

// A store in a folder of its own.
class StoreTest : public testing::Test {
 protected:
  StoreTest() : folder_(*TemporaryFolder::Create("store_test")) { Reopen(); }

  void Reopen() {
    store_.reset();
    auto store = Store::Open(folder_.path());
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  void Insert(const StoredJob& job) {
    auto inserted = store_->InsertJob(job);
    ASSERT_TRUE(inserted.ok()) << inserted.status();
    ASSERT_TRUE(inserted->created);
  }

  TemporaryFolder folder_;
  std::unique_ptr<Store> store_;
};

}  // namespace gpipe::orchestrator

#endif  // GPIPE_TESTS_UNIT_ORCHESTRATOR_STORE_TESTING_H_
