#include "client/cli/format.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace gpipe::client {
namespace {

TEST(Format, BytesCountsAndTimesReadLikeAPersonWouldSayThem) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(3 << 20), "3.0 MiB");
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(2098176), "2,098,176");
  EXPECT_EQ(FormatCount(-1000), "-1,000");
  EXPECT_EQ(FormatCount(-100), "-100");
  EXPECT_EQ(FormatClock(absl::Seconds(7)), "0:07");
  EXPECT_EQ(FormatClock(absl::Seconds(3723)), "1:02:03");
  EXPECT_EQ(FormatClock(absl::Seconds(-3)), "0:00");
  EXPECT_EQ(FormatSeconds(absl::Milliseconds(420)), "0.42 s");
  EXPECT_EQ(FormatSeconds(absl::Seconds(754)), "12:34");
  EXPECT_EQ(FormatShortTime(0), "0 us");
  EXPECT_EQ(FormatShortTime(87.5e-6), "87.5 us");
  EXPECT_EQ(FormatShortTime(3.42e-3), "3.42 ms");
  EXPECT_EQ(FormatShortTime(0.42), "0.42 s");
}

TEST(Format, AShapeSaysWhereTheBatchIs) {
  Shape shape = BatchShape({8, 16});
  EXPECT_EQ(FormatShape(shape), "[B, 8, 16]");
  shape[0].set_per_sample(4);
  shape[1].set_per_sample(1);
  shape[0].set_fixed(1);
  shape[1].set_fixed(-2);
  EXPECT_EQ(FormatShape(shape), "[4 B + 1, B - 2, 16]");
  EXPECT_EQ(FormatShape(Shape()), "[]");
}

TEST(Format, AnUnsetTimeIsEmpty) { EXPECT_EQ(FormatTime(google::protobuf::Timestamp()), ""); }

TEST(Format, BarsAreFilledByShareAndNeverOverflow) {
  EXPECT_EQ(Bar(0, 4), "[....]");
  EXPECT_EQ(Bar(0.5, 4), "[##..]");
  EXPECT_EQ(Bar(1, 4), "[####]");
  EXPECT_EQ(Bar(7, 4), "[####]");
  EXPECT_EQ(Bar(-1, 4), "[....]");
  EXPECT_EQ(Bar(std::nan(""), 4), "[....]");
  EXPECT_EQ(Bar(std::numeric_limits<double>::infinity(), 4), "[####]");
}

TEST(Format, AnActivitySaysOnlyWhatApplies) {
  v1::Activity activity;
  activity.set_phase(v1::PHASE_BACKWARD);
  activity.set_step(12);
  activity.set_micro_batch(3);
  EXPECT_EQ(FormatActivity(activity), "backward step 12 micro-batch 3");
  activity.set_phase(v1::PHASE_OPTIMIZER);
  EXPECT_EQ(FormatActivity(activity), "optimizer step 12");
  activity.set_phase(v1::PHASE_JOINING);
  EXPECT_EQ(FormatActivity(activity), "joining");
}

TEST(Format, TablesAlignColumnsAndLeaveNoTrailingSpace) {
  Table table({"NAME", ">SIZE", "NOTE"});
  table.Add({"a", "5", ""});
  table.Add({"longer", "1234567", "x"});
  EXPECT_EQ(table.Render(),
            "NAME       SIZE  NOTE\n"
            "a             5\n"
            "longer  1234567  x\n");
}

}  // namespace
}  // namespace gpipe::client
