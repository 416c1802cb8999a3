#include "orchestrator/web/web_api.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/string_view.h"
#include "google/protobuf/descriptor.h"
#include "grpcpp/security/credentials.h"
#include "orchestrator/web/api_call.h"
#include "orchestrator/web/api_json.h"
#include "orchestrator/web/api_routes.h"
#include "orchestrator/web/http_errors.h"
#include "orchestrator/web/watch_events.h"

namespace gpipe::orchestrator {
namespace {

using google::protobuf::Message;
using google::protobuf::MethodDescriptor;

constexpr absl::Duration kAnswerWithin = absl::Seconds(30);
constexpr absl::Duration kFirstUpdateWithin = absl::Seconds(1);
constexpr std::string_view kBearer = "Bearer ";

std::unique_ptr<Message> MakeMessage(const google::protobuf::Descriptor& type) {
  return std::unique_ptr<Message>(google::protobuf::MessageFactory::generated_factory()->GetPrototype(&type)->New());
}

std::string HeaderOf(const HttpRequest& request, const std::string& name) {
  const auto found = request.headers.find(name);
  return found == request.headers.end() ? "" : found->second;
}

HttpResponse JsonResponse(std::string json) {
  HttpResponse response;
  response.content_type = "application/json";
  response.body = std::move(json);
  return response;
}

absl::StatusOr<std::string> Ask(ApiCall& call, const MethodDescriptor& method, const FieldSelection& wanted) {
  const std::unique_ptr<Message> answer = MakeMessage(*method.output_type());
  switch (call.Next(kAnswerWithin, *answer)) {
    case ApiCall::Got::kMessage:
      wanted.Trim(*answer);
      return ToJson(*answer);
    case ApiCall::Got::kNothingYet:
      return absl::DeadlineExceededError("the orchestrator has not answered in time; try again later");
    case ApiCall::Got::kEnd:
      break;
  }
  GPIPE_RETURN_IF_ERROR(call.Finish());
  return absl::InternalError("the orchestrator has answered with nothing");
}

HttpResponse Watch(std::unique_ptr<ApiCall> call, const MethodDescriptor& method, UpdateEvents& events) {
  auto stream = std::make_shared<WatchEvents>(std::move(call), *method.output_type(), events);
  if (absl::Status begun = stream->Begin(kFirstUpdateWithin); !begun.ok()) return ErrorResponse(begun);
  HttpResponse response = HttpResponse::Events(std::move(stream));
  response.headers["X-Accel-Buffering"] = "no";  // A proxy that collects an answer would hold the events back.
  return response;
}

// gRPC takes no other characters along, and ends the process where it is given one.
bool IsToken(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~'; });
}

absl::Status CheckToken(const HttpRequest& request) {
  const std::string header = HeaderOf(request, "authorization");
  if (!header.empty() && !(header.starts_with(kBearer) && IsToken(std::string_view(header).substr(kBearer.size())))) {
    return absl::UnauthenticatedError("the Authorization header is not `Bearer TOKEN`");
  }
  if (!header.empty() || request.method == "GET" || request.method == "HEAD") return absl::OkStatus();
  return absl::UnauthenticatedError("what changes something needs a token: send `Authorization: Bearer TOKEN`");
}

}  // namespace

WebApi::WebApi(WebOptions options) : options_(std::move(options)), stub_(options_.channel) {}

HttpResponse WebApi::Answer(const HttpRequest& request) {
  if (request.path == absl::StrCat(AbslView(kApiRoot), "access")) return AnswerAccess();
  const ApiMatch match = FindApiRoute(request.method == "HEAD" ? "GET" : request.method, request.path);
  if (match.route == nullptr) {
    HttpResponse refused = ErrorResponse(absl::NotFoundError("there is no such path in the API"));
    if (match.known_path) refused.status = 405;
    return refused;
  }
  if (absl::Status may = CheckToken(request); !may.ok()) return ErrorResponse(may);
  const MethodDescriptor& method = MethodOf(*match.route);
  std::map<std::string, std::string> fields = request.query;
  const FieldSelection wanted(fields["fields"]);
  fields.erase("fields");
  if (!match.field.empty()) fields[match.field] = match.value;
  const std::unique_ptr<Message> message = MakeMessage(*method.input_type());
  if (absl::Status read = ReadRequest(request.body, fields, *message); !read.ok()) return ErrorResponse(read);
  auto call = std::make_unique<ApiCall>(stub_, method, *message, TokenFor(request));
  if (method.server_streaming()) return Watch(std::move(call), method, events_);
  absl::StatusOr<std::string> json = Ask(*call, method, wanted);
  return json.ok() ? JsonResponse(*std::move(json)) : ErrorResponse(json.status());
}

// Whether tokens mean anything here: what the page says to who wants to control jobs.
HttpResponse WebApi::AnswerAccess() const {
  return JsonResponse(absl::StrCat("{\"open\":", options_.open ? "true" : "false", "}"));
}

std::string WebApi::TokenFor(const HttpRequest& request) const {
  const std::string header = HeaderOf(request, "authorization");
  return header.empty() ? options_.reader_token : header.substr(kBearer.size());
}

}  // namespace gpipe::orchestrator
