#include "worker/software.h"

#include <torch/version.h>

#include <fstream>

#include "common/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gpipe::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;

namespace fs = std::filesystem;

TEST(SoftwareTest, NumbersReadLikeVersions) {
  EXPECT_EQ(CudaVersionText(13000), "13.0");
  EXPECT_EQ(CudaVersionText(12080), "12.8");
  EXPECT_EQ(LibraryVersionText(91900), "9.19.0");
  EXPECT_EQ(LibraryVersionText(22809), "2.28.9");
}

TEST(SoftwareTest, OnACpuItIsTorchAlone) {
  EXPECT_THAT(SoftwareOf("cpu", ""), ElementsAre(Pair("torch", TORCH_VERSION)));
}

// The libraries are there without a GPU, and say what they are.
TEST(SoftwareTest, OnAGpuItIsAllThatIsLoaded) {
  const auto software = SoftwareOf("cuda:0", "580.65.06");
  EXPECT_EQ(software.at("driver"), "580.65.06");
  EXPECT_THAT(software.at("cuda"), testing::MatchesRegex("1[0-9]\\.[0-9]"));
  EXPECT_THAT(software.at("cudnn"), testing::MatchesRegex("9\\.[0-9]+\\.[0-9]+"));
  EXPECT_THAT(software.at("nccl"), testing::MatchesRegex("2\\.[0-9]+\\.[0-9]+"));
  EXPECT_FALSE(SoftwareOf("cuda:0", "").contains("driver"));
}

TEST(CudnnTest, ThisProcessHasTheOneThatLibTorchWasBuiltWith) {
  const CudnnFacts facts = LookAtCudnn(90);
  EXPECT_GE(facts.loaded, 91500);
  EXPECT_EQ(facts.loaded, facts.built_with);
  EXPECT_TRUE(fs::exists(facts.folder / "libcudnn.so.9")) << facts.folder;
  EXPECT_EQ(CudnnProblem(facts), "");
}

TEST(CudnnTest, AnOldOneIsNamed) {
  CudnnFacts facts = {.loaded = 91000, .built_with = 91900, .compute_capability = 90, .folder = "/opt/cudnn/lib"};
  const std::string problem = CudnnProblem(facts);
  EXPECT_THAT(problem, HasSubstr("cuDNN 9.10.0 was loaded from /opt/cudnn/lib, and LibTorch was built with 9.19.0"));
  EXPECT_THAT(problem, HasSubstr("attention takes up to twice as long"));
  facts.compute_capability = 80;
  EXPECT_THAT(CudnnProblem(facts), Not(HasSubstr("attention")));
  facts.loaded = 91501;
  facts.compute_capability = 90;
  EXPECT_THAT(CudnnProblem(facts), Not(HasSubstr("attention")));
  facts.loaded = 92000;
  EXPECT_EQ(CudnnProblem(facts), "") << "newer is well";
  facts.loaded = 0;
  EXPECT_EQ(CudnnProblem(facts), "") << "not known";
}

TEST(CudnnTest, AnotherOnesPartsAreNamed) {
  CudnnFacts facts = {.loaded = 91900, .built_with = 91900, .folder = "/wheel", .shadow = "/usr/local/cudnn/lib"};
  EXPECT_THAT(CudnnProblem(facts), HasSubstr("LD_LIBRARY_PATH has it load its parts from /usr/local/cudnn/lib"));
  facts.loaded = 91400;
  EXPECT_THAT(CudnnProblem(facts), HasSubstr("LibTorch was built with 9.19.0, but LD_LIBRARY_PATH has it load its parts"
                                             " from /usr/local/cudnn/lib"));
}

TEST(CudnnTest, TheFirstFolderWithItsPartsIsTheShadow) {
  const TemporaryFolder folder = *TemporaryFolder::Create("cudnn");
  for (const char* name : {"own", "other", "none"}) fs::create_directory(folder.path() / name);
  for (const char* name : {"own", "other"}) std::ofstream(folder.path() / name / "libcudnn_graph.so.9") << "x";
  fs::create_directory_symlink(folder.path() / "own", folder.path() / "link");
  const std::string own = folder.path() / "own", other = folder.path() / "other", none = folder.path() / "none",
                    link = folder.path() / "link";
  EXPECT_EQ(ShadowOfCudnn(other, own), other);
  EXPECT_EQ(ShadowOfCudnn(none + ":" + other + ":" + own, own), other);
  EXPECT_EQ(ShadowOfCudnn(none + ":" + own + ":" + other, own), "");
  EXPECT_EQ(ShadowOfCudnn(link + ";" + other, own), "");
  EXPECT_EQ(ShadowOfCudnn("/nowhere::" + none, own), "");
}

}  // namespace
}  // namespace gpipe::worker
