// Preloaded into a program it makes one address unreachable: connecting to UNREACHABLE_ADDRESS is refused.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

int connect(int fd, const struct sockaddr* address, socklen_t size) {
  static int (*real)(int, const struct sockaddr*, socklen_t);
  if (real == NULL) real = (int (*)(int, const struct sockaddr*, socklen_t))dlsym(RTLD_NEXT, "connect");
  const char* unreachable = getenv("UNREACHABLE_ADDRESS");
  if (unreachable != NULL && address->sa_family == AF_INET &&
      ((const struct sockaddr_in*)address)->sin_addr.s_addr == inet_addr(unreachable)) {
    errno = EHOSTUNREACH;
    return -1;
  }
  return real(fd, address, size);
}
