#ifndef GPIPE_ORCHESTRATOR_SCHEDULING_LOSS_JUDGEMENT_H_
#define GPIPE_ORCHESTRATOR_SCHEDULING_LOSS_JUDGEMENT_H_

#include <string>

#include "gpipe/v1/worker_session.pb.h"

namespace gpipe::orchestrator {

// What a user must know when the loss that his model computes of some samples is not the mean of what it computes of
// their two halves, so that training in micro-batches is not what training without them would be; empty when it is.
std::string JudgeLoss(const v1::LossChecked& losses);

}  // namespace gpipe::orchestrator

#endif  // GPIPE_ORCHESTRATOR_SCHEDULING_LOSS_JUDGEMENT_H_
