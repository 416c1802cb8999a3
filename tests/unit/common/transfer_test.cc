// Transfers against a server in this process that keeps files in memory and can be told to misbehave.

#include "common/artifacts/transfer.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "common/artifacts/file_stamp.h"
#include "common/artifacts/hash_memory.h"
#include "common/file.h"
#include "common/sha256.h"
#include "gmock/gmock.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"

namespace gpipe {
namespace {

// The tests use it from one call at a time, but for downloads, which change nothing.
class MemoryArtifacts : public v1::ArtifactService::Service {
 public:
  grpc::Status FindMissingArtifacts(grpc::ServerContext*, const v1::FindMissingArtifactsRequest* request,
                                    v1::FindMissingArtifactsResponse* response) override {
    if (on_asked) on_asked();
    for (const v1::ArtifactRef& ref : request->refs()) {
      if (!files.contains(ref.sha256())) *response->add_missing() = ref;
    }
    return grpc::Status::OK;
  }

  grpc::Status UploadArtifact(grpc::ServerContext*, grpc::ServerReader<v1::UploadArtifactRequest>* reader,
                              v1::UploadArtifactResponse* response) override {
    ++uploads;
    if (!upload_answer.ok()) return upload_answer;
    v1::UploadArtifactRequest request;
    if (!reader->Read(&request) || !request.has_ref()) return {grpc::INVALID_ARGUMENT, "no ref"};
    const v1::ArtifactRef ref = request.ref();
    if (ref.sha256() == refuses) return {grpc::DATA_LOSS, "other bytes"};
    std::string content;
    while (reader->Read(&request)) {
      largest_piece = std::max(largest_piece, request.data().size());
      content += request.data();
    }
    files[ref.sha256()] = content;
    *response->mutable_ref() = ref;
    return grpc::Status::OK;
  }

  grpc::Status DownloadArtifact(grpc::ServerContext*, const v1::DownloadArtifactRequest* request,
                                grpc::ServerWriter<v1::DownloadArtifactResponse>* writer) override {
    const auto found = files.find(request->ref().sha256());
    if (found == files.end()) return {grpc::NOT_FOUND, "no such artifact"};
    v1::DownloadArtifactResponse piece;
    const size_t length = request->length() > 0 ? static_cast<size_t>(request->length()) : std::string::npos;
    const std::string wanted = found->second.substr(static_cast<size_t>(request->offset()), length);
    for (size_t i = 0; i < wanted.size(); i += 100'000) {
      piece.set_data(wanted.substr(i, 100'000));
      writer->Write(piece);
    }
    return download_answer;
  }

  std::map<std::string, std::string> files;
  std::function<void()> on_asked;
  std::string refuses;  // Whose bytes are found to be others.
  int uploads = 0;
  size_t largest_piece = 0;
  grpc::Status upload_answer;
  grpc::Status download_answer;
};

class TransferTest : public testing::Test {
 protected:
  void SetUp() override {
    auto folder = TemporaryFolder::Create("transfer_test");
    ASSERT_TRUE(folder.ok()) << folder.status();
    folder_.emplace(*std::move(folder));
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    connections_.emplace(Endpoint{"127.0.0.1:" + std::to_string(port)});
  }
  void TearDown() override {
    if (server_) server_->Shutdown();
  }

  std::filesystem::path At(const char* name) const { return folder_->path() / name; }
  std::filesystem::path Write(const std::string& content) const {
    EXPECT_TRUE(WriteFileAtomically(At("source"), content).ok());
    return At("source");
  }

  std::optional<TemporaryFolder> folder_;
  MemoryArtifacts service_;
  std::unique_ptr<grpc::Server> server_;
  std::optional<ArtifactConnections> connections_;
};

TEST_F(TransferTest, FilesArriveWholeInBoundedPieces) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{1} << 20, (size_t{3} << 20) + 17}) {
    const std::string content(size, static_cast<char>('a' + size % 7));
    const auto ref = UploadFile(*connections_, Write(content));
    ASSERT_TRUE(ref.ok()) << ref.status();
    EXPECT_EQ(ref->size(), static_cast<int64_t>(size));
    EXPECT_EQ(service_.files.at(ref->sha256()), content);
    ASSERT_TRUE(DownloadFile(*connections_, *ref, At("copy")).ok());
    EXPECT_EQ(*ReadFile(At("copy")), content);
  }
  EXPECT_EQ(service_.largest_piece, size_t{1} << 20);
}

TEST_F(TransferTest, WhatIsThereIsNotSentAgain) {
  const auto path = Write("content");
  ASSERT_TRUE(UploadFile(*connections_, path).ok());
  ASSERT_TRUE(UploadFile(*connections_, path).ok());
  EXPECT_EQ(service_.uploads, 1);
}

// The server ends the call while most of the file is still unsent.
TEST_F(TransferTest, AnEarlyRefusalIsReportedAsTheServerSaidIt) {
  service_.upload_answer = grpc::Status(grpc::RESOURCE_EXHAUSTED, "cannot write x: disk full");
  const auto ref = UploadFile(*connections_, Write(std::string(20 << 20, 'x')));
  EXPECT_EQ(ref.status(), absl::ResourceExhaustedError("cannot write x: disk full"));
}

TEST_F(TransferTest, MissingFilesAndFoldersAreNamed) {
  EXPECT_EQ(UploadFile(*connections_, At("none")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(UploadFile(*connections_, At("none")).status().message()),
              testing::HasSubstr(At("none").string()));
  EXPECT_EQ(UploadFile(*connections_, folder_->path()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(service_.uploads, 0);
}

TEST_F(TransferTest, OtherContentIsDataLossAndLeavesNoFile) {
  const auto ref = UploadFile(*connections_, Write("content"));
  ASSERT_TRUE(ref.ok());
  service_.files[ref->sha256()] = "CONTENT";
  EXPECT_EQ(DownloadFile(*connections_, *ref, At("copy")).code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(std::filesystem::exists(At("copy")));
}

TEST_F(TransferTest, AFailedDownloadLeavesNoFile) {
  v1::ArtifactRef absent;
  absent.set_sha256(std::string(64, 'a'));
  EXPECT_EQ(DownloadFile(*connections_, absent, At("copy")), absl::NotFoundError("no such artifact"));
  const auto ref = UploadFile(*connections_, Write("content"));
  service_.download_answer = grpc::Status(grpc::UNAVAILABLE, "going away");
  EXPECT_EQ(DownloadFile(*connections_, *ref, At("copy")), absl::UnavailableError("going away"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_->path()), {}), 1);
}

TEST_F(TransferTest, ARangeIsReadIntoPlace) {
  const std::string content = std::string(300'000, 'a') + std::string(300'000, 'b');
  const auto ref = UploadFile(*connections_, Write(content));
  std::string data(200'000, ' ');
  ASSERT_TRUE(ReadRange(*connections_, *ref, 250'000, absl::MakeSpan(data)).ok());
  EXPECT_EQ(data, content.substr(250'000, 200'000));
  service_.files[ref->sha256()].resize(300'000);
  EXPECT_EQ(ReadRange(*connections_, *ref, 250'000, absl::MakeSpan(data)).code(), absl::StatusCode::kDataLoss);
  service_.files.clear();
  EXPECT_EQ(ReadRange(*connections_, *ref, 0, absl::MakeSpan(data)), absl::NotFoundError("no such artifact"));
}

TEST_F(TransferTest, ProgressIsToldAndAStopIsHeeded) {
  std::stop_source stop;
  int64_t sent = 0, fetched = 0;
  TransferOptions options;
  options.stop = stop.get_token();
  options.on_progress = [&](const FileProgress& progress) {
    EXPECT_EQ(progress.total, 5'000'000);
    if (progress.doing == FileProgress::Doing::kSending) sent = progress.done;
    if (progress.doing == FileProgress::Doing::kFetching) fetched = progress.done;
    if (fetched > 1'000'000) stop.request_stop();
  };
  const auto ref = UploadFile(*connections_, Write(std::string(5'000'000, 'x')), options);
  ASSERT_TRUE(ref.ok()) << ref.status();
  EXPECT_EQ(sent, 5'000'000);
  EXPECT_EQ(DownloadFile(*connections_, *ref, At("copy"), options).code(), absl::StatusCode::kCancelled);
  EXPECT_LT(fetched, 5'000'000);
  EXPECT_FALSE(std::filesystem::exists(At("copy")));
  EXPECT_EQ(UploadFile(*connections_, At("source"), options).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(TransferTest, AStopIsHeededWhileTheServerIsSilent) {
  std::stop_source stop;
  TransferOptions options;
  options.stop = stop.get_token();
  const auto over = std::make_shared<absl::Notification>();  // The server may look at it when this test is over.
  service_.on_asked = [stop, over]() mutable {
    stop.request_stop();
    EXPECT_TRUE(over->WaitForNotificationWithTimeout(absl::Seconds(30)));
  };
  const auto ref = UploadFile(*connections_, Write("content"), options);
  over->Notify();
  EXPECT_EQ(ref.status().code(), absl::StatusCode::kCancelled);
}

// As on a file system whose times do not tell of a change.
TEST_F(TransferTest, AMemoryThatIsWrongIsPutRight) {
  const auto path = Write("content");
  std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  HashMemory memory({});
  memory.Remember(path, *StampOf(path), std::string(64, 'a'), absl::Now() + absl::Hours(1));
  service_.refuses = std::string(64, 'a');
  TransferOptions options;
  options.memory = &memory;
  const auto ref = UploadFile(*connections_, path, options);
  ASSERT_TRUE(ref.ok()) << ref.status();
  EXPECT_EQ(service_.files.at(ref->sha256()), "content");
}

// More parts than connections, so that each connection gets several, in whatever order.
TEST_F(TransferTest, ALargeFileComesOverAllConnections) {
  std::string content((size_t{100} << 20) + 17, '\0');
  for (size_t i = 0; i < content.size(); i += 4096) content[i] = static_cast<char>(i >> 12 | i >> 20);
  v1::ArtifactRef ref = *UploadFile(*connections_, Write(content));
  ASSERT_TRUE(DownloadFile(*connections_, ref, At("copy")).ok());
  EXPECT_TRUE(*ReadFile(At("copy")) == content);
  std::string data(content.size() - 12'345, ' ');
  ASSERT_TRUE(ReadRange(*connections_, ref, 12'345, absl::MakeSpan(data)).ok());
  EXPECT_TRUE(data == content.substr(12'345));
  service_.download_answer = grpc::Status(grpc::UNAVAILABLE, "going away");
  EXPECT_EQ(ReadRange(*connections_, ref, 0, absl::MakeSpan(data)), absl::UnavailableError("going away"));
  EXPECT_EQ(DownloadFile(*connections_, ref, At("copy")), absl::UnavailableError("going away"));
}

TEST_F(TransferTest, NothingIsReadOfNothing) {
  const auto ref = UploadFile(*connections_, Write("content"));
  EXPECT_TRUE(ReadRange(*connections_, *ref, 3, {}).ok());
}

TEST_F(TransferTest, AServerThatIsAwayIsUnavailable) {
  server_->Shutdown();
  EXPECT_EQ(UploadFile(*connections_, Write("content")).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace gpipe
