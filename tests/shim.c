/* Stands between a program and its files: loaded with LD_PRELOAD, it sees the calls that touch files beneath
 * STRIKE_DIR. It counts them, and at call number STRIKE_AT does what STRIKE_DO says:
 *   kill:before  kill:after  kill:half (half of a write, then death)
 *   errno:<n>    short (half of a write succeeds, all that follow fail with ENOSPC)
 *   on:<n>       this call and all that follow and would change something fail
 *   count        nothing
 * Each counted call is told on descriptor STRIKE_FD as a line "<number> <call> <name>" before it is made.
 * Counting begins when the process removes the folder "…/strike-on", which does not exist, and ends with
 * "…/strike-off"; with STRIKE_NOW it begins at once.
 *
 * STRIKE_RECORD names a file to which every change is appended in the order in which it was made, with its bytes, and
 * so is every folder "/mark:…" that the process tries to remove. One record: kind (1 byte), length of the path (4),
 * length of the data (4), offset (8), path, data; numbers are little-endian.
 *   C created   W written   T truncated to the offset   R renamed to the data   U removed   D folder made   X removed
 *   S put on the disk   M mark */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int armed, calls, exhausted, broken, record = -1, told = -1, at;
static const char *dir, *what;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
  const char *fd = getenv("STRIKE_FD"), *number = getenv("STRIKE_AT"), *file = getenv("STRIKE_RECORD");
  dir = getenv("STRIKE_DIR");
  what = getenv("STRIKE_DO");
  if (fd) told = atoi(fd);
  if (number) at = atoi(number);
  if (getenv("STRIKE_NOW")) armed = 1;
  if (file) record = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int inside(const char *path) { return dir && path && strncmp(path, dir, strlen(dir)) == 0; }

static const char *of_fd(int fd, char *buffer) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = syscall(SYS_readlink, link, buffer, PATH_MAX - 1);
  buffer[n < 0 ? 0 : n] = 0;
  return buffer;
}

static void note(char kind, const char *path, uint64_t offset, const void *data, size_t size) {
  unsigned char head[17] = {kind};
  uint32_t lengths[2] = {(uint32_t)strlen(path), (uint32_t)size};
  memcpy(head + 1, lengths, 8);
  memcpy(head + 9, &offset, 8);
  struct iovec parts[3] = {{head, sizeof head}, {(void *)path, lengths[0]}, {(void *)data, size}};
  if (syscall(SYS_writev, record, parts, 3) != (long)(sizeof head + lengths[0] + size)) abort();
}

enum verdict { GO, FAIL, HALF_THEN_DIE, HALF, DIE_AFTER };

static int is_write(const char *call) { return strcmp(call, "write") == 0 || strcmp(call, "pwrite") == 0; }

static int changes(const char *call) {
  return strcmp(call, "open") != 0 && strcmp(call, "lock") != 0 && strcmp(call, "unlock") != 0;
}

static enum verdict strike(const char *call, const char *path) {
  if (!armed || !inside(path)) return GO;
  int number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
  const char *name = strrchr(path, '/');
  if (told >= 0) {
    char line[PATH_MAX + 64];
    int n = snprintf(line, sizeof line, "%d %s %s\n", number, call, name ? name + 1 : path);
    syscall(SYS_write, told, line, n);
  }
  if (exhausted && is_write(call)) { errno = ENOSPC; return FAIL; }
  if (broken && changes(call)) { errno = broken; return FAIL; }
  if (!at || !what || at != number) return GO;
  if (strcmp(what, "kill:before") == 0) syscall(SYS_kill, getpid(), SIGKILL);
  if (strcmp(what, "kill:after") == 0) return DIE_AFTER;
  if (strcmp(what, "kill:half") == 0) return is_write(call) ? HALF_THEN_DIE : DIE_AFTER;
  if (strcmp(what, "short") == 0 && is_write(call)) { exhausted = 1; return HALF; }
  if (strncmp(what, "errno:", 6) == 0) { errno = atoi(what + 6); return FAIL; }
  if (strncmp(what, "on:", 3) == 0) {
    broken = atoi(what + 3);
    if (changes(call)) { errno = broken; return FAIL; }
  }
  return GO;
}

/* A call that is recorded is made and recorded before any other. */
#define RECORDED(kind, path, offset, data, size, expression) ({ \
  __typeof__(expression) done; \
  if (record >= 0 && inside(path)) { \
    pthread_mutex_lock(&order); \
    done = (expression); \
    int cause = errno; \
    if (done >= 0) note(kind, path, offset, data, size); \
    pthread_mutex_unlock(&order); \
    errno = cause; \
  } else done = (expression); \
  done; })

#define AFTER(judged, expression) ({ \
  enum verdict v = (judged); \
  __typeof__(expression) r; \
  if (v == FAIL) r = -1; \
  else { r = (expression); if (v == DIE_AFTER) syscall(SYS_kill, getpid(), SIGKILL); } \
  r; })

static int open_raw(const char *path, int flags, mode_t mode) {
  return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static int open_any(const char *path, int flags, mode_t mode) {
  enum verdict verdict = strike(flags & O_CREAT ? "create" : "open", path);
  if (flags & O_TRUNC)
    return AFTER(verdict, RECORDED('T', path, 0, "", 0, open_raw(path, flags, mode)));
  if (flags & O_CREAT)
    return AFTER(verdict, RECORDED('C', path, 0, "", 0, open_raw(path, flags, mode)));
  return AFTER(verdict, open_raw(path, flags, mode));
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
  if (!armed && record < 0) return real(fd, data, size);
  enum verdict v = strike("write", of_fd(fd, path));
  if (v == FAIL) return -1;
  if (v == HALF || v == HALF_THEN_DIE) size /= 2;
  off_t from = record >= 0 && inside(path) ? lseek(fd, 0, SEEK_CUR) : 0;
  ssize_t n = RECORDED('W', path, from, data, size, real(fd, data, size));
  if (v == HALF_THEN_DIE || v == DIE_AFTER) syscall(SYS_kill, getpid(), SIGKILL);
  return n;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
  char path[PATH_MAX];
  REAL(pwrite64);
  if (!armed && record < 0) return real(fd, data, size, offset);
  enum verdict v = strike("pwrite", of_fd(fd, path));
  if (v == FAIL) return -1;
  if (v == HALF || v == HALF_THEN_DIE) size /= 2;
  ssize_t n = RECORDED('W', path, offset, data, size, real(fd, data, size, offset));
  if (v == HALF_THEN_DIE || v == DIE_AFTER) syscall(SYS_kill, getpid(), SIGKILL);
  return n;
}

int ftruncate64(int fd, off64_t size) {
  char path[PATH_MAX];
  REAL(ftruncate64);
  return AFTER(strike("truncate", of_fd(fd, path)), RECORDED('T', path, size, "", 0, real(fd, size)));
}

int fsync(int fd) {
  char path[PATH_MAX];
  REAL(fsync);
  return AFTER(strike("fsync", of_fd(fd, path)), RECORDED('S', path, 0, "fsync", 5, real(fd)));
}

int fdatasync(int fd) {
  char path[PATH_MAX];
  REAL(fdatasync);
  return AFTER(strike("fdatasync", of_fd(fd, path)), RECORDED('S', path, 0, "fdatasync", 9, real(fd)));
}

int sync_file_range(int fd, off64_t offset, off64_t size, unsigned flags) {
  char path[PATH_MAX];
  REAL(sync_file_range);
  return AFTER(strike("range", of_fd(fd, path)), real(fd, offset, size, flags));
}

int rename(const char *from, const char *to) {
  REAL(rename);
  return AFTER(strike("rename", to), RECORDED('R', from, 0, to, strlen(to), real(from, to)));
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
  return AFTER(strike("unlink", path), RECORDED('U', path, 0, "", 0, real(path)));
}

int unlinkat(int folder, const char *name, int flags) {
  char path[PATH_MAX * 2];
  REAL(unlinkat);
  path[0] = 0;
  if (name[0] != '/' && folder != AT_FDCWD) strcat(strcpy(path, of_fd(folder, path)), "/");
  strncat(path, name, PATH_MAX - 1);
  return AFTER(strike("unlink", path),
               RECORDED(flags & AT_REMOVEDIR ? 'X' : 'U', path, 0, "", 0, real(folder, name, flags)));
}

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  return AFTER(strike("mkdir", path), RECORDED('D', path, 0, "", 0, real(path, mode)));
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
  if (strncmp(path, "/mark:", 6) == 0) {
    if (record >= 0) {
      pthread_mutex_lock(&order);
      note('M', "", 0, path + 6, n - 6);
      pthread_mutex_unlock(&order);
    }
    errno = ENOENT;
    return -1;
  }
  REAL(rmdir);
  return AFTER(strike("unlink", path), RECORDED('X', path, 0, "", 0, real(path)));
}
