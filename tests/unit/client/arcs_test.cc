#include "client/cli/arcs.h"

#include "gtest/gtest.h"

namespace gpipe::client {
namespace {

TEST(Arcs, ShorterOnesLieInsideOfLongerOnes) {
  const Lanes lanes = LanesOf({{0, 4, 1}, {0, 2, 1}, {2, 4, 2}}, 10);
  EXPECT_EQ(lanes.offset[1], lanes.offset[2]) << "they only touch";
  EXPECT_EQ(lanes.offset[0] - lanes.offset[1], 16 + 2 * 10) << "above the lane's two lines";
  EXPECT_EQ(lanes.height, lanes.offset[0] + 10);
}

TEST(Arcs, ThoseThatCrossHaveLanesOfTheirOwn) {
  const Lanes lanes = LanesOf({{0, 2, 1}, {1, 3, 1}}, 10);
  EXPECT_NE(lanes.offset[0], lanes.offset[1]);
}

TEST(Arcs, OuterOnesLeaveAndArriveFurtherOutside) {
  const std::vector<Arc> arcs = {{0, 2, 1}, {0, 3, 1}, {1, 3, 1}};
  const std::vector<Port> ports = PortsOf(arcs, LanesOf(arcs, 10));
  EXPECT_LT(ports[1].from, ports[0].from);
  EXPECT_GT(ports[1].to, ports[2].to);
}

TEST(Arcs, WithoutAnyThereIsNoRoomForThem) { EXPECT_EQ(LanesOf({}, 10).height, 0); }

TEST(Arcs, PathsGoUpOverAndDown) {
  EXPECT_EQ(ArcPath(10, 100, 50, 20), "M10,50 V30 Q10,20 20,20 H90 Q100,20 100,30 V50");
}

}  // namespace
}  // namespace gpipe::client
