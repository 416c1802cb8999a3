#ifndef GPIPE_CLIENT_API_JOB_STATES_H_
#define GPIPE_CLIENT_API_JOB_STATES_H_

#include <string>

#include "gpipe/v1/job.pb.h"

namespace gpipe::client {

inline bool IsTerminal(v1::Job::State state) {
  return state == v1::Job::STATE_SUCCEEDED || state == v1::Job::STATE_FAILED || state == v1::Job::STATE_CANCELLED;
}

// `RUNNING`; a state that a newer orchestrator invented is its number.
inline std::string StateName(v1::Job::State state) {
  const std::string& name = v1::Job::State_Name(state);
  return name.empty() ? std::to_string(state) : name.substr(sizeof("STATE_") - 1);
}

}  // namespace gpipe::client

#endif  // GPIPE_CLIENT_API_JOB_STATES_H_
