/* The system refuses: every call by which opening and preparing obtain something (files, mappings, a semaphore)
   fails in turn. Whatever fails, the status says so, nothing stays open or mapped, and the next try works. The memory
   of libvlart itself is the caller's arenas, whose every size test_session tries. Usage: test_system SAMPLES DIRECTORY.
   Linked with --wrap of those calls and of malloc, which must not be among them. */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "count_allocations.h"
#include "null_backend.h"
#include "vlart/vlart.h"

typedef struct {
  uint64_t calls;
  uint64_t at;  /* the call that fails; 0: none */
  bool lasting; /* and all after it */
  int error;
  int64_t files; /* open */
  int64_t mapped;
  int64_t semaphores;
} system_t;

static system_t sys;

/* Whether this call fails. */
static bool fails(void) {
  sys.calls++;
  bool now = sys.at > 0 && (sys.calls == sys.at || (sys.lasting && sys.calls > sys.at));
  if (now) {
    errno = sys.error;
  }
  return now;
}

int __real_open(const char *path, int flags, ...);
int __real_openat(int dir, const char *path, int flags, ...);
int __real_close(int fd);
int __real_fstat(int fd, struct stat *out);
ssize_t __real_read(int fd, void *out, size_t bytes);
void *__real_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t bytes);
int __real_sem_init(sem_t *semaphore, int shared, unsigned value);
int __real_sem_destroy(sem_t *semaphore);
int __wrap_open(const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...);
int __wrap_close(int fd);
int __wrap_fstat(int fd, struct stat *out);
ssize_t __wrap_read(int fd, void *out, size_t bytes);
void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *at, size_t bytes);
int __wrap_sem_init(sem_t *semaphore, int shared, unsigned value);
int __wrap_sem_destroy(sem_t *semaphore);

int __wrap_open(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = (flags & O_CREAT) != 0 ? (mode_t)va_arg(arguments, int) : 0;
  va_end(arguments);
  int fd = fails() ? -1 : __real_open(path, flags, mode);
  sys.files += fd >= 0;
  return fd;
}

int __wrap_openat(int dir, const char *path, int flags, ...) {
  int fd = fails() ? -1 : __real_openat(dir, path, flags);
  sys.files += fd >= 0;
  return fd;
}

int __wrap_close(int fd) {
  sys.files--;
  return __real_close(fd);
}

int __wrap_fstat(int fd, struct stat *out) { return fails() ? -1 : __real_fstat(fd, out); }

ssize_t __wrap_read(int fd, void *out, size_t bytes) {
  return fails() ? -1 : __real_read(fd, out, bytes);
}

void *__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
  void *data = fails() ? MAP_FAILED : __real_mmap(at, bytes, protection, flags, fd, offset);
  sys.mapped += data != MAP_FAILED ? (int64_t)bytes : 0;
  return data;
}

int __wrap_munmap(void *at, size_t bytes) {
  sys.mapped -= (int64_t)bytes;
  return __real_munmap(at, bytes);
}

int __wrap_sem_init(sem_t *semaphore, int shared, unsigned value) {
  int result = fails() ? -1 : __real_sem_init(semaphore, shared, value);
  sys.semaphores += result == 0;
  return result;
}

int __wrap_sem_destroy(sem_t *semaphore) {
  sys.semaphores--;
  return __real_sem_destroy(semaphore);
}

static vlart_diag_t diag = {.struct_size = sizeof diag};
static uint8_t arenas[4][1 << 20];
static char path[1100], state[1000], table[1100];

/* Opens, prepares and closes everything; the status of the first call that failed. */
static vlart_status_t all_of_it(bool async) {
  vlart_bundle_t *bundle = NULL;
  vlart_session_t *session = NULL;
  vlart_async_t *asynchronous = NULL;
  vlart_router_t *router = NULL;
  vlart_session_options_t options = null_options();
  vlart_router_options_t router_options = {
      .struct_size = sizeof router_options, .state = state, .log_capacity = 2};
  size_t bytes = 0;
  vlart_status_t status = vlart_bundle_required_bytes(path, &diag, &bytes);
  CHECK(bytes <= sizeof arenas[0]);
  if (status == VLART_STATUS_OK) {
    status = vlart_bundle_open(path, NULL, arenas[0], sizeof arenas[0], &diag, &bundle);
  }
  if (status == VLART_STATUS_OK) {
    status = vlart_session_init(bundle, &options, arenas[1], sizeof arenas[1], &diag, &session);
  }
  if (status == VLART_STATUS_OK && async) {
    status = vlart_async_init(session, NULL, arenas[2], sizeof arenas[2], &diag, &asynchronous);
  }
  if (status == VLART_STATUS_OK) {
    status = vlart_router_required_bytes(table, &router_options, &diag, &bytes);
    CHECK(bytes <= sizeof arenas[3]);
  }
  if (status == VLART_STATUS_OK) {
    status = vlart_router_init(table, &router_options, arenas[3], sizeof arenas[3], &diag, &router);
  }
  CHECK((status == VLART_STATUS_OK) == (router != NULL));
  vlart_async_close(asynchronous);
  vlart_session_close(session);
  vlart_bundle_close(bundle);
  return status;
}

static uint64_t sweep(const char *samples, const char *name, bool async, bool lasting) {
  snprintf(path, sizeof path, "%s/%s", samples, name);
  sys = (system_t){0};
  CHECK_STATUS(all_of_it(async), OK);
  uint64_t calls = sys.calls;
  for (uint64_t at = 1; at <= calls; at++) {
    sys = (system_t){.at = at,
                     .lasting = lasting,
                     .error = at % 3 == 0   ? ENOMEM
                              : at % 3 == 1 ? EMFILE
                                            : EIO};
    diag = (vlart_diag_t){.struct_size = sizeof diag};
    vlart_status_t status = all_of_it(async);
    CHECK(status == VLART_STATUS_IO || status == VLART_STATUS_OUT_OF_MEMORY);
    CHECK(diag.status == status && diag.what[0] != '\0' && diag.where[0] != '\0' &&
          diag.why[0] != '\0' && diag.fix[0] != '\0');
    CHECK(sys.files == 0 && sys.mapped == 0 && sys.semaphores == 0 && allocations == 0);
    sys = (system_t){0};
    CHECK_STATUS(all_of_it(async), OK); /* and with everything there it works */
    CHECK(sys.calls == calls && sys.files == 0 && sys.mapped == 0 && sys.semaphores == 0);
  }
  return calls;
}

/* A state on disk, so that reading it is among what can fail. */
static void write_state(const char *directory) {
  snprintf(state, sizeof state, "%s/state_of_test_system", directory);
  vlart_router_options_t options = {.struct_size = sizeof options, .state = state};
  vlart_router_t *router;
  vlart_decision_t decision = {.struct_size = sizeof decision};
  snprintf(path, sizeof path, "%s.0", state);
  remove(path);
  snprintf(path, sizeof path, "%s.1", state);
  remove(path);
  CHECK_STATUS(vlart_router_init(table, &options, arenas[3], sizeof arenas[3], &diag, &router), OK);
  for (int i = 0; i < 2; i++) {
    CHECK_STATUS(vlart_router_decide(router, "turn on the stove", NULL, 0, &diag, &decision), OK);
    CHECK_STATUS(vlart_router_report_outcome(router, 1, &diag), OK);
  }
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  uint64_t calls = 0;
  snprintf(table, sizeof table, "%s/routing/table.bin", argv[1]);
  write_state(argv[2]);
  for (int lasting = 0; lasting < 2; lasting++) {
    calls += sweep(argv[1], "spoken", false, lasting == 1);
    calls += sweep(argv[1], "guarded", true, lasting == 1);
    calls += sweep(argv[1], "recall", false, lasting == 1);
  }
  printf("test_system: %llu calls failed in turn, passed\n", (unsigned long long)calls);
  return 0;
}
