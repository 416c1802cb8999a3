#include "common/grpc_status.h"

#include <string>
#include <utility>

#include "absl/strings/cord.h"
#include "common/error_reason.h"
#include "common/printable.h"
#include "common/utf8.h"
#include "google/rpc/error_details.pb.h"

namespace gpipe {
namespace {

// By default gRPC takes 8 KiB of trailers; of more, the caller would only see RESOURCE_EXHAUSTED. On the way the
// message grows by up to three times (percent-encoding), the details by a third (base64).
constexpr size_t kMaxMessageBytes = 1024;
constexpr size_t kMaxDetailsBytes = 3072;
constexpr size_t kLastLineBytes = 16;

void ShortenMessage(google::rpc::Status& status) {
  if (status.message().size() <= kMaxMessageBytes) return;
  status.set_message(std::string(Utf8Prefix(status.message().substr(0, kMaxMessageBytes))) + " ...");
}

// Drops violations from the end until all of `status` fits, and says so in a last line.
void ShortenBadRequest(google::rpc::Status& status, google::protobuf::Any& detail) {
  google::rpc::BadRequest bad_request;
  if (status.ByteSizeLong() <= kMaxDetailsBytes || !detail.UnpackTo(&bad_request)) return;
  auto& violations = *bad_request.mutable_field_violations();
  while (status.ByteSizeLong() > kMaxDetailsBytes - kLastLineBytes && !violations.empty()) {
    violations.RemoveLast();
    detail.set_value(bad_request.SerializeAsString());
  }
  violations.Add()->set_description("and more");
  detail.set_value(bad_request.SerializeAsString());
}

// The shortest of the details, and the one that programs go by.
void KeepReasonOnly(google::rpc::Status& status) {
  google::protobuf::RepeatedPtrField<google::protobuf::Any> details;
  details.Swap(status.mutable_details());
  for (google::protobuf::Any& detail : details) {
    if (detail.Is<google::rpc::ErrorInfo>()) *status.add_details() = std::move(detail);
  }
  if (status.ByteSizeLong() > kMaxDetailsBytes) status.clear_details();
}

void Shorten(google::rpc::Status& status) {
  ShortenMessage(status);
  for (google::protobuf::Any& detail : *status.mutable_details()) ShortenBadRequest(status, detail);
  if (status.ByteSizeLong() > kMaxDetailsBytes) KeepReasonOnly(status);
}

}  // namespace

google::rpc::Status ToProto(const absl::Status& status) {
  google::rpc::Status proto;
  proto.set_code(static_cast<int>(status.code()));
  proto.set_message(std::string(status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    auto* detail = proto.add_details();
    detail->set_type_url(std::string(url));
    detail->set_value(std::string(payload));
  });
  return proto;
}

absl::Status FromProto(const google::rpc::Status& proto) {
  absl::Status status(static_cast<absl::StatusCode>(proto.code()), proto.message());
  for (const auto& detail : proto.details()) status.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  return status;
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status proto = ToProto(WithSomeReason(status));
  proto.set_message(Printable(proto.message()));
  Shorten(proto);
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), proto.message(), proto.SerializeAsString());
}

absl::Status FromGrpc(const grpc::Status& status) {
  google::rpc::Status proto;
  const bool has_details = !status.error_details().empty() && proto.ParseFromString(status.error_details());
  if (has_details && proto.code() == status.error_code()) return FromProto(proto);
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace gpipe
