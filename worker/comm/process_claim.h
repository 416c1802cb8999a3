#ifndef GPIPE_WORKER_COMM_PROCESS_CLAIM_H_
#define GPIPE_WORKER_COMM_PROCESS_CLAIM_H_

#include <string_view>

namespace gpipe::worker {

// Takes `name`, of at most 100 bytes, for this process until it ends, however it ends. False: another process of this
// machine has it. (A FileLock would need a folder that all users can write to.) It is a name among Unix sockets, seen
// by the processes of one network namespace: containers with networks of their own do not see each other's.
bool ClaimForProcess(std::string_view name);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_COMM_PROCESS_CLAIM_H_
