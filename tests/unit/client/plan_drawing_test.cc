// Compares drawings with tests/golden/drawings/*.svg, byte for byte. GPIPE_UPDATE_GOLDEN=1 writes the files anew; look
// at them before you commit them.

#include "client/cli/plan_drawing.h"

#include <cstdlib>
#include <fstream>

#include "client/cli/plan_boxes.h"
#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/plans.h"
#include "tests/unit/paths.h"

namespace gpipe::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

void ExpectGolden(const std::string& name, const v1::PlanJobResponse& response) {
  const std::string path = SourceFolder() / "tests/golden/drawings" / (name + ".svg");
  const std::string drawn = DrawPlan(response);
  if (std::getenv("GPIPE_UPDATE_GOLDEN") != nullptr) std::ofstream(path, std::ios::binary) << drawn;
  EXPECT_EQ(drawn, ReadFile(path).value_or("")) << path;
}

TEST(PlanDrawing, OfAnExportedModelMatchesItsFile) { ExpectGolden("exported", ExportedPlan()); }

TEST(PlanDrawing, OfALayerListMatchesItsFile) { ExpectGolden("layers", LayerListPlan()); }

TEST(PlanDrawing, OfNothingIsADrawingToo) { EXPECT_THAT(DrawPlan({}), HasSubstr("0 stages")); }

TEST(PlanDrawing, NamesCannotBreakTheFile) {
  v1::PlanJobResponse response = ExportedPlan();
  response.mutable_plan()->mutable_layers(0)->set_kind("</text>&\"\x01");
  EXPECT_THAT(DrawPlan(response), HasSubstr("&lt;/text&gt;&amp;&quot;?"));
  EXPECT_THAT(DrawPlan(response), Not(HasSubstr("add_<1>")));
}

TEST(PlanDrawing, MoreValuesThanThereIsRoomForAreCounted) {
  v1::PlanJobResponse response = ExportedPlan();
  for (int i = 0; i < 9; ++i) AddEdge(*response.mutable_plan(), "crossing", 1, 2, 256);
  for (int i = 0; i < 9; ++i) AddEdge(*response.mutable_plan(), "skipping", 0, 2, 256);
  const std::string drawn = DrawPlan(response);
  EXPECT_THAT(drawn, HasSubstr(">7 more</text>"));
  EXPECT_THAT(drawn, HasSubstr(">7 more  28.0 KiB</text>"));
}

std::vector<std::vector<std::string>> LabelsOf(const v1::Plan& plan, size_t most) {
  std::vector<std::vector<std::string>> labels;
  for (const auto& boxes : BoxesOf(plan, most)) {
    labels.emplace_back();
    for (const PlanBox& box : boxes) labels.back().push_back(box.label + (box.part ? "*" : ""));
  }
  return labels;
}

TEST(PlanBoxes, ModulesAreGatheredUntilThereAreFewEnough) {
  const v1::Plan plan = ExportedPlan().plan();
  EXPECT_THAT(LabelsOf(plan, 12), ElementsAre(ElementsAre("wte", "h.0.attn.c_attn", "h.0.attn", "h.1.attn"),
                                              ElementsAre("h.1.mlp", "h.2.attn"), ElementsAre("norm", "head")));
  EXPECT_THAT(LabelsOf(plan, 3), ElementsAre(ElementsAre("wte", "h.0.attn", "h.1.attn"),
                                             ElementsAre("h.1.mlp", "h.2.attn"), ElementsAre("norm", "head")));
  // What would be one box in the second stage is told in detail.
  EXPECT_THAT(LabelsOf(plan, 2),
              ElementsAre(ElementsAre("wte", "h*"), ElementsAre("h.1.mlp", "h.2.attn"), ElementsAre("norm", "head")));
}

TEST(PlanBoxes, OfTooManyLayersTheMiddleIsOneBox) {
  const auto boxes = BoxesOf(LayerListPlan().plan(), 5);
  ASSERT_EQ(boxes[0].size(), 5u);
  EXPECT_EQ(boxes[0][2].label, "... 12 more");
  EXPECT_EQ(boxes[0][2].parameters, 6000);
  EXPECT_EQ(boxes[1].size(), 4u);
}

}  // namespace
}  // namespace gpipe::client
