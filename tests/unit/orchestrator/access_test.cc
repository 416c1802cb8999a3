// Roles, tokens, names of workers and their files, without a server.

#include <regex>
#include <set>

#include "common/file.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "gpipe/v1/monitoring.pb.h"
#include "gpipe/v1/pipeline_service.pb.h"
#include "gpipe/v1/worker_session.pb.h"
#include "gtest/gtest.h"
#include "orchestrator/access/gatekeeper.h"
#include "orchestrator/access/worker_files.h"
#include "tests/unit/paths.h"

namespace gpipe::orchestrator {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr Role kAllRoles[] = {Role::kNone, Role::kRead, Role::kSubmit, Role::kAdmin, Role::kWorker};

// All RPCs of the API, as gRPC has them.
std::set<std::string> AllMethods() {
  std::set<std::string> methods;
  for (const auto* file : {v1::GetJobRequest::descriptor()->file(), v1::WorkerMessage::descriptor()->file(),
                           v1::StepTimeline::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      const auto* service = file->service(s);
      for (int m = 0; m < service->method_count(); ++m) {
        methods.insert("/" + service->full_name() + "/" + service->method(m)->name());
      }
    }
  }
  return methods;
}

TEST(RolesTest, EveryRpcHasOneRule) {
  std::set<std::string> ruled;
  for (const Rule& rule : AllRules()) EXPECT_TRUE(ruled.emplace(rule.method).second) << rule.method << " has two rules";
  EXPECT_EQ(ruled, AllMethods());
}

TEST(RolesTest, TheDocumentHasThemAll) {
  const std::string document = *ReadFile(SourceFolder() / "docs" / "security.md");
  for (const Rule& rule : AllRules()) {
    std::string name(rule.method.substr(rule.method.rfind('.') + 1));
    name.replace(name.find('/'), 1, ".");
    const std::string row = "\\| `" + name + "`( \\(.*\\))? \\| " + std::string(WhoMay(rule)) + " \\|";
    EXPECT_TRUE(std::regex_search(document, std::regex(row))) << row;
  }
}

TEST(RolesTest, EachRoleMayDoWhatThoseBelowItMayAndWorkersAreApart) {
  const auto allowed = [](const Rule& rule) {
    std::string roles;
    for (Role role : kAllRoles) roles += Allows(rule, role) ? std::string(RoleName(role)) + " " : "";
    return roles;
  };
  EXPECT_EQ(allowed({"", Role::kNone}), "none read submit admin worker ");
  EXPECT_EQ(allowed({"", Role::kRead}), "read submit admin ");
  EXPECT_EQ(allowed({"", Role::kRead, true}), "read submit admin worker ");
  EXPECT_EQ(allowed({"", Role::kSubmit}), "submit admin ");
  EXPECT_EQ(allowed({"", Role::kSubmit, true}), "submit admin worker ");
  EXPECT_EQ(allowed({"", Role::kAdmin}), "admin ");
  EXPECT_EQ(allowed({"", Role::kWorker}), "worker ");
}

TEST(RolesTest, AnUnknownMethodIsForNobody) {
  const auto gatekeeper = *Gatekeeper::Create({});
  const absl::Status refused = gatekeeper->Check({"root", Role::kAdmin, true}, "/gpipe.v1.JobService/New", "here");
  EXPECT_TRUE(absl::IsPermissionDenied(refused)) << refused;
}

TEST(RolesTest, AWorkerGoesByItsCertificatesNameOrBeginsWithIt) {
  const Caller worker = {"worker", Role::kWorker};
  for (const char* own : {"worker", "worker-0", "worker-rack-7"}) EXPECT_TRUE(worker.Owns(own)) << own;
  for (const char* other : {"", "work", "worker0", "workers-0", "other", "-worker"}) {
    EXPECT_FALSE(worker.Owns(other)) << other;
  }
  EXPECT_FALSE((Caller{"", Role::kWorker}.Owns("-0")));
  EXPECT_TRUE((Caller{"", Role::kNone, true}.Owns("anything")));
}

class TokensTest : public testing::Test {
 protected:
  TokensTest() : folder_(TemporaryFolder::Create("gpipe-tokens").value()), path_(folder_.path() / "tokens") {}
  void Write(const std::string& text) const { ASSERT_TRUE(WriteFileAtomically(path_, text).ok()); }
  std::string Refusal(const std::string& text) const {
    Write(text);
    const auto opened = TokenFile::Open(path_);
    EXPECT_TRUE(absl::IsInvalidArgument(opened.status())) << opened.status();
    return std::string(opened.status().message());
  }

  const TemporaryFolder folder_;
  const std::filesystem::path path_;
};

TEST_F(TokensTest, SayNameAndRole) {
  Write("# Users\n\nread  grafana 0123456789abcdef\r\nadmin\tops fedcba9876543210\n");
  const auto tokens = TokenFile::Open(path_);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ((*tokens)->Find("0123456789abcdef")->role, Role::kRead);
  EXPECT_EQ((*tokens)->Find("0123456789abcdef")->name, "grafana");
  EXPECT_EQ((*tokens)->Find("fedcba9876543210")->role, Role::kAdmin);
  EXPECT_FALSE((*tokens)->Find("0123456789abcdeX"));
  EXPECT_FALSE((*tokens)->Find(""));
}

TEST_F(TokensTest, BadLinesAreNamedWithoutTheirToken) {
  const std::string place = path_.string() + ":2: ";
  const auto names = [&](const std::string& what) {
    return AllOf(HasSubstr("--tokens-file"), HasSubstr(place), HasSubstr(what), Not(HasSubstr("secret")));
  };
  EXPECT_THAT(Refusal("#\nread grafana\n"), names("role name token"));
  EXPECT_THAT(Refusal("#\nboss secret-name secret-token-0123456789\n"), names("the role must be"));
  EXPECT_THAT(Refusal("#\nworker w secret-token-0123456789\n"), names("certificates"));
  EXPECT_THAT(Refusal("#\nread grafana secret\n"), names("at least 16"));
  EXPECT_THAT(std::string(TokenFile::Open("/none/tokens").status().message()),
              AllOf(HasSubstr("--tokens-file"), HasSubstr("/none/tokens")));
}

TEST_F(TokensTest, AreReadAgainWhenTheFileChanges) {
  Write("read grafana 0123456789abcdef\n");
  const auto tokens = *TokenFile::Open(path_);
  Write("submit grafana 0123456789abcdef\n");
  EXPECT_EQ(tokens->Find("0123456789abcdef")->role, Role::kSubmit);
  Write("nonsense\n");  // Things stay as they were.
  EXPECT_EQ(tokens->Find("0123456789abcdef")->role, Role::kSubmit);
  Write("");
  EXPECT_FALSE(tokens->Find("0123456789abcdef"));
}

TEST_F(TokensTest, NeedTls) {
  Write("read grafana 0123456789abcdef\n");
  const auto plain = Gatekeeper::Create({.plain_text = true, .tokens_file = path_});
  EXPECT_THAT(std::string(plain.status().message()), HasSubstr("--tokens-file needs --tls-ca"));
  const auto gatekeeper = *Gatekeeper::Create({.plain_text = false, .tokens_file = path_});
  EXPECT_EQ(gatekeeper->WhoHas("0123456789abcdef").role, Role::kRead);
  EXPECT_TRUE(
      absl::IsUnauthenticated(gatekeeper->Check(gatekeeper->WhoHas("wrong"), "/gpipe.v1.JobService/GetJob", "here")));
}

v1::ArtifactRef File(char digit) {
  v1::ArtifactRef ref;
  ref.set_sha256(std::string(64, digit));
  return ref;
}

v1::OrchestratorMessage Prepare(int attempt, const std::vector<char>& files) {
  v1::OrchestratorMessage message;
  message.mutable_prepare()->mutable_attempt()->set_job("job");
  message.mutable_prepare()->mutable_attempt()->set_attempt(attempt);
  for (char file : files) (*message.mutable_prepare()->mutable_files())[std::string(1, file)] = File(file);
  *message.mutable_prepare()->add_resume_model() = File('e');
  *message.mutable_prepare()->add_resume_optimizer() = File('f');
  return message;
}

v1::UploadArtifactRequest PartOf(int attempt) {
  v1::UploadArtifactRequest first;
  first.mutable_part_of()->mutable_attempt()->set_job("job");
  first.mutable_part_of()->mutable_attempt()->set_attempt(attempt);
  return first;
}

TEST(WorkerFilesTest, ThoseOfTheOwnAttemptAreReadAndNoOthers) {
  WorkerFiles files;
  files.Begin(1, "worker");
  files.Begin(2, "other");
  EXPECT_TRUE(absl::IsPermissionDenied(files.MayRead("worker", File('a'))));
  files.Told(1, Prepare(1, {'a', 'b'}));
  for (char file : {'a', 'b', 'e', 'f'}) {
    EXPECT_TRUE(files.MayRead("worker", File(file)).ok()) << file;
    EXPECT_FALSE(files.MayRead("other", File(file)).ok()) << file;
  }
  files.Told(1, Prepare(2, {'c'}));
  EXPECT_FALSE(files.MayRead("worker", File('a')).ok());
  EXPECT_TRUE(files.MayRead("worker", File('c')).ok());
  files.End(1);
  EXPECT_FALSE(files.MayRead("worker", File('c')).ok());
}

TEST(WorkerFilesTest, ThoseOfInspectionsAreReadToo) {
  WorkerFiles files;
  files.Begin(1, "worker");
  v1::OrchestratorMessage inspect;
  (*inspect.mutable_inspect()->mutable_files())["a"] = File('a');
  files.Told(1, inspect);
  v1::OrchestratorMessage next;
  next.mutable_inspect();
  for (size_t i = 1; i < WorkerFiles::kMaxInspections; ++i) files.Told(1, next);
  EXPECT_TRUE(files.MayRead("worker", File('a')).ok());
  files.Told(1, next);
  EXPECT_FALSE(files.MayRead("worker", File('a')).ok());
}

TEST(WorkerFilesTest, PartsOfTheOwnAttemptAreWrittenAndNoOthers) {
  WorkerFiles files;
  files.Begin(1, "worker");
  files.Begin(2, "other");
  EXPECT_FALSE(files.MayWrite("worker", {}).ok());
  files.Told(1, Prepare(2, {}));
  EXPECT_TRUE(files.MayWrite("worker", {}).ok());
  EXPECT_TRUE(files.MayWrite("worker", PartOf(2)).ok());
  EXPECT_FALSE(files.MayWrite("worker", PartOf(1)).ok());
  EXPECT_FALSE(files.MayWrite("other", PartOf(2)).ok());
}

}  // namespace
}  // namespace gpipe::orchestrator
