#include "worker/data/data_source.h"

#include <ATen/ATen.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/plan/shape.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/data/output_file.h"
#include "worker/data/read_ahead.h"
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
  return *DataSource::Create(spec, NoFiles, role, {});
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
  dataset.add_path("d.safetensors");
  dataset.add_inputs("x");
  dataset.set_target("y");
  auto files = [&](const std::string& name) -> absl::StatusOr<std::filesystem::path> { return folder.path() / name; };
  auto source = *DataSource::Create(spec, files, kBoth, {});
  const Batch batch = *source->Read(TrainRound(0, 4, 2));
  EXPECT_TRUE(at::equal(batch.inputs.at("input"), x.narrow(0, 4, 2)));
  EXPECT_TRUE(at::equal(batch.target, y.narrow(0, 4, 2)));

  dataset.set_target("nothing");
  const absl::Status missing = DataSource::Create(spec, files, kBoth, {}).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), testing::HasSubstr("nothing"));
}

ReadAhead::NextRound RoundsOf(const pipeline::TimelineSpec& timeline) {
  return [cursor = pipeline::RoundCursor(timeline)]() mutable { return cursor.Next(); };
}

TEST(DataSource, AnInputWithoutSamplesIsTheSameWholeTensorInEveryBatch) {
  const TemporaryFolder folder = *TemporaryFolder::Create("data-source-test");
  const at::Tensor x = at::arange(12, at::kFloat).reshape({6, 2}), a = at::arange(6).reshape({2, 3}), t = at::ones({});
  ASSERT_TRUE(WriteTensorFile(folder.path() / "d", {{"a", 0, a, false}, {"t", 0, t, false}, {"x", 0, x, false}}).ok());
  v1::JobSpec spec;
  v1::Dataset& dataset = *spec.mutable_train()->mutable_dataset();
  dataset.add_path("d");
  for (const char* name : {"x", "a", "t"}) dataset.add_inputs(name);
  auto files = [&](const std::string& name) -> absl::StatusOr<std::filesystem::path> { return folder.path() / name; };
  const DataRole role = {{{0, "x"}, {1, "graph", true}, {2, "temperature", true}}, false};
  std::unique_ptr<DataSource> source = *DataSource::Create(spec, files, role, {});
  pipeline::TimelineSpec timeline;
  timeline.samples = 6;
  timeline.batch_size = 4;
  timeline.steps = 2;
  ReadAhead ahead(std::move(source), RoundsOf(timeline), at::kCPU);
  pipeline::RoundCursor cursor(timeline);
  const Batch first = ahead.Take(*cursor.Next())->batch, second = ahead.Take(*cursor.Next())->batch;
  EXPECT_TRUE(at::equal(first.whole.at("graph"), a));
  EXPECT_TRUE(at::equal(first.whole.at("temperature"), t));
  EXPECT_TRUE(at::equal(second.inputs.at("x"), x.narrow(0, 4, 2)));
  EXPECT_FALSE(second.inputs.contains("graph"));
  EXPECT_TRUE(second.whole.at("graph").is_same(first.whole.at("graph"))) << "it is read, and copied, once";

  const DataRole only = {{{1, "graph", true}}, false};
  EXPECT_FALSE((*DataSource::Create(spec, files, only, {}))->empty());
}

TEST(DataSource, SamplesOfSeveralFilesComeOneAfterTheOther) {
  const TemporaryFolder folder = *TemporaryFolder::Create("data-source-test");
  const at::Tensor x = at::arange(24, at::kFloat).reshape({12, 2});
  v1::JobSpec spec;
  v1::Dataset& dataset = *spec.mutable_train()->mutable_dataset();
  dataset.add_inputs("x");
  for (const auto& [first, count] : {std::pair(0, 5), std::pair(5, 0), std::pair(5, 7)}) {
    dataset.add_path(absl::StrCat(first, "-", count));
    ASSERT_TRUE(WriteTensorFile(folder.path() / dataset.path(dataset.path_size() - 1),
                                {{"x", 0, x.narrow(0, first, count), false}})
                    .ok());
  }
  auto files = [&](const std::string& name) -> absl::StatusOr<std::filesystem::path> { return folder.path() / name; };
  auto source = *DataSource::Create(spec, files, {.inputs = {{0, "input"}}, .targets = false}, {});
  EXPECT_TRUE(at::equal(source->Read(TrainRound(0, 3, 6))->inputs.at("input"), x.narrow(0, 3, 6)));
  spec.mutable_train()->set_shuffle(true);
  source = *DataSource::Create(spec, files, {.inputs = {{0, "input"}}, .targets = false}, {});
  EXPECT_TRUE(
      at::equal(source->Read(TrainRound(1, 0, 12))->inputs.at("input"), x.index_select(0, EpochOrder(12, 0, 1))));
}

// A job on 31 tokens of 16 bits, in windows of 5.
class TokenSource : public testing::Test {
 protected:
  TokenSource() {
    std::string bytes;
    for (uint16_t token = 0; token < 31; ++token) bytes.append(reinterpret_cast<const char*>(&token), sizeof(token));
    std::ofstream(folder_.path() / "t.bin", std::ios::binary) << bytes;
    v1::Tokens& tokens = *spec_.mutable_train()->mutable_dataset()->mutable_tokens();
    tokens.add_path("t.bin");
    tokens.set_dtype(v1::TOKEN_TYPE_UINT16);
    tokens.set_sequence_length(5);
    spec_.mutable_train()->mutable_dataset()->add_inputs("input");
    spec_.mutable_train()->mutable_dataset()->set_target("target");
  }

  std::unique_ptr<DataSource> Make(const DataSource::Options& options = {}) {
    auto files = [&](const std::string& name) -> absl::StatusOr<std::filesystem::path> {
      if (!std::filesystem::exists(folder_.path() / name)) return absl::NotFoundError(name);
      return folder_.path() / name;
    };
    auto source = DataSource::Create(spec_, files, kBoth, options);
    EXPECT_TRUE(source.ok()) << source.status();
    return *std::move(source);
  }

  const TemporaryFolder folder_ = *TemporaryFolder::Create("data-source-test");
  v1::JobSpec spec_;
};

TEST_F(TokenSource, GivesWindowsAndTheirTargetsOneTokenLater) {
  const at::Tensor text = at::arange(31);
  const Batch batch = *Make()->Read(TrainRound(0, 1, 5));
  EXPECT_TRUE(at::equal(batch.inputs.at("input"), text.narrow(0, 5, 25).reshape({5, 5})));
  EXPECT_TRUE(at::equal(batch.target, text.narrow(0, 6, 25).reshape({5, 5})));
  spec_.mutable_train()->set_shuffle(true);
  spec_.mutable_train()->set_seed(9);
  const Batch shuffled = *Make()->Read(TrainRound(2, 0, 6));
  const at::Tensor windows = text.narrow(0, 0, 30).reshape({6, 5});
  EXPECT_TRUE(at::equal(shuffled.inputs.at("input"), windows.index_select(0, EpochOrder(6, 9, 2))));
  EXPECT_TRUE(at::equal(shuffled.target, shuffled.inputs.at("input") + 1));
}

TEST_F(TokenSource, ATokenThatTheModelHasNoPlaceForIsNamed) {
  EXPECT_TRUE(Make({.classes = 31})->Read(TrainRound(0, 0, 6)).ok());
  const absl::Status target = Make({.classes = 30, .input_limit = 31})->Read(TrainRound(0, 0, 6)).status();
  EXPECT_EQ(target.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(target.message()), testing::HasSubstr("the target 30"));
  EXPECT_THAT(std::string(Make({.classes = 29})->Read(TrainRound(0, 0, 6)).status().message()),
              testing::HasSubstr("the input 29"));
}

TEST_F(TokenSource, AFileThatIsChangedUnderTheJobIsNamed) {
  auto source = Make();
  ASSERT_TRUE(source->Read(TrainRound(0, 0, 6)).ok());
  std::filesystem::resize_file(folder_.path() / "t.bin", 10);
  const absl::Status changed = source->Read(TrainRound(0, 0, 6)).status();
  EXPECT_EQ(changed.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(changed.message()), testing::HasSubstr("'t.bin' was changed"));
}

TEST_F(TokenSource, ReadAheadGivesTheRoundsOfTheTimelineInTheirOrder) {
  pipeline::TimelineSpec timeline{.samples = 6, .batch_size = 4, .steps = 5, .checkpoint_every = 1};
  ReadAhead ahead(Make(), RoundsOf(timeline), c10::kCPU);
  EXPECT_TRUE(ahead.WaitForFirst().ok());
  pipeline::RoundCursor cursor(timeline);
  auto source = Make();
  while (const auto round = cursor.Next()) {
    if (round->kind == RoundKind::kCheckpoint) continue;
    const absl::StatusOr<ReadAhead::Taken> taken = ahead.Take(*round);
    ASSERT_TRUE(taken.ok()) << taken.status();
    EXPECT_TRUE(at::equal(taken->batch.target, source->Read(*round)->target));
    EXPECT_GE(taken->waited, absl::ZeroDuration());
  }
  EXPECT_EQ(ahead.Take(TrainRound(9, 0, 4)).status().code(), absl::StatusCode::kInternal) << "there are no more";
}

TEST_F(TokenSource, ReadAheadGivesTheReadersErrorAndEndsAtAnyTime) {
  const pipeline::TimelineSpec timeline{.samples = 8, .batch_size = 4, .steps = 5};
  ReadAhead ahead(Make(), RoundsOf(timeline), c10::kCPU);
  pipeline::RoundCursor cursor(timeline);
  EXPECT_TRUE(ahead.Take(*cursor.Next()).ok());
  EXPECT_EQ(ahead.Take(*cursor.Next()).status().code(), absl::StatusCode::kOutOfRange) << "there are 6 windows";
  ReadAhead wrong(Make({.classes = 3}), RoundsOf({.samples = 4, .batch_size = 4, .steps = 5}), c10::kCPU);
  EXPECT_THAT(std::string(wrong.WaitForFirst().message()), testing::HasSubstr("is not in [0, 3)"));
  ReadAhead aborted(Make(), [] { return absl::CancelledError("why"); }, c10::kCPU);
  EXPECT_EQ(aborted.Take(TrainRound(0, 0, 4)).status(), absl::CancelledError("why"));
  const ReadAhead unread(Make(), RoundsOf({.samples = 4, .batch_size = 4, .steps = 5}), c10::kCPU);
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
