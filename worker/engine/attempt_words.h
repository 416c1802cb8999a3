#ifndef GPIPE_WORKER_ENGINE_ATTEMPT_WORDS_H_
#define GPIPE_WORKER_ENGINE_ATTEMPT_WORDS_H_

#include <string>

#include "absl/time/time.h"
#include "gpipe/v1/worker_session.pb.h"
#include "worker/checkpoint/shard_writer.h"

namespace gpipe::worker {

// What a worker says in its log about its part of an attempt; the user reads it in the job's (session/attempt_log.h).

// `stage 1 of 3 (layers 4 to 7)`, of those that the assignment gives to this worker; layers are counted from 0.
std::string HostedStagesOf(const v1::Assignment& assignment);

// `w0, w2`: the others of the attempt.
std::string PeersOf(const v1::Assignment& assignment);

// `in 0.24 s`: since then.
std::string InSeconds(absl::Time begun);

// `12.5 MB`, or in kB, of all files together.
std::string SizeOf(const Refs& files);
std::string SizeOf(int64_t bytes);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_ENGINE_ATTEMPT_WORDS_H_
