#include "orchestrator/artifacts/artifact_service.h"

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/artifacts/parts.h"
#include "common/artifacts/raw_call.h"
#include "common/artifacts/transfer.h"
#include "common/grpc_status.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "tests/unit/orchestrator/artifact_testing.h"

namespace gpipe::orchestrator {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

class ArtifactServiceTest : public ArtifactTest {
 protected:
  ArtifactServiceTest() : ArtifactServiceTest(ArtifactService::Limits()) {}
  explicit ArtifactServiceTest(const ArtifactService::Limits& limits)
      : service_(store_.get(), [this](const auto&) { return access_; }, limits) {
    address_ = "127.0.0.1:" + std::to_string(Serve("127.0.0.1:0"));
    stub_ = v1::ArtifactService::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  }
  ~ArtifactServiceTest() override { server_->Shutdown(); }

  int Serve(const std::string& address) {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    return port;
  }

  static v1::UploadArtifactRequest RefPart(const v1::ArtifactRef& ref) {
    v1::UploadArtifactRequest request;
    *request.mutable_ref() = ref;
    return request;
  }
  static v1::UploadArtifactRequest DataPart(std::string data) {
    v1::UploadArtifactRequest request;
    request.set_data(std::move(data));
    return request;
  }

  grpc::Status Upload(const std::vector<v1::UploadArtifactRequest>& parts) {
    grpc::ClientContext context;
    v1::UploadArtifactResponse response;
    auto writer = stub_->UploadArtifact(&context, &response);
    for (const v1::UploadArtifactRequest& part : parts) {
      if (!writer->Write(part)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  }

  grpc::Status Download(const v1::ArtifactRef& ref, int64_t offset, std::string& content, int64_t length = 0) {
    grpc::ClientContext context;
    v1::DownloadArtifactRequest request;
    *request.mutable_ref() = ref;
    request.set_offset(offset);
    request.set_length(length);
    auto reader = stub_->DownloadArtifact(&context, request);
    v1::DownloadArtifactResponse piece;
    while (reader->Read(&piece)) {
      EXPECT_LE(piece.data().size(), size_t{1} << 20);
      content += piece.data();
    }
    return reader->Finish();
  }

  ArtifactService::Access access_;
  ArtifactService service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  std::unique_ptr<v1::ArtifactService::Stub> stub_;
};

std::string Patterned(size_t size) {
  std::string content(size, '\0');
  for (size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * 31 + i / 4096);
  return content;
}

TEST_F(ArtifactServiceTest, AFileOfManyPiecesGoesUpAndComesDown) {
  const std::string content = Patterned((5 << 20) + 17);
  std::filesystem::path path = folder_.path() / "file";
  ASSERT_TRUE(WriteFileAtomically(path, content).ok());
  ArtifactConnections connections({address_});
  auto ref = UploadFile(connections, path);
  ASSERT_TRUE(ref.ok()) << ref.status();
  EXPECT_EQ(Content(*ref), content);

  std::string got;
  ASSERT_TRUE(Download(*ref, 0, got).ok());
  EXPECT_EQ(got, content);
  ASSERT_TRUE(DownloadFile(connections, *ref, folder_.path() / "back").ok());
}

TEST_F(ArtifactServiceTest, APartIsHandedOverAndIsNoArtifact) {
  const std::string content = Patterned((2 << 20) + 17);
  const std::filesystem::path path = folder_.path() / "file";
  ASSERT_TRUE(WriteFileAtomically(path, content).ok());
  v1::AttemptId attempt;
  attempt.set_job("job");
  ArtifactConnections connections({address_});
  const absl::Status sent = UploadPart(connections, MakePartOf(attempt, 3), RefOf(content), path);
  ASSERT_TRUE(sent.ok()) << sent;
  EXPECT_FALSE(store_->Has(RefOf(content)));
  EXPECT_EQ(*ReadFile(PartFolder(store_->folder(), MakePartOf(attempt, 3)) / RefOf(content).sha256()), content);
  EXPECT_THAT(UploadPart(connections, MakePartOf(attempt, 3), RefOf("other"), path),
              HasCode(absl::StatusCode::kDataLoss));
}

// A job goes on when the orchestrator is back, and a worker's connections for files may hear of that later than its
// session.
TEST_F(ArtifactServiceTest, AWorkersTransfersWaitForAnOrchestratorThatIsAway) {
  const v1::ArtifactRef ref = Put("hello");
  ArtifactConnections worker({address_}, 1, ArtifactConnections::Absent::kAwait), client({address_}, 1);
  server_->Shutdown();
  EXPECT_THAT(DownloadFile(client, ref, folder_.path() / "client"), HasCode(absl::StatusCode::kUnavailable));
  absl::Status fetched = absl::UnknownError("not yet");
  {
    const std::jthread fetch([&] { fetched = DownloadFile(worker, ref, folder_.path() / "worker"); });
    ASSERT_NE(Serve(address_), 0);
  }
  EXPECT_TRUE(fetched.ok()) << fetched;
}

TEST_F(ArtifactServiceTest, DownloadsFromAnOffset) {
  v1::ArtifactRef ref = Put("0123456789");
  std::string got;
  ASSERT_TRUE(Download(ref, 7, got).ok());
  EXPECT_EQ(got, "789");
  got.clear();
  ASSERT_TRUE(Download(ref, 10, got).ok());
  EXPECT_EQ(got, "");
}

TEST_F(ArtifactServiceTest, DownloadsARange) {
  const std::string content = Patterned((3 << 20) + 17);
  const v1::ArtifactRef ref = Put(content);
  for (const int64_t length : {int64_t{1}, int64_t{1} << 20, (int64_t{2} << 20) + 5}) {
    std::string got;
    ASSERT_TRUE(Download(ref, 9, got, length).ok());
    EXPECT_EQ(got, content.substr(9, length));
  }
}

TEST_F(ArtifactServiceTest, BadDownloadsAreRefused) {
  v1::ArtifactRef ref = Put("0123456789");
  std::string got;
  EXPECT_EQ(Download(ref, 11, got).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Download(ref, -1, got).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Download(ref, 7, got, 4).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Download(ref, 7, got, -1).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Download(RefOf("nothing"), 0, got).error_code(), StatusCode::NOT_FOUND);
  ref.set_sha256("../" + std::string(61, 'a'));
  EXPECT_EQ(Download(ref, 0, got).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Download({}, 0, got).error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(ArtifactServiceTest, UploadsThatBreakTheProtocolAreRefused) {
  const v1::UploadArtifactRequest ref = RefPart(RefOf("hello"));
  EXPECT_EQ(Upload({}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Upload({v1::UploadArtifactRequest()}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Upload({DataPart("hello")}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Upload({ref, ref}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Upload({RefPart({})}).error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(CountFiles(), 0);
}

TEST_F(ArtifactServiceTest, BytesThatAreNoMessageAreRefused) {
  grpc::Slice slice("\xff\xff\xff\xff");
  grpc::GenericStub stub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  for (const char* method : {"UploadArtifact", "DownloadArtifact"}) {
    RawCall call(stub, absl::StrCat("/gpipe.v1.ArtifactService/", method), {});
    call.WriteLast(grpc::ByteBuffer(&slice, 1));
    const absl::Status refused = call.Finish();
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
    EXPECT_NE(refused.message().find("Request"), std::string::npos) << refused;
  }
}

TEST_F(ArtifactServiceTest, UploadsOfOtherBytesAreDataLoss) {
  const v1::UploadArtifactRequest ref = RefPart(RefOf("hello"));
  EXPECT_EQ(Upload({ref}).error_code(), StatusCode::DATA_LOSS);
  EXPECT_EQ(Upload({ref, DataPart("hell0")}).error_code(), StatusCode::DATA_LOSS);
  EXPECT_EQ(Upload({ref, DataPart("hello"), DataPart("!")}).error_code(), StatusCode::DATA_LOSS);
  EXPECT_EQ(CountFiles(), 0);
  EXPECT_TRUE(Upload({ref, DataPart("hel"), DataPart(""), DataPart("lo")}).ok());
  EXPECT_TRUE(store_->Has(RefOf("hello")));
}

TEST_F(ArtifactServiceTest, AnEmptyFileGoesUp) {
  EXPECT_TRUE(Upload({RefPart(RefOf(""))}).ok());
  EXPECT_TRUE(store_->Has(RefOf("")));
}

TEST_F(ArtifactServiceTest, ACancelledUploadLeavesNothing) {
  {
    grpc::ClientContext context;
    v1::UploadArtifactResponse response;
    auto writer = stub_->UploadArtifact(&context, &response);
    ASSERT_TRUE(writer->Write(RefPart(RefOf("hello"))));
    context.TryCancel();
    EXPECT_EQ(writer->Finish().error_code(), StatusCode::CANCELLED);
  }
  server_->Shutdown();  // Waits for the call's end on this side.
  EXPECT_EQ(CountFiles(), 0);
}

TEST_F(ArtifactServiceTest, FindsWhatIsMissing) {
  v1::FindMissingArtifactsRequest request;
  *request.add_refs() = Put("here");
  *request.add_refs() = RefOf("missing");
  grpc::ClientContext context;
  v1::FindMissingArtifactsResponse response;
  ASSERT_TRUE(stub_->FindMissingArtifacts(&context, request, &response).ok());
  ASSERT_EQ(response.missing_size(), 1);
  EXPECT_EQ(response.missing(0).sha256(), RefOf("missing").sha256());
}

TEST_F(ArtifactServiceTest, BadRefsAreNamedByField) {
  v1::FindMissingArtifactsRequest request;
  *request.add_refs() = RefOf("fine");
  request.add_refs()->set_sha256("nonsense");
  grpc::ClientContext context;
  v1::FindMissingArtifactsResponse response;
  grpc::Status status = stub_->FindMissingArtifacts(&context, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("refs[1]"));
}

TEST_F(ArtifactServiceTest, TooManyRefsAreRefused) {
  v1::FindMissingArtifactsRequest request;
  for (int i = 0; i <= ArtifactService::kMaxRefs; ++i) request.add_refs();
  grpc::ClientContext context;
  v1::FindMissingArtifactsResponse response;
  EXPECT_EQ(stub_->FindMissingArtifacts(&context, request, &response).error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(ArtifactServiceTest, ManyClientsAtOnce) {
  std::vector<std::jthread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([this, i] {
      const std::string content = std::to_string(i) + Patterned(2 << 20);
      EXPECT_TRUE(Upload({RefPart(RefOf(content)), DataPart(content)}).ok());
      std::string got;
      EXPECT_TRUE(Download(RefOf(content), 0, got).ok());
      EXPECT_EQ(got, content);
    });
  }
}

// A file thread and one of gRPC's may end a call at the same moment: the sanitizers see whether one of them touches
// what the other has deleted.
TEST_F(ArtifactServiceTest, CallsThatEndOnBothSidesAtOnce) {
  const v1::ArtifactRef file = Put("a file");
  std::vector<std::jthread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([this, &file] {
      for (int call = 0; call < 200; ++call) {
        EXPECT_EQ(Upload({RefPart({})}).error_code(), StatusCode::INVALID_ARGUMENT);
        std::string got;
        EXPECT_TRUE(Download(file, 0, got).ok());
      }
    });
  }
}

TEST_F(ArtifactServiceTest, WhatACallerMayNotReadOrWriteIsRefused) {
  const v1::ArtifactRef mine = Put("mine"), other = Put("other");
  access_.may_read = [&](const v1::ArtifactRef& file) {
    return file.sha256() == mine.sha256() ? absl::OkStatus() : absl::PermissionDeniedError("not yours");
  };
  access_.may_write = [](const v1::UploadArtifactRequest& first) {
    return first.has_part_of() ? absl::OkStatus() : absl::PermissionDeniedError("not yours");
  };
  std::string got;
  EXPECT_TRUE(Download(mine, 0, got).ok());
  EXPECT_EQ(Download(other, 0, got).error_code(), StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Upload({RefPart(RefOf("new")), DataPart("new")}).error_code(), StatusCode::PERMISSION_DENIED);
  EXPECT_FALSE(store_->Has(RefOf("new")));
  v1::UploadArtifactRequest part = RefPart(RefOf("new"));
  part.mutable_part_of()->mutable_attempt()->set_job("job");
  EXPECT_TRUE(Upload({part, DataPart("new")}).ok());
}

class ArtifactLimitsTest : public ArtifactServiceTest {
 protected:
  ArtifactLimitsTest()
      : ArtifactServiceTest({.uploads = {.most = 2, .patience = absl::Seconds(3)},
                             .downloads = {.most = 0, .patience = absl::InfiniteDuration()}}) {}
};

TEST_F(ArtifactLimitsTest, MoreAtOnceAreRefusedAndThoseThatNeverEndAreCollected) {
  std::string got;
  EXPECT_EQ(Download(Put("x"), 0, got).error_code(), StatusCode::RESOURCE_EXHAUSTED);

  const auto files = [&] {
    const std::filesystem::recursive_directory_iterator all(store_->folder());
    return std::count_if(begin(all), end(all), [](const auto& entry) { return entry.is_regular_file(); });
  };
  const auto before = files();
  grpc::ClientContext contexts[2];
  v1::UploadArtifactResponse responses[2];
  std::vector<std::unique_ptr<grpc::ClientWriter<v1::UploadArtifactRequest>>> silent;
  for (int i = 0; i < 2; ++i) {
    silent.push_back(stub_->UploadArtifact(&contexts[i], &responses[i]));
    ASSERT_TRUE(silent.back()->Write(RefPart(RefOf(absl::StrCat("silent ", i)))));
  }
  while (files() < before + 2) std::this_thread::yield();  // Until both are there.
  EXPECT_EQ(Upload({RefPart(RefOf("new")), DataPart("new")}).error_code(), StatusCode::RESOURCE_EXHAUSTED);
  for (auto& upload : silent) EXPECT_EQ(upload->Finish().error_code(), StatusCode::CANCELLED);
  while (files() > before) std::this_thread::yield();  // The client hears of it first.
  StatusCode after = StatusCode::RESOURCE_EXHAUSTED;
  while (after == StatusCode::RESOURCE_EXHAUSTED) after = Upload({RefPart(RefOf("new")), DataPart("new")}).error_code();
  EXPECT_EQ(after, StatusCode::OK);
}

}  // namespace
}  // namespace gpipe::orchestrator
