#include <filesystem>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/file.h"
#include "common/spec/reader.h"
#include "common/string_view.h"
#include "gtest/gtest.h"
#include "tests/unit/common/spec_testing.h"
#include "tests/unit/paths.h"

namespace gpipe::spec {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

v1::JobSpec Read(std::string_view text) {
  v1::JobSpec spec;
  SourceMap lines;
  const absl::Status status = ReadYaml(text, spec, lines);
  EXPECT_TRUE(status.ok()) << status;
  return spec;
}

TEST(SpecReaderTest, ReadsTheExamples) {
  int read = 0;
  for (const auto& entry : std::filesystem::directory_iterator(SourceFolder() / "examples")) {
    if (entry.path().extension() != ".yaml") continue;
    const auto file = ReadSpecFile(entry.path());
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_TRUE(Validate(file->spec).ok()) << Validate(file->spec);
    ++read;
  }
  EXPECT_GE(read, 4);
}

TEST(SpecReaderTest, MergesMappingsAndIgnoresFragments) {
  const v1::JobSpec spec = Read(R"(
x-adam: &adam {lr: 0.5, eps: 0.1}
x-more:
  more: &more {<<: *adam, weight_decay: 0.25}
name: merged
train:
  shuffle: Yes
  drop_last: off
  optimizer:
    adamw: {<<: [*more, {eps: 7}], lr: 2}
)");
  const v1::Adam& adam = spec.train().optimizer().adamw();
  EXPECT_EQ(adam.lr(), 2);     // Its own,
  EXPECT_EQ(adam.eps(), 0.1);  // then the first one's,
  EXPECT_EQ(adam.weight_decay(), 0.25);
  EXPECT_TRUE(spec.train().shuffle());
  EXPECT_FALSE(spec.train().drop_last());
}

TEST(SpecReaderTest, ReadsIntegersOf32Bits) {
  EXPECT_EQ(Read("max_restarts: 7").max_restarts(), 7);
  for (const char* bad : {"99999999999", "1.5", "often", "'7'"}) {
    v1::JobSpec spec;
    SourceMap lines;
    const absl::Status status = ReadYaml(absl::StrCat("max_restarts: ", bad), spec, lines);
    EXPECT_THAT(std::string(status.message()), HasSubstr("must be a whole number")) << bad;
  }
}

TEST(SpecReaderTest, WhatCannotBeMergedIsRefused) {
  EXPECT_THAT(ProblemsOf("name: a\ntrain: {<<: 3}"), ElementsAre(IsProblem(2, "train.<<", "must be a mapping")));
  EXPECT_THAT(ProblemsOf("name: a\ntrain: {x-y: 3}"), ElementsAre(IsProblem(2, "train.x-y", "is not a field")));
}

TEST(SpecReaderTest, FillsFieldsOfEveryType) {
  const v1::JobSpec spec = Read(
      "name: '123'\nmodel: {sequential: [linear: {in_features: 4, bias: false}], init_seed: 18446744073709551615}\n"
      "pipeline: {checkpoint: except_last}\ntrain: {optimizer: {adam: {betas: [0.5, 1e-3]}}, freeze: ['0.', '1.']}\n");
  EXPECT_EQ(spec.name(), "123");
  EXPECT_EQ(spec.model().init_seed(), 18446744073709551615u);
  EXPECT_FALSE(spec.model().sequential(0).linear().bias());
  EXPECT_TRUE(spec.model().sequential(0).linear().has_bias());
  EXPECT_EQ(spec.pipeline().checkpoint(), v1::CHECKPOINT_EXCEPT_LAST);
  EXPECT_THAT(spec.train().optimizer().adam().betas(), ElementsAre(0.5, 1e-3));
  EXPECT_THAT(spec.train().freeze(), ElementsAre("0.", "1."));
}

TEST(SpecReaderTest, TakesAValueForAListOfOne) {
  const v1::JobSpec spec = Read("model: {sequential: [conv_2d: {kernel_size: 3}]}\ntrain: {freeze: '0.'}\n");
  EXPECT_THAT(spec.model().sequential(0).conv_2d().kernel_size(), ElementsAre(3));
  EXPECT_THAT(spec.train().freeze(), ElementsAre("0."));
}

TEST(SpecReaderTest, TakesLayersWithoutArgumentsInThreeForms) {
  const v1::JobSpec spec = Read("model:\n  sequential:\n    - relu\n    - relu:\n    - relu: {}\n    - flatten\n");
  ASSERT_EQ(spec.model().sequential_size(), 4);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(spec.model().sequential(i).has_relu()) << i;
  EXPECT_TRUE(spec.model().sequential(3).has_flatten());
}

TEST(SpecReaderTest, RefusesUnknownNamesWithASuggestion) {
  EXPECT_THAT(ProblemsOf("name: a\nmodl: {}\n"), ElementsAre(IsProblem(2, "modl", "did you mean model?")));
  EXPECT_THAT(ProblemsOf("model:\n  sequential:\n    - linaer: {in_features: 3}\n"),
              ElementsAre(IsProblem(3, "model.sequential[0].linaer", "did you mean linear?")));
  EXPECT_THAT(ProblemsOf("name: a\nunrelated_words: 3\n"), ElementsAre(IsProblem(2, "unrelated_words", "not a field")));
}

TEST(SpecReaderTest, RefusesNamesGivenTwiceOnTheLineOfTheSecond) {
  EXPECT_THAT(ProblemsOf("name: a\nmodel: {}\nname: b\n"), ElementsAre(IsProblem(3, "name", "twice")));
}

struct Row {
  const char* text;
  int line;
  const char* field;
  const char* what;
};

class SpecReaderRefusalTest : public testing::TestWithParam<Row> {};

TEST_P(SpecReaderRefusalTest, NamesFieldAndLine) {
  const Row& row = GetParam();
  EXPECT_THAT(ProblemsOf(row.text), ElementsAre(IsProblem(row.line, row.field, row.what))) << row.text;
}

INSTANTIATE_TEST_SUITE_P(
    WrongTypes, SpecReaderRefusalTest,
    testing::Values(
        Row{"name: a\npipeline:\n  chunks: eight\n", 3, "pipeline.chunks", "a whole number, not 'eight'"},
        Row{"pipeline: {chunks: 2.5}\n", 1, "pipeline.chunks", "a whole number, not '2.5'"},
        Row{"pipeline: {chunks: '8'}\n", 1, "pipeline.chunks", "a whole number"},
        Row{"pipeline: {chunks: [8]}\n", 1, "pipeline.chunks", "not a list"},
        Row{"pipeline: {chunks: 9223372036854775808}\n", 1, "pipeline.chunks", "a whole number"},
        Row{"pipeline: {chunks: }\n", 1, "pipeline.chunks", "no value"},
        Row{"pipeline: {chunks: ~}\n", 1, "pipeline.chunks", "no value"},
        Row{"pipeline: {balance: [1, x]}\n", 1, "pipeline.balance[1]", "a whole number"},
        Row{"pipeline:\n  balance:\n    - 1\n    - ~\n", 4, "pipeline.balance[1]", "no value"},
        Row{"pipeline: {balance: }\n", 1, "pipeline.balance", "no value"},
        Row{"pipeline: {checkpoint: sometimes}\n", 1, "pipeline.checkpoint", "always, except_last, never"},
        Row{"pipeline: {checkpoint: unspecified}\n", 1, "pipeline.checkpoint", "one of"},
        Row{"pipeline: {checkpoint: {}}\n", 1, "pipeline.checkpoint", "a mapping"},
        Row{"pipeline: {deferred_batch_norm: 1}\n", 1, "pipeline.deferred_batch_norm", "true or false"},
        Row{"pipeline: 3\n", 1, "pipeline", "a mapping, not '3'"},
        Row{"pipeline: []\n", 1, "pipeline", "a mapping, not a list"},
        Row{"model: {sequential: [linear: {bias: 3}]}\n", 1, "model.sequential[0].linear.bias", "true or false"},
        Row{"model: {sequential: [linear: 3]}\n", 1, "model.sequential[0].linear", "a mapping"},
        Row{"model: {sequential: [3]}\n", 1, "model.sequential[0]", "a mapping"},
        Row{"model: {init_seed: -1}\n", 1, "model.init_seed", "not negative"},
        Row{"model: {init_seed: 18446744073709551616}\n", 1, "model.init_seed", "not negative"},
        Row{"name: [a]\n", 1, "name", "text, not a list"}, Row{"name: {a: b}\n", 1, "name", "text, not a mapping"},
        Row{"name: ~\n", 1, "name", "no value"},
        Row{"train: {batch_size: 1}\ninfer: {batch_size: 1}\n", 2, "infer", "beside train"},
        Row{"train:\n  loss:\n    mse: {}\n    cross_entropy: {}\n", 4, "train.loss.cross_entropy", "beside mse"},
        Row{"train: {grad_clip_norm: much}\n", 1, "train.grad_clip_norm", "a number"},
        Row{"pipeline: {[a, b]: 3}\n", 1, "pipeline", "not a name"}));

INSTANTIATE_TEST_SUITE_P(BadDocuments, SpecReaderRefusalTest,
                         testing::Values(Row{"", 0, "", "empty"}, Row{"# only words\n", 0, "", "empty"},
                                         Row{"name: a\n---\nname: b\n", 0, "", "more than one document"},
                                         Row{"- a\n", 1, "", "a mapping, not a list"},
                                         Row{"name: a\nmodel:\n\tsequential: []\n", 3, "", "not good YAML"},
                                         Row{"name: a\nmodel: {sequential: [\n", 3, "", "not good YAML"},
                                         Row{"name: *nobody\n", 1, "", "not good YAML"},
                                         Row{"name: a\nmodel: \"\xff\"\n", 2, "", "not UTF-8"}));

TEST(SpecReaderTest, ABareWordThatIsNoLayerIsAnUnknownOne) {
  EXPECT_THAT(ProblemsOf("model:\n  sequential:\n    - relv\n    - 3\n"),
              ElementsAre(IsProblem(3, "model.sequential[0].relv", "is not a field here; did you mean relu?"),
                          IsProblem(4, "model.sequential[1]", "must be a mapping, not '3'")));
}

TEST(SpecReaderTest, ReportsEverythingAtOnce) {
  EXPECT_EQ(ProblemsOf("nam: a\npipeline: {chunks: x, workers: y}\nextra: 1\n").size(), 4u);
}

TEST(SpecReaderTest, CutsLongValuesBetweenCharacters) {
  std::string value;
  for (int i = 0; i < 50; ++i) value += "\u00e9";
  const auto problems = ProblemsOf(absl::StrCat("pipeline: {chunks: x", value, "}\n"));
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_THAT(problems[0].what, HasSubstr("\u00e9'"));
}

// Found by fuzzing: read as UTF-16, this gave text that no message can carry, and the errors were lost.
TEST(SpecReaderTest, RefusesZeroBytes) {
  EXPECT_THAT(ProblemsOf(std::string("a\0\0\0\0\0\0\0\0\x13\0\0\0\nname: *a\n", 23)),
              ElementsAre(IsProblem(1, "", "not UTF-8")));
}

// Found by fuzzing: yaml-cpp's LoadAll never returns from these.
TEST(SpecReaderTest, EndsOnStrayCommas) {
  EXPECT_THAT(ProblemsOf(","), ElementsAre(IsProblem(0, "", "more than one document")));
  EXPECT_FALSE(ProblemsOf(", name: a\nmodel:\n  sequential: 3\n").empty());
}

TEST(SpecReaderTest, RefusesTooLargeDocuments) {
  EXPECT_THAT(ProblemsOf(std::string(kMaxSpecBytes + 1, '#')), ElementsAre(IsProblem(0, "", "over the limit")));
}

// yaml-cpp recurses: without bounds these would end the process.
TEST(SpecReaderTest, RefusesDeepDocuments) {
  EXPECT_THAT(ProblemsOf(std::string(100'000, '[')), ElementsAre(IsProblem(0, "", "too deeply")));
  EXPECT_THAT(ProblemsOf("a: " + std::string(100'000, '{')), ElementsAre(IsProblem(0, "", "too deeply")));
  std::string dashes, hidden, keys;
  for (int i = 0; i < 100'000; ++i) dashes += "- ";
  for (int i = 0; i < 100'000; ++i) hidden += "[ #]\n";
  for (int i = 0; i < 100'000; ++i) keys += "? ";
  EXPECT_THAT(ProblemsOf(dashes), ElementsAre(IsProblem(0, "", "too deeply")));
  EXPECT_FALSE(ProblemsOf(hidden).empty());
  EXPECT_FALSE(ProblemsOf(keys).empty());
}

TEST(SpecReaderTest, BoundsWhatAliasesExpandTo) {
  std::string layers =
      "name: bomb\nmodel:\n  sequential:\n    - &a {stash: {name: &n " + std::string(100'000, 'n') + "}}\n";
  for (int i = 0; i < 1000; ++i) layers += "    - {stash: {name: *n}}\n";
  EXPECT_THAT(ProblemsOf(layers), ElementsAre(IsProblem(1, "", "aliases")));

  std::string many = "pipeline:\n  balance: [1]\nmodel:\n  sequential:\n    - &a {conv_2d: {kernel_size: [";
  for (int i = 0; i < 1000; ++i) many += "1,";
  many += "1]}}\n";
  for (int i = 0; i < 1000; ++i) many += "    - *a\n";
  EXPECT_THAT(ProblemsOf(many), ElementsAre(IsProblem(1, "", "aliases")));

  const std::string key = "model:\n  sequential:\n    - &a {" + std::string(100'000, 'k') + ": 1}\n    - *a\n";
  for (const Problem& problem : ProblemsOf(key)) EXPECT_LT(problem.field.size(), 100u);
  EXPECT_FALSE(ProblemsOf("model: {sequential: &a [*a]}\n").empty());
}

TEST(SpecReaderTest, AliasesWork) {
  const v1::JobSpec spec =
      Read("model:\n  sequential:\n    - &l {linear: {in_features: 3, out_features: 3}}\n    - *l\n");
  ASSERT_EQ(spec.model().sequential_size(), 2);
  EXPECT_EQ(spec.model().sequential(1).linear().in_features(), 3);
}

TEST(SourceMapTest, FallsBackToWhatIsAround) {
  SourceMap lines;
  EXPECT_EQ(lines.Line("model"), 0);
  lines.Add("", 1);
  lines.Add("model", 2);
  lines.Add("model.sequential[3].linear", 7);
  EXPECT_EQ(lines.Line("model.sequential[3].linear.in_features"), 7);
  EXPECT_EQ(lines.Line("model.sequential[3].linear"), 7);
  EXPECT_EQ(lines.Line("model.sequential[2].relu"), 2);
  EXPECT_EQ(lines.Line("train.loss"), 1);
}

class SpecFileTest : public testing::Test {
 protected:
  void SetUp() override {
    auto folder = TemporaryFolder::Create("spec_file_test");
    ASSERT_TRUE(folder.ok()) << folder.status();
    folder_.emplace(*std::move(folder));
  }
  std::filesystem::path Write(std::string_view text) {
    const std::filesystem::path path = folder_->path() / "job.yaml";
    EXPECT_TRUE(WriteFileAtomically(path, text).ok());
    return path;
  }
  std::optional<TemporaryFolder> folder_;
};

TEST_F(SpecFileTest, ErrorsBeginWithFileAndLine) {
  const auto path = Write("name: a\npipeline:\n  chunks: eight\n  worker: 2\n");
  EXPECT_EQ(StdView(ReadSpecFile(path).status().message()),
            absl::StrCat(path.string(), ":3: pipeline.chunks: must be a whole number, not 'eight'\n", path.string(),
                         ":4: pipeline.worker: is not a field here; did you mean workers?"));
}

TEST_F(SpecFileTest, LaterErrorsGetLinesToo) {
  const auto file = ReadSpecFile(Write("name: a\nmodel:\n  sequential:\n    - relu\n"));
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Status status = WithLines(FieldError("model.sequential[0].relu", "does not fit"), *file);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StdView(status.message()), absl::StrCat(file->path.string(), ":4: model.sequential[0].relu: does not fit"));
  EXPECT_EQ(WithLines(absl::UnavailableError("away"), *file), absl::UnavailableError("away"));
}

TEST_F(SpecFileTest, NamesFilesThatCannotBeRead) {
  EXPECT_EQ(ReadSpecFile(folder_->path() / "none.yaml").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadSpecFile(folder_->path()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(ReadSpecFile(Write(std::string(kMaxSpecBytes + 1, '#'))).status().message()),
              HasSubstr("over the limit"));
}

}  // namespace
}  // namespace gpipe::spec
