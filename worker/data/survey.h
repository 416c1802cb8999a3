#ifndef GPIPE_WORKER_DATA_SURVEY_H_
#define GPIPE_WORKER_DATA_SURVEY_H_

#include "gpipe/v1/worker_session.pb.h"
#include "worker/data/shared_files.h"

namespace gpipe::worker {

// Answers what is under shared paths: from the headers of files and, of tokens, some pieces of them. Blocking; any
// thread.
v1::Surveyed AnswerSurvey(const v1::Survey& request, const SharedFiles& shared);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_DATA_SURVEY_H_
