#include "common/artifacts/hash_memory.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "common/artifacts/file_hash.h"
#include "common/file.h"
#include "gtest/gtest.h"

namespace gpipe {
namespace {

namespace fs = std::filesystem;

const std::string kHash(64, 'a');

class HashMemoryTest : public testing::Test {
 protected:
  HashMemoryTest() : folder_(*TemporaryFolder::Create("hash_memory_test")) {
    EXPECT_TRUE(WriteFileAtomically(Data(), "content").ok());
  }
  fs::path Data() const { return folder_.path() / "data.bin"; }
  fs::path File() const { return folder_.path() / "cache" / "hashes"; }
  // Long after the file was written.
  static absl::Time Later() { return absl::Now() + absl::Hours(1); }
  FileStamp Stamp() const { return *StampOf(Data()); }

  const TemporaryFolder folder_;
};

TEST_F(HashMemoryTest, RemembersOverProcesses) {
  HashMemory(File()).Remember(Data(), Stamp(), kHash, Later());
  EXPECT_EQ(HashMemory(File()).Find(Data(), Stamp()), kHash);
  EXPECT_EQ(HashMemory(File()).Find(folder_.path() / "." / "data.bin", Stamp()), kHash);
  EXPECT_EQ(HashMemory(File()).Find(folder_.path() / "other.bin", Stamp()), std::nullopt);
}

TEST_F(HashMemoryTest, AnyChangeOfTheFileMakesItUnknown) {
  HashMemory memory({});
  memory.Remember(Data(), Stamp(), kHash, Later());
  FileStamp stamp = Stamp();
  for (int64_t* number : {&stamp.size, &stamp.modified_nanos, &stamp.changed_nanos}) {
    ++*number;
    EXPECT_EQ(memory.Find(Data(), stamp), std::nullopt);
    --*number;
  }
  ++stamp.inode;
  EXPECT_EQ(memory.Find(Data(), stamp), std::nullopt);
  EXPECT_EQ(memory.Find(Data(), Stamp()), kHash);
}

// With the modification time put back, as `touch -r` and archivers do.
TEST_F(HashMemoryTest, AChangeWithTheOldTimeIsSeen) {
  HashMemory memory({});
  const FileStamp before = Stamp();
  memory.Remember(Data(), before, kHash, Later());
  struct stat info{};
  ASSERT_EQ(stat(Data().c_str(), &info), 0);
  while (Stamp().changed_nanos == before.changed_nanos) std::ofstream(Data()) << "CONTENT";
  const timespec times[] = {info.st_atim, info.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, Data().c_str(), times, 0), 0);
  ASSERT_EQ(Stamp().modified_nanos, before.modified_nanos);
  EXPECT_EQ(memory.Find(Data(), Stamp()), std::nullopt);
}

TEST_F(HashMemoryTest, AFileOfThisMomentIsNotKept) {
  HashMemory memory({});
  memory.Remember(Data(), Stamp(), kHash, absl::Now());
  EXPECT_EQ(memory.Find(Data(), Stamp()), std::nullopt);
}

TEST_F(HashMemoryTest, ADamagedFileIsNoFailure) {
  HashMemory(File()).Remember(Data(), Stamp(), kHash, Later());
  const std::string good = *ReadFile(File());
  for (const std::string& bad : {std::string(), std::string("gpipe hashes 2\n"), std::string(1000, '\xff'),
                                 good.substr(0, good.size() / 2), absl::StrReplaceAll(good, {{"aaaa", "xyz"}})}) {
    ASSERT_TRUE(WriteFileAtomically(File(), bad).ok());
    EXPECT_EQ(HashMemory(File()).Find(Data(), Stamp()), std::nullopt) << bad;
  }
  // One bad line costs one entry.
  ASSERT_TRUE(WriteFileAtomically(File(), absl::StrReplaceAll(good, {{"1\n", "1\nnonsense\n\n"}})).ok());
  EXPECT_EQ(HashMemory(File()).Find(Data(), Stamp()), kHash);
}

TEST_F(HashMemoryTest, KeepsABoundedNumberOfTheLastUsed) {
  const FileStamp stamp = Stamp();
  {
    HashMemory memory(File());
    for (int i = 0; i < 10'500; ++i) memory.Remember(absl::StrCat("/f", i), stamp, kHash, Later() + absl::Seconds(i));
  }
  const HashMemory memory(File());
  EXPECT_EQ(memory.Find("/f0", stamp), std::nullopt);
  EXPECT_EQ(memory.Find("/f10499", stamp), kHash);
  EXPECT_EQ(memory.Find("/f1000", stamp), kHash);
}

TEST_F(HashMemoryTest, AKnownFileIsNotRead) {
  HashMemory memory({});
  memory.Remember(Data(), Stamp(), kHash, Later());
  int reads = 0;
  TransferOptions options;
  options.on_progress = [&](const FileProgress&) { ++reads; };
  options.memory = &memory;
  EXPECT_EQ(HashFile(Data(), options)->ref.sha256(), kHash);
  EXPECT_EQ(reads, 0);
  options.memory = nullptr;
  EXPECT_NE(HashFile(Data(), options)->ref.sha256(), kHash);
  EXPECT_EQ(reads, 1);
}

TEST_F(HashMemoryTest, SeveralFilesAreHashedInTheirOrder) {
  std::vector<fs::path> paths;
  for (int i = 0; i < 20; ++i) {
    paths.push_back(folder_.path() / absl::StrCat("f", i));
    ASSERT_TRUE(WriteFileAtomically(paths.back(), std::string(i * 100'000, static_cast<char>('a' + i))).ok());
  }
  HashMemory memory({});
  memory.Remember(paths[3], *StampOf(paths[3]), kHash, Later());
  TransferOptions options;
  options.memory = &memory;
  int64_t last = 0;
  options.on_progress = [&](const FileProgress& progress) { last = progress.done; };
  const auto files = HashFiles(paths, options);
  ASSERT_TRUE(files.ok()) << files.status();
  for (size_t i = 0; i < paths.size(); ++i) {
    EXPECT_EQ((*files)[i].ref.sha256(), i == 3 ? kHash : HashFile(paths[i])->ref.sha256()) << i;
    EXPECT_EQ((*files)[i].ref.size(), static_cast<int64_t>(i) * 100'000);
  }
  EXPECT_EQ(last, 187 * 100'000);
  fs::remove(paths[7]);
  EXPECT_EQ(HashFiles(paths, options).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(HashFiles({}, options)->empty());
}

TEST_F(HashMemoryTest, AFileThatChangesWhileItIsReadIsNoContent) {
  TransferOptions options;
  options.on_progress = [&](const FileProgress& progress) {
    if (progress.done == progress.total) std::ofstream(Data(), std::ios::app) << "more";
  };
  EXPECT_EQ(HashFile(Data(), options).status().code(), absl::StatusCode::kAborted);
}

TEST_F(HashMemoryTest, TheFileIsWhereOtherProgramsKeepTheirs) {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const std::string before = cache == nullptr ? "" : cache;
  setenv("XDG_CACHE_HOME", "/somewhere", 1);
  EXPECT_EQ(HashMemory::DefaultFile(), "/somewhere/gpipe/hashes");
  setenv("XDG_CACHE_HOME", "relative", 1);
  EXPECT_NE(HashMemory::DefaultFile(), "relative/gpipe/hashes");
  cache == nullptr ? unsetenv("XDG_CACHE_HOME") : setenv("XDG_CACHE_HOME", before.c_str(), 1);
}

}  // namespace
}  // namespace gpipe
