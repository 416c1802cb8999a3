#include "worker/data/data_source.h"

#include <ATen/ATen.h>

#include "common/file.h"
#include "common/plan/shape.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/data/output_file.h"
#include "worker/data/tensor_file.h"

namespace gpipe::worker {
namespace {

using pipeline::Round;
using pipeline::RoundKind;

const DataRole kBoth = {{{0, "input"}}, true};

v1::JobSpec RandomSpec(int64_t samples, bool shuffle) {
  v1::JobSpec spec;
  v1::RandomDataset& random = *spec.mutable_train()->mutable_dataset()->mutable_random();
  random.set_samples(samples);
  random.add_input_shape(3);
  random.add_input_shape(2);
  random.set_classes(7);
  random.set_seed(41);
  spec.mutable_train()->set_shuffle(shuffle);
  spec.mutable_train()->set_seed(4);
  return spec;
}

absl::StatusOr<std::filesystem::path> NoFiles(const std::string& path) { return absl::NotFoundError(path); }

std::unique_ptr<DataSource> Make(const v1::JobSpec& spec, const DataRole& role = kBoth) {
  return *DataSource::Create(spec, NoFiles, role, c10::kCPU);
}

Round TrainRound(int64_t epoch, int64_t first, int64_t size) {
  Round round;
  round.epoch = epoch;
  round.first_sample = first;
  round.batch_size = size;
  return round;
}

TEST(DataSource, MadeUpSamplesAreTorchsFromTheSameGenerators) {
  auto source = Make(RandomSpec(10, false));
  const Batch batch = *source->Read(TrainRound(0, 0, 10));
  const at::Tensor inputs = at::randn({10, 3, 2}, at::detail::createCPUGenerator(41), at::kFloat);
  const at::Tensor targets = at::randint(7, {10}, at::detail::createCPUGenerator(42), at::kLong);
  EXPECT_TRUE(at::equal(batch.inputs.at("input"), inputs));
  EXPECT_TRUE(at::equal(batch.target, targets));
}

TEST(DataSource, WithoutShuffleSamplesComeInOrderAndTheLastBatchMayBeSmaller) {
  auto source = Make(RandomSpec(10, false));
  const Batch all = *source->Read(TrainRound(0, 0, 10));
  const Batch last = *source->Read(TrainRound(3, 8, 2));
  EXPECT_TRUE(at::equal(last.inputs.at("input"), all.inputs.at("input").narrow(0, 8, 2)));
  EXPECT_TRUE(at::equal(last.target, all.target.narrow(0, 8, 2)));
}

TEST(DataSource, AnEpochVisitsEachSampleOnceInAnOrderOfItsOwn) {
  const at::Tensor order = EpochOrder(100, 4, 0);
  EXPECT_TRUE(at::equal(std::get<0>(order.sort()), at::arange(100)));
  EXPECT_FALSE(at::equal(order, at::arange(100)));
  EXPECT_FALSE(at::equal(order, EpochOrder(100, 4, 1)));
  EXPECT_FALSE(at::equal(order, EpochOrder(100, 5, 0)));
  EXPECT_TRUE(at::equal(order, EpochOrder(100, 4, 0)));
}

TEST(DataSource, WorkersOfFirstAndLastStageShuffleAlike) {
  auto first = Make(RandomSpec(10, true), {.inputs = {{0, "input"}}, .targets = false});
  auto last = Make(RandomSpec(10, true), {.inputs = {}, .targets = true});
  auto both = Make(RandomSpec(10, true));
  for (int64_t epoch : {0, 1, 0}) {
    const Round round = TrainRound(epoch, 4, 4);
    const Batch input = *first->Read(round), target = *last->Read(round), batch = *both->Read(round);
    EXPECT_FALSE(input.target.defined() || !target.inputs.empty());
    EXPECT_TRUE(at::equal(input.inputs.at("input"), batch.inputs.at("input")));
    EXPECT_TRUE(at::equal(target.target, batch.target));
  }
}

TEST(DataSource, EvaluationIsNeverShuffled) {
  v1::JobSpec spec = RandomSpec(10, true);
  *spec.mutable_train()->mutable_evaluate()->mutable_dataset() = spec.train().dataset();
  auto source = Make(spec);
  Round round = TrainRound(0, 0, 10);
  round.kind = RoundKind::kEvaluate;
  EXPECT_TRUE(at::equal(source->Read(round)->inputs.at("input"),
                        at::randn({10, 3, 2}, at::detail::createCPUGenerator(41), at::kFloat)));
}

TEST(DataSource, MoreSamplesThanThereAreIsOutOfRange) {
  auto source = Make(RandomSpec(10, false));
  EXPECT_EQ(source->Read(TrainRound(0, 8, 3)).status().code(), absl::StatusCode::kOutOfRange);
}

TEST(DataSource, ReadsNamedTensorsOfAFile) {
  const TemporaryFolder folder = *TemporaryFolder::Create("data-source-test");
  const std::filesystem::path path = folder.path() / "d.safetensors";
  const at::Tensor x = at::arange(12, at::kFloat).reshape({6, 2}), y = at::arange(6);
  ASSERT_TRUE(WriteTensorFile(path, {{"x", 0, x, false}, {"y", 0, y, false}}).ok());
  v1::JobSpec spec;
  v1::Dataset& dataset = *spec.mutable_train()->mutable_dataset();
  dataset.set_path("d.safetensors");
  dataset.add_inputs("x");
  dataset.set_target("y");
  auto files = [&](const std::string& name) -> absl::StatusOr<std::filesystem::path> { return folder.path() / name; };
  auto source = *DataSource::Create(spec, files, kBoth, c10::kCPU);
  const Batch batch = *source->Read(TrainRound(0, 4, 2));
  EXPECT_TRUE(at::equal(batch.inputs.at("input"), x.narrow(0, 4, 2)));
  EXPECT_TRUE(at::equal(batch.target, y.narrow(0, 4, 2)));

  dataset.set_target("nothing");
  const absl::Status missing = DataSource::Create(spec, files, kBoth, c10::kCPU).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), testing::HasSubstr("nothing"));
}

void AddOutput(const std::string& name, const std::vector<int64_t>& sample, v1::DataType dtype, v1::LayerInfo& last) {
  v1::ModelValue& output = *last.add_outputs();
  output.set_name(name);
  *output.mutable_shape() = BatchShape(sample);
  output.set_dtype(dtype);
}

TEST(OutputFile, HoldsAllRowsInOrderOnceCommitted) {
  const TemporaryFolder folder = *TemporaryFolder::Create("output-file-test");
  const std::filesystem::path path = folder.path() / "outputs.safetensors";
  v1::LayerInfo last;
  AddOutput("logits", {2}, v1::DATA_TYPE_FLOAT32, last);
  AddOutput("class", {}, v1::DATA_TYPE_INT64, last);
  absl::StatusOr<OutputFile> file = OutputFile::Create(path, last.outputs(), 5);
  ASSERT_TRUE(file.ok()) << file.status();
  const at::Tensor logits = at::arange(10, at::kFloat).reshape({5, 2}), classes = at::arange(5, at::kLong);
  const auto append = [&](int64_t first, int64_t count) {
    return file->Append({{"logits", logits.narrow(0, first, count)}, {"class", classes.narrow(0, first, count)}});
  };
  ASSERT_TRUE(append(0, 3).ok());
  EXPECT_EQ(file->Append({{"class", at::zeros({1}, at::kLong)}}).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(file->Commit().code(), absl::StatusCode::kInternal) << "two rows are missing";
  ASSERT_TRUE(append(3, 2).ok());
  EXPECT_FALSE(std::filesystem::exists(path));
  ASSERT_TRUE(file->Commit().ok());
  const auto written = *TensorFile::Open(path);
  EXPECT_TRUE(at::equal(*written->Get("logits"), logits));
  EXPECT_TRUE(at::equal(*written->Get("class"), classes));
}

TEST(OutputFile, RefusesRowsThatWereNotPlanned) {
  const TemporaryFolder folder = *TemporaryFolder::Create("output-file-test");
  v1::LayerInfo last;
  AddOutput("logits", {2}, v1::DATA_TYPE_FLOAT32, last);
  absl::StatusOr<OutputFile> file = OutputFile::Create(folder.path() / "outputs.safetensors", last.outputs(), 5);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Append({{"logits", at::zeros({1, 3})}}).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(file->Append({{"logits", at::zeros({1, 2}, at::kLong)}}).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(file->Append({{"other", at::zeros({1, 2})}}).code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace gpipe::worker
