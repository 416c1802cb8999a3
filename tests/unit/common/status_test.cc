#include "absl/status/status.h"

#include <string>

#include "common/error_reason.h"
#include "common/field_error.h"
#include "common/grpc_status.h"
#include "common/string_view.h"
#include "common/utf8.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"

namespace gpipe {
namespace {

constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";

TEST(FieldErrorsTest, AreOkWhenThereAreNone) { EXPECT_TRUE(FieldErrors().ToStatus().ok()); }

TEST(FieldErrorsTest, ListEachInMessageAndPayload) {
  FieldErrors errors;
  errors.Add("a.b[1]", "is bad");
  errors.Add("", "is worse");
  const absl::Status status = errors.ToStatus();
  EXPECT_EQ(status, [&] {
    absl::Status expected = absl::InvalidArgumentError("a.b[1]: is bad\nis worse");
    status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) { expected.SetPayload(url, payload); });
    return expected;
  }());
  const auto violations = FieldViolations(status);
  ASSERT_EQ(violations.size(), 2u);
  EXPECT_EQ(violations[0].field, "a.b[1]");
  EXPECT_EQ(violations[1].description, "is worse");
}

TEST(FieldErrorsTest, KeepTheFirstHundredAndCountTheRest) {
  FieldErrors errors;
  for (int i = 0; i < 250; ++i) errors.Add("f" + std::to_string(i), "is bad");
  const auto violations = FieldViolations(errors.ToStatus());
  ASSERT_EQ(violations.size(), 101u);
  EXPECT_EQ(violations[99].field, "f99");
  EXPECT_EQ(violations[100].description, "and 150 more");
}

TEST(FieldErrorsTest, OtherStatusesCarryNone) {
  EXPECT_TRUE(FieldViolations(absl::OkStatus()).empty());
  EXPECT_TRUE(FieldViolations(absl::InvalidArgumentError("field: bad")).empty());
}

TEST(GrpcStatusTest, EveryCodeThereAndBack) {
  EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpc(grpc::Status::OK).ok());
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    EXPECT_EQ(static_cast<int>(ToGrpc(status).error_code()), code);
    EXPECT_EQ(FromGrpc(ToGrpc(status)), WithSomeReason(status));
    EXPECT_EQ(FromProto(ToProto(status)), status);
  }
}

TEST(GrpcStatusTest, EveryErrorArrivesWithAReason) {
  const absl::Status known = WithReason(absl::NotFoundError("no job 'x'"), reason::kJobNotFound);
  EXPECT_EQ(ReasonOf(FromGrpc(ToGrpc(known))), "JOB_NOT_FOUND");
  EXPECT_EQ(ReasonOf(FromGrpc(ToGrpc(WithReason(known, "LATER")))), "JOB_NOT_FOUND") << "the first one stays";
  EXPECT_EQ(ReasonOf(FromGrpc(ToGrpc(FieldError("id", "is missing")))), "INVALID_REQUEST");
  EXPECT_EQ(ReasonOf(FromGrpc(ToGrpc(absl::ResourceExhaustedError("")))), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(ReasonOf(absl::NotFoundError("")), "");
  EXPECT_TRUE(WithReason(absl::OkStatus(), "NONE").ok());
}

TEST(GrpcStatusTest, AReasonIsKeptWhereDetailsAreTooLong) {
  absl::Status status = WithReason(absl::InternalError("why"), reason::kDiskFull);
  status.SetPayload("type.googleapis.com/google.rpc.DebugInfo", absl::Cord(std::string(10'000, 'x')));
  const grpc::Status sent = ToGrpc(status);
  EXPECT_LE(sent.error_details().size(), 3072u);
  EXPECT_EQ(ReasonOf(FromGrpc(sent)), "DISK_FULL");
}

TEST(GrpcStatusTest, PayloadsTravel) {
  absl::Status status = FieldError("model.sequential[3].linear.in_features", "must be positive");
  google::rpc::ErrorInfo info;
  info.set_reason("BAD_LAYER");
  status.SetPayload(kErrorInfoUrl, absl::Cord(absl::string_view(info.SerializeAsString())));
  const absl::Status arrived = FromGrpc(ToGrpc(status));
  EXPECT_EQ(arrived, status);
  ASSERT_EQ(FieldViolations(arrived).size(), 1u);
  EXPECT_EQ(FieldViolations(arrived)[0].field, "model.sequential[3].linear.in_features");
  EXPECT_EQ(FromProto(ToProto(status)), status);
}

TEST(GrpcStatusTest, DetailsOfAnotherCodeOrOfNoMessageAreNotTaken) {
  const std::string details = ToProto(FieldError("a", "b")).SerializeAsString();
  EXPECT_EQ(FromGrpc(grpc::Status(grpc::UNAVAILABLE, "away", details)), absl::UnavailableError("away"));
  EXPECT_EQ(FromGrpc(grpc::Status(grpc::UNAVAILABLE, "away", "\xff")), absl::UnavailableError("away"));
}

// Trailers are limited to 8 KiB; beyond, a caller would see RESOURCE_EXHAUSTED instead of the error.
TEST(GrpcStatusTest, ShortensWhatDoesNotFitTrailers) {
  FieldErrors errors;
  for (int i = 0; i < 90; ++i) errors.Add("model.sequential[" + std::to_string(i) + "].linear", std::string(100, 'x'));
  const grpc::Status status = ToGrpc(errors.ToStatus());
  EXPECT_LE(status.error_message().size(), 1100u);
  EXPECT_LE(status.error_details().size(), 3072u);
  const auto violations = FieldViolations(FromGrpc(status));
  ASSERT_GT(violations.size(), 5u);
  EXPECT_EQ(violations.front().field, "model.sequential[0].linear");
  EXPECT_EQ(violations.back().description, "and more");
  EXPECT_LE(ToGrpc(FieldError("a", std::string(100'000, 'x'))).error_details().size(), 3072u);
}

TEST(GrpcStatusTest, ShortensBetweenCharacters) {
  std::string message = "x";
  for (int i = 0; i < 1000; ++i) message += "\u20ac";
  const std::string shortened = ToGrpc(absl::InternalError(message)).error_message();
  EXPECT_LT(shortened.size(), message.size());
  EXPECT_EQ(Utf8Prefix(shortened), shortened);
}

TEST(Utf8Test, StopsAtTheFirstBadByte) {
  for (const char* good : {"", "a", "\u00e9", "\u20ac", "\U0001f600", "\ud7ff", "\ue000", "\U0010ffff"}) {
    EXPECT_EQ(Utf8Prefix(good), good);
  }
  for (const char* bad : {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xc3", "\xe2\x82", "\xc3("}) {
    EXPECT_EQ(Utf8Prefix(std::string("ok") + bad), "ok");
  }
}

}  // namespace
}  // namespace gpipe
