// What an archive says of its program's values, against what a run of the program shows.

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "common/field_error.h"
#include "tests/unit/worker/golden_archives.h"
#include "worker/data/tensor_file.h"
#include "worker/exported/graph_layer.h"
#include "worker/exported/value_table.h"

namespace gpipe::worker {
namespace {

using ::testing::HasSubstr;

v1::ModelValue DataOf(const exported::UserInput& input, const at::Tensor& tensor) {
  v1::ModelValue data;
  data.set_name(input.name);
  *data.mutable_shape() = BatchShape(tensor.sizes().slice(1).vec());
  data.set_dtype(ToDataType(tensor.scalar_type()));
  return data;
}

class ExportedValuesTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    archive_ = OpenGoldenArchive(GetParam());
    ASSERT_NE(archive_, nullptr);
    auto units = Units::Find(*archive_);
    ASSERT_TRUE(units.ok()) << units.status();
    units_.emplace(*std::move(units));
    file_ = OpenGoldenTensors(GetParam());
    ASSERT_NE(file_, nullptr);
    for (const exported::UserInput& input : archive_->program().user_inputs) {
      inputs_.push_back(file_->Get("input." + input.name).value().clone());
      data_.push_back(DataOf(input, inputs_.back()));
    }
  }

  // Everything that crosses a cut.
  std::vector<std::string> CrossingValues() const {
    std::set<std::string> names;
    size_t first = 0;
    for (const size_t end : units_->cuts()) {
      const GraphLayer::Part part = units_->PartOf(std::exchange(first, end), end, {});
      names.insert(part.leaving.begin(), part.leaving.end());
    }
    return {names.begin(), names.end()};
  }

  std::vector<at::Tensor> RunWhole(const std::vector<std::string>& values) const {
    GraphLayer::Part part = units_->PartOf(0, archive_->program().graph.nodes.size(), values);
    part.entering.clear();
    for (const exported::UserInput& input : archive_->program().user_inputs) part.entering.push_back(input.value);
    const auto layer = GraphLayer::Create(*archive_, part, {});
    EXPECT_TRUE(layer.ok()) << layer.status();
    for (const LayerTensor& entry : (*layer)->tensors()) entry.tensor.set_requires_grad(entry.parameter);
    return (*layer)->Forward({.training = true}, inputs_);
  }

  std::unique_ptr<Archive> archive_;
  std::unique_ptr<TensorFile> file_;
  std::optional<Units> units_;
  std::vector<at::Tensor> inputs_;
  std::vector<v1::ModelValue> data_;
};

TEST_P(ExportedValuesTest, TheArchiveSaysWhatARunShows) {
  const auto table = ValueTable::Create(*archive_, *units_, data_, {}, "train.dataset.inputs");
  ASSERT_TRUE(table.ok()) << table.status();
  const std::vector<std::string> values = CrossingValues();
  const std::vector<at::Tensor> run = RunWhole(values);
  for (size_t i = 0; i < values.size(); ++i) {
    SCOPED_TRACE(values[i]);
    if (!table->CanDescribe(values[i])) continue;
    const v1::ModelValue said = table->Describe(values[i]);
    EXPECT_EQ(SizesFor(said.shape(), inputs_.front().size(0)), run[i].sizes().vec());
    EXPECT_EQ(said.dtype(), ToDataType(run[i].scalar_type()));
    EXPECT_EQ(FromField(said.dimension_order()), OrderOf(run[i].sizes(), run[i].strides()));
    EXPECT_TRUE(said.requires_grad() || !run[i].requires_grad()) << "its gradient would be lost";
    EXPECT_EQ(table->Meta(values[i], 7).sizes().vec(), SizesFor(said.shape(), 7));
  }
}

TEST_P(ExportedValuesTest, WithoutTrainedParametersNothingHasAGradient) {
  const std::vector<std::string> all = {""};  // Every name begins with it.
  const auto table = ValueTable::Create(*archive_, *units_, data_, all, "train.dataset.inputs");
  ASSERT_TRUE(table.ok()) << table.status();
  for (const std::string& value : CrossingValues()) {
    if (!table->CanDescribe(value)) continue;
    EXPECT_FALSE(table->Describe(value).requires_grad()) << value;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, ExportedValuesTest, ::testing::ValuesIn(GoldenArchives()),
                         [](const auto& info) { return info.param; });

exported::Node NodeWith(std::vector<exported::Graph> regions) {
  exported::Node node;
  for (exported::Graph& region : regions) {
    node.inputs.push_back({"", {std::make_shared<const exported::Graph>(std::move(region))}});
  }
  return node;
}

exported::Graph GraphOf(std::vector<exported::Node> nodes) {
  exported::Graph graph;
  graph.nodes = std::move(nodes);
  return graph;
}

// A recorded forward can only go ahead in the random numbers.
TEST(PlacesOf, AscendThroughRegionsWithinRegions) {
  const exported::Graph inner = GraphOf({NodeWith({}), NodeWith({})});
  const exported::Graph region = GraphOf({NodeWith({}), NodeWith({inner}), NodeWith({})});
  const exported::Graph whole = GraphOf({NodeWith({}), NodeWith({region}), NodeWith({region, inner}), NodeWith({})});
  EXPECT_THAT(PlacesOf(region, 2), testing::ElementsAre(2, 3, 6));
  EXPECT_THAT(PlacesOf(whole, 0), testing::ElementsAre(0, 1, 7, 15));
  EXPECT_THAT(PlacesOf(GraphOf({NodeWith({}), NodeWith({})}), 0), testing::ElementsAre(0, 1));
}

}  // namespace
}  // namespace gpipe::worker
