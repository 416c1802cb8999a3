#include "orchestrator/artifacts/artifact_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error_reason.h"
#include "common/field_error.h"
#include "common/grpc_status.h"
#include "common/string_view.h"
#include "orchestrator/artifacts/download_call.h"
#include "orchestrator/artifacts/upload_call.h"

namespace gpipe::orchestrator {
namespace {

// Before it waits for a thread: thousands may wait, and one can be hundreds of megabytes.
absl::Status CheckCount(const v1::FindMissingArtifactsRequest& request) {
  if (request.refs_size() <= ArtifactService::kMaxRefs) return absl::OkStatus();
  return FieldError("refs", absl::StrCat("has ", request.refs_size(), " entries, at most ", ArtifactService::kMaxRefs,
                                         " are allowed"));
}

// What is missing will be given next, and what is here be counted on.
absl::Status FindMissing(ArtifactStore& store, const v1::FindMissingArtifactsRequest& request,
                         v1::FindMissingArtifactsResponse& response) {
  for (int i = 0; i < request.refs_size(); ++i) {
    absl::Status found = store.Claim(request.refs(i)).status();
    if (absl::IsInvalidArgument(found)) return FieldError(absl::StrCat("refs[", i, "]"), StdView(found.message()));
    if (!found.ok()) *response.add_missing() = request.refs(i);
  }
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* ArtifactService::FindMissingArtifacts(grpc::CallbackServerContext* context,
                                                                const v1::FindMissingArtifactsRequest* request,
                                                                v1::FindMissingArtifactsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  if (absl::Status counted = CheckCount(*request); !counted.ok()) {
    reactor->Finish(ToGrpc(counted));
    return reactor;
  }
  const auto answer = [=, this] { reactor->Finish(ToGrpc(FindMissing(*store_, *request, *response))); };
  if (!pieces_.Run(answer))
    reactor->Finish(
        ToGrpc(WithReason(absl::ResourceExhaustedError("too many files are asked for at once"), reason::kOverloaded)));
  return reactor;
}

grpc::ServerReadReactor<grpc::ByteBuffer>* ArtifactService::UploadArtifact(grpc::CallbackServerContext* context,
                                                                           grpc::ByteBuffer* response) {
  auto place = uploads_.Enter([context] { context->TryCancel(); });
  return new UploadCall({*store_, pieces_, commits_}, std::move(place), access_of_(*context).may_write, response);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* ArtifactService::DownloadArtifact(grpc::CallbackServerContext* context,
                                                                              const grpc::ByteBuffer* request) {
  auto place = downloads_.Enter([context] { context->TryCancel(); });
  return new DownloadCall(*store_, pieces_, std::move(place), access_of_(*context).may_read, *request);
}

}  // namespace gpipe::orchestrator
