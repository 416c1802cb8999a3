#ifndef GPIPE_COMMON_SPEC_CLIENT_DATA_H_
#define GPIPE_COMMON_SPEC_CLIENT_DATA_H_

#include <optional>
#include <string>

#include "common/field_error.h"
#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/plan.pb.h"

namespace gpipe::spec {

// Whether a client asks for the job's rounds, instead of a timeline.
inline bool HasClientData(const v1::JobSpec& spec) { return spec.train().dataset().has_client(); }

// The type of ClientInput.dtype; nullopt: there is no such type.
std::optional<v1::DataType> ClientDtype(const std::string& dtype);

// Whether a path that a client names is that of a file in the job's exchange folder, ClientData.exchange.
bool IsInExchangeFolder(const std::string& folder, const std::string& path);

// What is wrong with a job of client data, which has no use for what a timeline needs. REQUIRES: HasClientData.
void CheckClientData(const v1::JobSpec& spec, FieldErrors& errors);

}  // namespace gpipe::spec

#endif  // GPIPE_COMMON_SPEC_CLIENT_DATA_H_
