#ifndef GPIPE_COMMON_MALLOC_SETUP_H_
#define GPIPE_COMMON_MALLOC_SETUP_H_

#include <malloc.h>

namespace gpipe {

// For programs through which files pass: memory of pieces that were sent or received stays with the process instead of
// going back to the system with every piece and coming again as pages to be cleared, which takes a third of the
// system's time of a transfer. First thing in main. Each arena keeps up to 64 MiB at its end.
inline void KeepFreedPieces() {
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // What it would grow to by itself, had the other not been set.
}

// For servers, which strangers make large: the threads share two arenas, instead of eight for each core, so that little
// is kept where a MallocTrimmer cannot take it: at the end of an arena that is not the first. First thing in main.
inline void ShareArenas() { mallopt(M_ARENA_MAX, 2); }

}  // namespace gpipe

#endif  // GPIPE_COMMON_MALLOC_SETUP_H_
