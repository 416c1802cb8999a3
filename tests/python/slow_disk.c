// Preloaded into a program it makes its disk slow: what is written takes SLOW_DISK_MILLIS per MiB.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static void Wait(size_t bytes) {
  const char* millis = getenv("SLOW_DISK_MILLIS");
  if (millis != NULL && bytes >= 4096) usleep((useconds_t)(bytes * 1000.0 * atof(millis) / (1 << 20)));
}

ssize_t pwrite64(int fd, const void* data, size_t bytes, off64_t offset) {
  static ssize_t (*real)(int, const void*, size_t, off64_t);
  if (real == NULL) real = (ssize_t(*)(int, const void*, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
  Wait(bytes);
  return real(fd, data, bytes, offset);
}

ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) { return pwrite64(fd, data, bytes, offset); }
