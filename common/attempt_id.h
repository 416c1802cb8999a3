#ifndef GPIPE_COMMON_ATTEMPT_ID_H_
#define GPIPE_COMMON_ATTEMPT_ID_H_

#include "gpipe/v1/worker_session.pb.h"

namespace gpipe {

inline bool SameAttempt(const v1::AttemptId& a, const v1::AttemptId& b) {
  return a.job() == b.job() && a.attempt() == b.attempt();
}

}  // namespace gpipe

#endif  // GPIPE_COMMON_ATTEMPT_ID_H_
