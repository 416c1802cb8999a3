#include <thread>

#include "common/artifacts/parts.h"
#include "tests/unit/orchestrator/artifact_testing.h"

namespace gpipe::orchestrator {
namespace {

using absl::StatusCode;
using testing::HasSubstr;

class ArtifactStoreTest : public ArtifactTest {};

TEST_F(ArtifactStoreTest, WhatWasCommittedInPiecesIsThereAfterReopening) {
  v1::ArtifactRef ref = RefOf("hello world");
  auto writer = store_->Begin(ref);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Append("hello ").ok());
  ASSERT_TRUE(writer->Append("world").ok());
  EXPECT_FALSE(store_->Has(ref));
  ASSERT_TRUE(writer->Commit().ok());
  Reopen({});
  EXPECT_TRUE(store_->Has(ref));
  EXPECT_EQ(Content(ref), "hello world");
  EXPECT_EQ(*store_->Path(ref), folder_.path() / "artifacts" / ref.sha256().substr(0, 2) / ref.sha256());
}

TEST_F(ArtifactStoreTest, AnEmptyFileIsAFile) {
  v1::ArtifactRef ref = Put("");
  EXPECT_TRUE(store_->Has(ref));
  EXPECT_EQ(Content(ref), "");
}

TEST_F(ArtifactStoreTest, UnknownContentIsNotFound) {
  EXPECT_FALSE(store_->Has(RefOf("x")));
  EXPECT_THAT(store_->Path(RefOf("x")).status(), HasCode(StatusCode::kNotFound));
}

TEST_F(ArtifactStoreTest, AKnownDigestWithAnotherSizeIsNotFound) {
  v1::ArtifactRef ref = Put("hello");
  ref.set_size(4);
  EXPECT_FALSE(store_->Has(ref));
}

TEST_F(ArtifactStoreTest, DigestsThatCouldLeaveTheFolderAreRefused) {
  for (std::string digest : {std::string(), std::string("../../../etc/passwd"), std::string(64, 'A'),
                             "../" + std::string(61, 'a'), std::string(65, 'a'), std::string(63, 'a') + "/"}) {
    v1::ArtifactRef ref;
    ref.set_sha256(digest);
    EXPECT_FALSE(store_->Has(ref));
    EXPECT_THAT(store_->Path(ref).status(), HasCode(StatusCode::kInvalidArgument)) << digest;
    EXPECT_THAT(store_->Begin(ref).status(), HasCode(StatusCode::kInvalidArgument)) << digest;
  }
}

TEST_F(ArtifactStoreTest, ANegativeSizeIsRefused) {
  v1::ArtifactRef ref = RefOf("x");
  ref.set_size(-1);
  EXPECT_THAT(store_->Begin(ref).status(), HasCode(StatusCode::kInvalidArgument));
}

TEST_F(ArtifactStoreTest, OtherBytesThanAnnouncedAreDataLossAndLeaveNothing) {
  v1::ArtifactRef ref = RefOf("hello");
  {
    auto writer = store_->Begin(ref);
    ASSERT_TRUE(writer->Append("hell0").ok());
    EXPECT_THAT(writer->Commit(), HasCode(StatusCode::kDataLoss));
  }
  EXPECT_FALSE(store_->Has(ref));
  EXPECT_EQ(CountFiles(), 0);
}

TEST_F(ArtifactStoreTest, FewerBytesThanAnnouncedAreDataLoss) {
  auto writer = store_->Begin(RefOf("hello"));
  ASSERT_TRUE(writer->Append("hell").ok());
  absl::Status status = writer->Commit();
  EXPECT_THAT(status, HasCode(StatusCode::kDataLoss));
  EXPECT_THAT(std::string(status.message()), HasSubstr("4 bytes instead of the 5"));
}

TEST_F(ArtifactStoreTest, MoreBytesThanAnnouncedAreNotWritten) {
  auto writer = store_->Begin(RefOf("hello"));
  ASSERT_TRUE(writer->Append("hello").ok());
  EXPECT_THAT(writer->Append("!"), HasCode(StatusCode::kDataLoss));
}

TEST_F(ArtifactStoreTest, AnAbandonedUploadLeavesNothing) {
  {
    ASSERT_TRUE(store_->Begin(RefOf("hello"))->Append("hel").ok());
  }
  EXPECT_EQ(CountFiles(), 0);
}

TEST_F(ArtifactStoreTest, AFileOverTheLimitIsRefusedBeforeItIsSent) {
  Reopen({.max_artifact_bytes = 4});
  EXPECT_THAT(store_->Begin(RefOf("hello")).status(), HasCode(StatusCode::kResourceExhausted));
  EXPECT_THAT(store_->Put("hello").status(), HasCode(StatusCode::kResourceExhausted));
  EXPECT_TRUE(store_->Put("hell").ok());
}

TEST_F(ArtifactStoreTest, LeftoversAreRemovedAtTheStartAndContentIsKept) {
  v1::ArtifactRef ref = Put("kept");
  std::filesystem::path half_written = store_->Path(ref)->string() + ".tmp-abcdef";
  ASSERT_TRUE(WriteFileAtomically(half_written, "half").ok());
  ASSERT_TRUE(WriteFileAtomically(store_->TemporaryPath(), "forgotten").ok());
  EXPECT_EQ(CountFiles(), 3);
  Reopen({});
  EXPECT_EQ(CountFiles(), 1);
  EXPECT_EQ(Content(ref), "kept");
}

TEST_F(ArtifactStoreTest, ContentGoesUnlessItWasClaimedSince) {
  const v1::ArtifactRef ref = Put("hello");
  const absl::Time put = store_->Now();
  EXPECT_TRUE(store_->Claim(ref).ok());
  store_->Remove(ref, put);
  EXPECT_TRUE(store_->Has(ref));
  store_->Remove(ref, store_->Now());
  EXPECT_FALSE(store_->Has(ref));
  EXPECT_THAT(store_->Claim(ref).status(), HasCode(StatusCode::kNotFound));
}

TEST_F(ArtifactStoreTest, NothingGoesWhileABackupIsTaken) {
  const v1::ArtifactRef ref = Put("hello");
  {
    const ArtifactStore::Keep keep(store_.get());
    const ArtifactStore::Keep another(store_.get());
    store_->Remove(ref, store_->Now());
    EXPECT_TRUE(store_->Has(ref));
  }
  store_->Remove(ref, store_->Now());
  EXPECT_FALSE(store_->Has(ref));
}

// It was asked for, was not there, and is on its way.
TEST_F(ArtifactStoreTest, WhatIsMissingCanBeClaimedToo) {
  const absl::Time before = store_->Now();
  EXPECT_FALSE(store_->Claim(RefOf("hello")).ok());
  Put("hello");
  store_->Remove(RefOf("hello"), before);
  EXPECT_TRUE(store_->Has(RefOf("hello")));
}

TEST_F(ArtifactStoreTest, OnlyWhatIsOldAndUnclaimedIsFoundAsThat) {
  const v1::ArtifactRef old = Put("old");
  Put("fresh");
  const auto long_ago = absl::ToChronoHours(ArtifactStore::kClaimLasts) + std::chrono::hours(1);
  std::filesystem::last_write_time(*store_->Path(old), std::filesystem::file_time_type::clock::now() - long_ago);
  EXPECT_TRUE(store_->Claim(old).ok());
  EXPECT_TRUE(store_->Unclaimed().empty());
  Reopen({});  // Which forgets claims.
  const auto unclaimed = store_->Unclaimed();
  ASSERT_EQ(unclaimed.size(), 1u);
  EXPECT_EQ(unclaimed[0].sha256(), old.sha256());
  EXPECT_EQ(unclaimed[0].size(), old.size());
}

TEST_F(ArtifactStoreTest, DamagedContentGoesAndCanBeGivenAgain) {
  const v1::ArtifactRef ref = Put("hello"), other = Put("other");
  ASSERT_TRUE(WriteFileAtomically(*store_->Path(ref), "hellO").ok());
  EXPECT_FALSE(store_->RemoveIfDamaged(other));
  EXPECT_TRUE(store_->RemoveIfDamaged(ref));
  EXPECT_FALSE(store_->Has(ref));
  EXPECT_FALSE(store_->RemoveIfDamaged(ref));
  EXPECT_EQ(Content(Put("hello")), "hello");
}

TEST_F(ArtifactStoreTest, APartIsNoArtifact) {
  v1::AttemptId attempt;
  attempt.set_job("job");
  attempt.set_attempt(1);
  const v1::ArtifactRef ref = RefOf("part");
  auto writer = store_->BeginPart(MakePartOf(attempt, 7), ref);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Append("part").ok());
  ASSERT_TRUE(writer->Commit().ok());
  EXPECT_FALSE(store_->Has(ref));
  EXPECT_EQ(*ReadFile(PartFolder(store_->folder(), MakePartOf(attempt, 7)) / ref.sha256()), "part");
  for (const char* job : {"", "..", "../job", "a/b"}) {
    attempt.set_job(job);
    EXPECT_THAT(store_->BeginPart(MakePartOf(attempt), ref).status(), HasCode(StatusCode::kInvalidArgument)) << job;
  }
}

TEST_F(ArtifactStoreTest, AdoptMovesAFileIn) {
  std::filesystem::path path = store_->TemporaryPath();
  ASSERT_TRUE(WriteFileAtomically(path, "made here").ok());
  const v1::ArtifactRef ref = RefOf("made here");
  ASSERT_TRUE(store_->Adopt(path, ref).ok());
  EXPECT_EQ(Content(ref), "made here");
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(ArtifactStoreTest, AdoptOfKnownContentKeepsOne) {
  v1::ArtifactRef known = Put("twice");
  std::filesystem::path path = store_->TemporaryPath();
  ASSERT_TRUE(WriteFileAtomically(path, "twice").ok());
  ASSERT_TRUE(store_->Adopt(path, known).ok());
  EXPECT_EQ(CountFiles(), 1);
  EXPECT_EQ(Content(known), "twice");
}

TEST_F(ArtifactStoreTest, AdoptAcrossFileSystemsCopies) {
  std::filesystem::path path = std::filesystem::path("/dev/shm") / folder_.path().filename();
  const std::string content(3 << 20, 'x');
  ASSERT_TRUE(WriteFileAtomically(path, content).ok());
  ASSERT_TRUE(store_->Adopt(path, RefOf(content)).ok());
  EXPECT_EQ(Content(RefOf(content)).size(), content.size());
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(ArtifactStoreTest, AdoptOfNoFileIsNotFound) {
  EXPECT_THAT(store_->Adopt(folder_.path() / "none", RefOf("none")), HasCode(StatusCode::kNotFound));
}

TEST_F(ArtifactStoreTest, ManyThreadsMayStoreTheSameContent) {
  const std::string content(100000, 'x');
  std::vector<std::jthread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      EXPECT_TRUE(store_->Put(content).ok());
      EXPECT_TRUE(store_->Put("own " + std::to_string(i)).ok());
    });
  }
  threads.clear();
  EXPECT_EQ(Content(RefOf(content)), content);
  EXPECT_EQ(CountFiles(), 9);
}

}  // namespace
}  // namespace gpipe::orchestrator
