// Preloaded into a program it breaks its first TCP connection, as gRPC 1.51 does that looks at errno too late:
// connect() is under way, but says that there is no such file.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/socket.h>

int connect(int fd, const struct sockaddr* address, socklen_t size) {
  static int (*real)(int, const struct sockaddr*, socklen_t);
  static atomic_flag broken = ATOMIC_FLAG_INIT;
  if (real == NULL) real = (int (*)(int, const struct sockaddr*, socklen_t))dlsym(RTLD_NEXT, "connect");
  int type = 0;
  socklen_t length = sizeof(type);
  const int connected = real(fd, address, size);
  getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
  const int is_tcp = (address->sa_family == AF_INET || address->sa_family == AF_INET6) && type == SOCK_STREAM;
  if (!is_tcp || connected == 0 || atomic_flag_test_and_set(&broken)) return connected;
  errno = ENOENT;
  return -1;
}
