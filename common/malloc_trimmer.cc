#include "common/malloc_trimmer.h"

#include <malloc.h>

#include "common/logging.h"

namespace gpipe {

MallocTrimmer::MallocTrimmer()
    : thread_([this] {
        SetThreadName("malloc-trimmer");
        while (!stopped_.WaitForNotificationWithTimeout(kInterval)) malloc_trim(0);
      }) {}

MallocTrimmer::~MallocTrimmer() { stopped_.Notify(); }

}  // namespace gpipe
