#ifndef GPIPE_COMMON_ATTEMPT_ID_H_
#define GPIPE_COMMON_ATTEMPT_ID_H_

#include <string>

#include "gpipe/v1/worker_session.pb.h"

namespace gpipe {

inline bool SameAttempt(const v1::AttemptId& a, const v1::AttemptId& b) {
  return a.job() == b.job() && a.attempt() == b.attempt();
}

// How a log names it.
inline std::string AttemptName(const v1::AttemptId& id) {
  return "job " + id.job() + " attempt " + std::to_string(id.attempt());
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_ATTEMPT_ID_H_
