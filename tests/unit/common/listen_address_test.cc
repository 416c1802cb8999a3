#include "common/listen_address.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

absl::Status Check(const std::string& listen) {
  return CheckListenAddress("--listen", listen, /*encrypted=*/false, /*insecure=*/false);
}

TEST(ListenAddressTest, OnlyLoopbackInPlainText) {
  EXPECT_TRUE(Check("127.0.0.1:0").ok());
  EXPECT_TRUE(Check("localhost:7070").ok());
  for (const char* bad : {"0.0.0.0:7070", "10.0.0.1:1", "127.0.0.1", ":1", "localhost:x", "localhost:70000", ""}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Check(bad))) << bad;
  }
  EXPECT_THAT(std::string(Check("0.0.0.0:1").message()),
              AllOf(HasSubstr("--listen"), HasSubstr("--insecure"), HasSubstr("--tls-ca")));
}

TEST(ListenAddressTest, AnyWhereEncryptedOrInsecure) {
  EXPECT_TRUE(CheckListenAddress("--listen", "0.0.0.0:7070", /*encrypted=*/true, /*insecure=*/false).ok());
  EXPECT_TRUE(CheckListenAddress("--listen", "0.0.0.0:7070", /*encrypted=*/false, /*insecure=*/true).ok());
  EXPECT_FALSE(CheckListenAddress("--listen", "0.0.0.0", /*encrypted=*/true, /*insecure=*/false).ok());
  EXPECT_FALSE(CheckListenAddress("--listen", "0.0.0.0:7070", /*encrypted=*/true, /*insecure=*/true).ok());
}

}  // namespace
}  // namespace gpipe
