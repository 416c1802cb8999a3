#include "common/artifacts/local_store.h"

#include <fstream>
#include <string>

#include "common/artifacts/layout.h"
#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class LocalStoreTest : public testing::Test {
 protected:
  LocalStoreTest() : folder_(*TemporaryFolder::Create("local_store_test")) {
    EXPECT_TRUE(WriteFileAtomically(Data(), "content").ok());
    file_ = *HashFile(Data());
  }
  // A name with everything that a name may have.
  fs::path Data() const { return folder_.path() / "my data\n\xff.bin"; }
  fs::path Store() const { return folder_.path() / "artifacts"; }
  absl::StatusOr<fs::path> Find() const { return FindArtifact(Store(), file_.ref); }

  const TemporaryFolder folder_;
  HashedFile file_;
};

TEST_F(LocalStoreTest, AFileIsFoundWhereItIs) {
  EXPECT_EQ(Find().status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(ReferToFile(Store(), file_, Data()).ok());
  const auto found = Find();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(*found, Data());
  EXPECT_TRUE(CheckReferences(Store()).ok());
}

TEST_F(LocalStoreTest, TheStoresOwnContentComesFirst) {
  ASSERT_TRUE(ReferToFile(Store(), file_, Data()).ok());
  const fs::path own = ArtifactPath(Store(), file_.ref.sha256());
  ASSERT_TRUE(WriteFileAtomically(own, "content").ok());
  EXPECT_EQ(*Find(), own);
}

TEST_F(LocalStoreTest, AFileThatWasWrittenToIsRefusedByName) {
  ASSERT_TRUE(ReferToFile(Store(), file_, Data()).ok());
  std::ofstream(Data(), std::ios::app) << "more";
  for (const absl::Status& status : {Find().status(), CheckReferences(Store())}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr(Data().string() + " was changed after it was submitted"));
  }
}

TEST_F(LocalStoreTest, AFileThatWasReplacedOrRemovedIsRefusedByName) {
  ASSERT_TRUE(ReferToFile(Store(), file_, Data()).ok());
  ASSERT_TRUE(WriteFileAtomically(Data(), "CONTENT").ok());
  EXPECT_EQ(Find().status().code(), absl::StatusCode::kFailedPrecondition);
  fs::remove(Data());
  EXPECT_EQ(Find().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(Find().status().message()), HasSubstr(Data().string()));
  // Given again it is good again.
  ASSERT_TRUE(WriteFileAtomically(Data(), "content").ok());
  ASSERT_TRUE(ReferToFile(Store(), *HashFile(Data()), Data()).ok());
  EXPECT_TRUE(Find().ok());
}

TEST_F(LocalStoreTest, ADamagedReferenceIsDataLoss) {
  ASSERT_TRUE(ReferToFile(Store(), file_, Data()).ok());
  const fs::path record = ArtifactPath(Store(), file_.ref.sha256()).concat(".ref");
  for (const char* damaged : {"", "gpipe reference 1\n12 x", "gpipe reference 2\n1 2 3 4 /x"}) {
    ASSERT_TRUE(WriteFileAtomically(record, damaged).ok());
    EXPECT_EQ(Find().status().code(), absl::StatusCode::kDataLoss) << damaged;
  }
}

TEST_F(LocalStoreTest, ADigestThatIsNoneMakesNoPath) {
  v1::ArtifactRef ref;
  ref.set_sha256("../../../etc/passwd");
  EXPECT_EQ(FindArtifact(Store(), ref).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gpipe
