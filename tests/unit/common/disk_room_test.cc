#include "common/artifacts/disk_room.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <limits>

#include "common/file.h"

namespace gpipe {
namespace {

TEST(DiskRoomTest, WhatDoesNotFitIsRefusedWithTheNumbers) {
  const TemporaryFolder folder = *TemporaryFolder::Create("room");
  EXPECT_TRUE(CheckRoom(folder.path(), 1).ok());
  const absl::Status refused = CheckRoom(folder.path(), std::numeric_limits<int64_t>::max());
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("stay for the database"));
}

TEST(DiskRoomTest, TheDatabasesRoomIsLeftOut) {
  const TemporaryFolder folder = *TemporaryFolder::Create("room");
  const auto space = std::filesystem::space(folder.path());
  EXPECT_FALSE(CheckRoom(folder.path(), static_cast<int64_t>(space.available) - 1).ok());
}

TEST(DiskRoomTest, TakenRoomBelongsToTheFileWhoseSizeStays) {
  const TemporaryFolder folder = *TemporaryFolder::Create("room");
  const std::filesystem::path path = folder.path() / "file";
  const int fd = open(path.c_str(), O_CREAT | O_WRONLY, 0600);
  ASSERT_GE(fd, 0);
  EXPECT_TRUE(TakeRoom(fd, path, 1 << 20).ok());
  struct stat info{};
  ASSERT_EQ(fstat(fd, &info), 0);
  EXPECT_EQ(info.st_size, 0);
  close(fd);
}

}  // namespace
}  // namespace gpipe
