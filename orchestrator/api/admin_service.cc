#include "orchestrator/api/admin_service.h"

#include "common/error_reason.h"
#include "orchestrator/api/back_up_call.h"

namespace gpipe::orchestrator {

grpc::ServerWriteReactor<v1::BackUpResponse>* AdminService::BackUp(grpc::CallbackServerContext* context,
                                                                   const v1::BackUpRequest* request) {
  auto* call = new BackUpCall(state_dir_, artifacts_, !request->without_files(), context);
  if (!backups_->Run([call] { call->Run(); })) {
    call->Refuse(WithReason(absl::ResourceExhaustedError("other backups are being taken"), reason::kOverloaded));
  }
  return call;
}

}  // namespace gpipe::orchestrator
