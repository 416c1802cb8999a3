#include "worker/comm/process_claim.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace gpipe::worker {

bool ClaimForProcess(std::string_view name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  // An abstract name: it begins with a zero, and there is no file to be left behind.
  const size_t length = name.copy(address.sun_path + 1, sizeof(address.sun_path) - 1);
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return true;  // Then nobody can claim anything.
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0) return true;  // Stays open.
  const bool taken = errno == EADDRINUSE;
  close(fd);
  return !taken;
}

}  // namespace gpipe::worker
