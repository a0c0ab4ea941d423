/* Strikes inside a config commit: loaded with LD_PRELOAD, it counts the calls that touch files beneath STRIKE_DIR
 * and at call number STRIKE_AT does what STRIKE_DO says:
 *   kill:before  kill:after  kill:half (half of a write, then death)
 *   errno:<n>    short (half of a write succeeds, all that follow fail with ENOSPC)
 *   count        nothing
 * Each counted call is told on descriptor STRIKE_FD as a line "<number> <call> <name>" before it is made.
 * Counting begins when the process removes the folder "…/strike-on", which does not exist, and ends with
 * "…/strike-off". */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

static int armed, calls, exhausted;

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int inside(const char *path) {
  const char *dir = getenv("STRIKE_DIR");
  return dir && path && strncmp(path, dir, strlen(dir)) == 0;
}

static const char *of_fd(int fd, char *buffer) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = syscall(SYS_readlink, link, buffer, PATH_MAX - 1);
  buffer[n < 0 ? 0 : n] = 0;
  return buffer;
}

enum verdict { GO, FAIL, HALF_THEN_DIE, HALF, DIE_AFTER };

static enum verdict strike(const char *call, const char *path) {
  if (!armed || !inside(path)) return GO;
  calls++;
  const char *name = strrchr(path, '/'), *fd = getenv("STRIKE_FD");
  if (fd) {
    char line[PATH_MAX + 64];
    int n = snprintf(line, sizeof line, "%d %s %s\n", calls, call, name ? name + 1 : path);
    syscall(SYS_write, atoi(fd), line, n);
  }
  const char *at = getenv("STRIKE_AT"), *what = getenv("STRIKE_DO");
  if (exhausted && strcmp(call, "write") == 0) { errno = ENOSPC; return FAIL; }
  if (!at || !what || atoi(at) != calls) return GO;
  if (strcmp(what, "kill:before") == 0) syscall(SYS_kill, getpid(), SIGKILL);
  if (strcmp(what, "kill:after") == 0) return DIE_AFTER;
  if (strcmp(what, "kill:half") == 0) return strcmp(call, "write") == 0 ? HALF_THEN_DIE : DIE_AFTER;
  if (strcmp(what, "short") == 0 && strcmp(call, "write") == 0) { exhausted = 1; return HALF; }
  if (strncmp(what, "errno:", 6) == 0) { errno = atoi(what + 6); return FAIL; }
  return GO;
}

#define AFTER(judged, expression) ({ \
  enum verdict v = (judged); \
  __typeof__(expression) r; \
  if (v == FAIL) r = -1; \
  else { r = (expression); if (v == DIE_AFTER) syscall(SYS_kill, getpid(), SIGKILL); } \
  r; })

static int open_any(const char *path, int flags, mode_t mode) {
  return AFTER(strike(flags & O_CREAT ? "create" : "open", path), (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

int open(const char *path, int flags, ...) {
  va_list args; va_start(args, flags); mode_t mode = va_arg(args, mode_t); va_end(args);
  return open_any(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  va_list args; va_start(args, flags); mode_t mode = va_arg(args, mode_t); va_end(args);
  return open_any(path, flags, mode);
}

ssize_t write(int fd, const void *data, size_t size) {
  char path[PATH_MAX];
  REAL(write);
  if (!armed) return real(fd, data, size);
  enum verdict v = strike("write", of_fd(fd, path));
  if (v == FAIL) return -1;
  ssize_t n = real(fd, data, v == HALF || v == HALF_THEN_DIE ? size / 2 : size);
  if (v == HALF_THEN_DIE || v == DIE_AFTER) syscall(SYS_kill, getpid(), SIGKILL);
  return n;
}

int fsync(int fd) {
  char path[PATH_MAX];
  REAL(fsync);
  return AFTER(strike("fsync", of_fd(fd, path)), real(fd));
}

int rename(const char *from, const char *to) {
  REAL(rename);
  return AFTER(strike("rename", to), real(from, to));
}

int link(const char *from, const char *to) {
  REAL(link);
  return AFTER(strike("link", to), real(from, to));
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
  REAL(linkat);
  return AFTER(strike("link", to), real(a, from, b, to, flags));
}

int unlink(const char *path) {
  REAL(unlink);
  return AFTER(strike("unlink", path), real(path));
}

int flock(int fd, int operation) {
  char path[PATH_MAX];
  REAL(flock);
  return AFTER(strike(operation & LOCK_UN ? "unlock" : "lock", of_fd(fd, path)), real(fd, operation));
}

int rmdir(const char *path) {
  size_t n = strlen(path);
  if (n >= 10 && strcmp(path + n - 10, "/strike-on") == 0) { armed = 1; errno = ENOENT; return -1; }
  if (n >= 11 && strcmp(path + n - 11, "/strike-off") == 0) { armed = 0; errno = ENOENT; return -1; }
  REAL(rmdir);
  return real(path);
}
