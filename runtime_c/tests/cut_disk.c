/* A disk whose power is cut, for any program: loaded with LD_PRELOAD, it counts the steps that change files below one
   directory (open for writing, write, fsync, rename, mkdir, unlink), and at the chosen one does what a crash leaves
   behind and ends the process:
     variant 0  all that was done is there
     variant 1  what was written and not synced since is cut to nothing; 2: to half; 3: holds zeros
     variant 4  renames and unlinks that no sync of their directory followed did not happen
   A write at which power is cut is done in part: `prefix` bytes of it. Armed by cut_arm, or by the variables CUT_UNDER,
   CUT_AT, CUT_VARIANT and CUT_PREFIX, which belong to this test alone. */
#pragma GCC visibility push(default) /* all of it is looked up by name */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXCHANGED "exchanged"
enum { MOST = 256, CUT = 77, DONE = 78 };

static int exit_code = CUT;
static bool whole; /* a program of several processes: all of them end */

static char under[PATH_MAX];
static int at, variant, steps;
static size_t prefix;
static char dirty[MOST][PATH_MAX];    /* written, not synced */
static char moves[MOST][3][PATH_MAX]; /* from, to, where the old `to` was kept; not synced */
static int dirty_count, move_count;
static bool ending;

void cut_arm(const char *directory, int step, int which, size_t bytes);
int cut_steps(void);
void cut_now(void);

/* Cut off where it is too long. */
static void put(char *out, const char *text) {
  size_t length = strnlen(text, PATH_MAX - 1);
  memmove(out, text, length);
  out[length] = '\0';
}

static void append(char *out, const char *text) {
  size_t used = strlen(out), length = strnlen(text, PATH_MAX - 1 - used);
  memcpy(out + used, text, length);
  out[used + length] = '\0';
}

void cut_arm(const char *directory, int step, int which, size_t bytes) {
  put(under, directory);
  at = step;
  variant = which;
  prefix = bytes;
  steps = dirty_count = move_count = 0;
}

int cut_steps(void) { return steps; }

__attribute__((constructor)) static void arm_by_variables(void) {
  const char *directory = getenv("CUT_UNDER");
  if (directory != NULL) {
    cut_arm(directory, atoi(getenv("CUT_AT")), atoi(getenv("CUT_VARIANT")),
            (size_t)atol(getenv("CUT_PREFIX")));
    whole = true;
  }
}

#define REAL(name, result, ...)             \
  static result (*real)(__VA_ARGS__);       \
  if (real == NULL) {                       \
    void *symbol = dlsym(RTLD_NEXT, #name); \
    memcpy(&real, &symbol, sizeof real);    \
  }

static bool inside(const char *path) {
  return under[0] != '\0' && !ending && strncmp(path, under, strlen(under)) == 0;
}

static const char *path_of(int fd) {
  static char path[PATH_MAX];
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  path[length > 0 ? length : 0] = '\0';
  return path;
}

static const char *absolute(int dir, const char *path) {
  static char out[2][PATH_MAX];
  static int turn;
  turn = !turn;
  if (path[0] == '/') {
    put(out[turn], path);
    return out[turn];
  }
  if (dir != AT_FDCWD) {
    put(out[turn], path_of(dir));
  } else if (getcwd(out[turn], PATH_MAX) == NULL) {
    out[turn][0] = '\0';
  }
  append(out[turn], "/");
  append(out[turn], path);
  return out[turn];
}

static void mark(const char *path) {
  for (int i = 0; i < dirty_count; i++) {
    if (strcmp(dirty[i], path) == 0) {
      return;
    }
  }
  if (dirty_count < MOST) {
    put(dirty[dirty_count++], path);
  }
}

static void lose_content(const char *path) {
  struct stat info;
  if (stat(path, &info) != 0 || !S_ISREG(info.st_mode)) {
    return;
  }
  if (truncate(path, variant == 2 ? info.st_size / 2 : 0) == 0 && variant == 3 &&
      truncate(path, info.st_size) != 0) {
    perror(path);
  }
}

/* What the next start of the machine finds. */
static void crash(void) {
  ending = true;
  for (int i = 0; variant >= 1 && variant <= 3 && i < dirty_count; i++) {
    lose_content(dirty[i]);
  }
  for (int i = move_count - 1; variant == 4 && i >= 0; i--) {
    if (strcmp(moves[i][2], EXCHANGED) == 0) {
      syscall(SYS_renameat2, AT_FDCWD, moves[i][0], AT_FDCWD, moves[i][1], RENAME_EXCHANGE);
      continue;
    }
    rename(moves[i][1], moves[i][0]);
    if (moves[i][2][0] != '\0') {
      rename(moves[i][2], moves[i][1]);
    }
  }
  if (whole) {
    kill(0, SIGKILL); /* and every process of the group */
  }
  _exit(exit_code);
}

/* After the last step: what was reported as done must be there. */
void cut_now(void) {
  exit_code = DONE;
  crash();
}

/* True: power is cut at this step. */
static bool step(void) {
  steps++;
  return at > 0 && steps == at;
}

/* Before `to` goes: a second name for it, outside of what is watched. */
static void remember(const char *from, const char *to) {
  static int number;
  if (move_count == MOST) {
    return;
  }
  char (*move)[PATH_MAX] = moves[move_count++];
  put(move[0], from);
  put(move[1], to);
  move[2][0] = '\0';
  char kept[PATH_MAX], ending_of[64];
  snprintf(ending_of, sizeof ending_of, ".kept.%d.%d", (int)getpid(), number++);
  put(kept, under);
  append(kept, ending_of);
  if (link(to, kept) == 0) {
    put(move[2], kept);
  }
}

static void renamed(const char *from, const char *to) {
  size_t length = strlen(from);
  for (int i = 0; i < dirty_count; i++) { /* also what lies below a directory */
    if (strncmp(dirty[i], from, length) == 0 &&
        (dirty[i][length] == '\0' || dirty[i][length] == '/')) {
      char rest[PATH_MAX];
      put(rest, dirty[i] + length);
      put(dirty[i], to);
      append(dirty[i], rest);
    }
  }
}

static void synced(const char *path) {
  for (int i = 0; i < dirty_count; i++) {
    if (strcmp(dirty[i], path) == 0) {
      dirty_count--;
      put(dirty[i], dirty[dirty_count]);
      break;
    }
  }
  size_t length = strlen(path);
  for (int i = 0; i < move_count; i++) { /* a directory: what was renamed into it stays so */
    const char *slash = strrchr(moves[i][1], '/');
    if (slash != NULL && (size_t)(slash - moves[i][1]) == length &&
        strncmp(moves[i][1], path, length) == 0) {
      if (moves[i][2][0] == '/') {
        unlink(moves[i][2]);
      }
      memmove(moves + i, moves + i + 1, (size_t)(--move_count - i) * sizeof *moves);
      i--;
    }
  }
}

static void before_open(const char *path, int flags) {
  if ((flags & O_ACCMODE) != O_RDONLY && inside(path)) {
    if (step()) {
      crash();
    }
    mark(path);
  }
}

#define OPEN(name)                                                                           \
  int name(const char *path, int flags, ...) {                                               \
    REAL(name, int, const char *, int, ...)                                                  \
    va_list arguments;                                                                       \
    va_start(arguments, flags);                                                              \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? (mode_t)va_arg(arguments, int) : 0; \
    va_end(arguments);                                                                       \
    before_open(absolute(AT_FDCWD, path), flags);                                            \
    return real(path, flags, mode);                                                          \
  }
#define OPENAT(name)                                                                         \
  int name(int dir, const char *path, int flags, ...) {                                      \
    REAL(name, int, int, const char *, int, ...)                                             \
    va_list arguments;                                                                       \
    va_start(arguments, flags);                                                              \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? (mode_t)va_arg(arguments, int) : 0; \
    va_end(arguments);                                                                       \
    before_open(absolute(dir, path), flags);                                                 \
    return real(dir, path, flags, mode);                                                     \
  }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t bytes) {
  REAL(write, ssize_t, int, const void *, size_t)
  if (fd > 2 && under[0] != '\0' && !ending) {
    char path[PATH_MAX];
    put(path, path_of(fd));
    if (inside(path)) {
      mark(path);
      if (step()) {
        if (real(fd, data, prefix < bytes ? prefix : bytes) < 0) {
          perror(path);
        }
        crash();
      }
    }
  }
  return real(fd, data, bytes);
}

int fsync(int fd) {
  REAL(fsync, int, int)
  char path[PATH_MAX];
  put(path, path_of(fd));
  size_t shorter = strlen(path) < strlen(under) ? strlen(path) : strlen(under);
  bool watched = under[0] != '\0' && !ending && strncmp(under, path, shorter) == 0;
  if (watched && step()) {
    crash();
  }
  int result = real(fd);
  if (watched && result == 0) {
    synced(path);
  }
  return result;
}

int rename(const char *from, const char *to) {
  REAL(rename, int, const char *, const char *)
  const char *absolute_from = absolute(AT_FDCWD, from), *absolute_to = absolute(AT_FDCWD, to);
  bool watched = inside(absolute_to);
  if (watched && step()) {
    crash();
  }
  if (watched) {
    remember(absolute_from, absolute_to);
  }
  int result = real(from, to);
  if (watched && result == 0) {
    renamed(absolute_from, absolute_to);
  }
  return result;
}

/* An exchange is undone by another one. */
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
  REAL(renameat2, int, int, const char *, int, const char *, unsigned)
  const char *absolute_from = absolute(from_dir, from), *absolute_to = absolute(to_dir, to);
  bool watched = inside(absolute_to);
  if (watched && step()) {
    crash();
  }
  int result = real(from_dir, from, to_dir, to, flags);
  if (watched && result == 0 && move_count < MOST) {
    char (*move)[PATH_MAX] = moves[move_count++];
    put(move[0], absolute_from);
    put(move[1], absolute_to);
    put(move[2], EXCHANGED);
  }
  return result;
}

int unlink(const char *path) {
  REAL(unlink, int, const char *)
  if (inside(absolute(AT_FDCWD, path)) && step()) {
    crash();
  }
  return real(path);
}

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir, int, const char *, mode_t)
  if (inside(absolute(AT_FDCWD, path)) && step()) {
    crash();
  }
  return real(path, mode);
}
