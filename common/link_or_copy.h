#ifndef GPIPE_COMMON_LINK_OR_COPY_H_
#define GPIPE_COMMON_LINK_OR_COPY_H_

#include <filesystem>

#include "absl/status/statusor.h"

namespace gpipe {

// A hard link is one file under two names: who writes through one of them changes the other. When that is harmless:
enum class HardLinks {
  // Somebody may write to one of the two in place while the other is still in use. A user's own file is always of this
  // kind: most programs that save a file again truncate it and write, and a link to it would change with it.
  kNever,
  // The file will have no third name: its present name is ours, goes away soon or is never written to, and only the
  // new one is handed out. A file that has another name already (the same content was handed out before) is copied.
  kIfOnlyName,
  // Nobody writes to this content under any name: both belong to us, and we only ever replace files by renaming.
  kAlways,
};

enum class LinkKind { kReflink, kHardLink, kCopy };

// Makes `to`, whose folder exists, a file with the content of the regular file `from`, in the cheapest way there is:
// shared blocks that are copied when one of the two is written to (Btrfs, XFS, ...), a hard link where that is
// allowed, a copy by the kernel, a copy. Says which. `to` appears whole or not at all, and what was there is replaced.
// It is as durable as `from` when linked, and not synced when copied: whoever promises that it survives a power cut
// syncs it and its folder (SyncPath, common/file.h).
//
// Any thread; blocks for as long as a copy takes. Errors name the path: NOT_FOUND, PERMISSION_DENIED,
// RESOURCE_EXHAUSTED for a full disk; INVALID_ARGUMENT when `from`, or what is at `to`, is no regular file.
absl::StatusOr<LinkKind> LinkOrCopyFile(const std::filesystem::path& from, const std::filesystem::path& to,
                                        HardLinks hard_links);

}  // namespace gpipe

#endif  // GPIPE_COMMON_LINK_OR_COPY_H_
