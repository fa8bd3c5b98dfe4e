#include "watched_child.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/diag.h"

#define WATCHED_SPARE_BYTES (4ull << 30)

/* A sanitizer takes terabytes of address space for itself. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LIMITS_MEMORY false
#else
#define LIMITS_MEMORY true
#endif

/* Private memory that can be written, which is what RLIMIT_DATA counts. */
static uint64_t data_bytes(void) {
  char line[64];
  unsigned long long kib = 0;
  if (tool_find_row("/proc/self/status", "VmData", line, sizeof line)) {
    kib = strtoull(line, NULL, 10);
  }
  return kib << 10;
}

void watched_limit_memory(const run_t *run) {
  uint64_t bytes = (uint64_t)run->options->memory_mib << 20;
  if (run->options->memory_mib == RUN_UNSAID) {
    bytes = run->info.arena_bytes;
    for (uint32_t i = 0; i < run->bundle->plan.file_count; i++) {
      bytes += run->bundle->files[i].bytes;
    }
    bytes = 3 * bytes + WATCHED_SPARE_BYTES;
  }
  if (bytes > 0 && LIMITS_MEMORY) {
    rlim_t most = data_bytes() + bytes;
    setrlimit(RLIMIT_DATA, &(struct rlimit){most, most});
  }
}

/* Waits for the child's end; false: it does nothing any more. */
static bool wait_for(pid_t child, uint32_t seconds, run_progress_t *progress, const sigset_t *ended,
                     int *out_status) {
  uint64_t parts = 0, since = vlart_now_ns();
  for (;;) {
    pid_t found = waitpid(child, out_status, WNOHANG);
    if (found == child || (found < 0 && errno != EINTR)) {
      return true;
    }
    uint64_t now = vlart_now_ns();
    uint64_t done = atomic_load_explicit(&progress->parts, memory_order_relaxed);
    since = done == parts ? since : now;
    parts = done;
    if (seconds > 0 && now - since > seconds * 1000000000ull) {
      return false;
    }
    sigtimedwait(ended, NULL, &(struct timespec){.tv_nsec = 200000000});
  }
}

watched_end_t watched_run(int (*work)(void *user, run_progress_t *progress), void *user,
                          uint32_t seconds) {
  watched_end_t end = {0};
  run_progress_t *progress =
      mmap(NULL, sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  sigset_t ended, before;
  sigemptyset(&ended);
  sigaddset(&ended, SIGCHLD);
  sigprocmask(SIG_BLOCK, &ended, &before);
  fflush(stdout);
  pid_t parent = getpid();
  pid_t child = progress == MAP_FAILED ? -1 : fork();
  if (child == 0) {
    sigprocmask(SIG_SETMASK, &before, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    exit(getppid() == parent ? work(user, progress) : 1);
  }
  if (child < 0) {
    end.error = (unsigned)errno;
  } else if (!wait_for(child, seconds, progress, &ended, &end.status)) {
    kill(child, SIGKILL);
    waitpid(child, &end.status, 0);
    end.stuck = true;
  }
  sigprocmask(SIG_SETMASK, &before, NULL);
  if (progress != MAP_FAILED) {
    munmap(progress, sizeof *progress);
  }
  return end;
}

static void say(const char *what, const char *how, const char *fix, const char *bundle,
                const char *why, uint32_t number, vlart_diag_t *diag) {
  char line[80];
  snprintf(line, sizeof line, how, what);
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, line, fix);
  vlart_where(diag, "%s", bundle);
  vlart_why(diag, why, number);
}

bool watched_ended(const watched_end_t *end, const char *what, const char *bundle, uint32_t seconds,
                   vlart_diag_t *diag) {
  if (end->error != 0) {
    say(what, "the system gives no process for %s", "end other programs", bundle, "errno %u",
        end->error, diag);
  } else if (end->stuck) {
    say(what, "%s does not end",
        "do not use this bundle; on a slow machine, give it more time: vlart-run --seconds", bundle,
        "nothing was done for %u seconds", seconds, diag);
  } else if (!WIFEXITED(end->status)) {
    say(what, "%s crashed", "do not use this bundle; build it again", bundle, "signal %u ended it",
        (unsigned)WTERMSIG(end->status), diag);
  } else {
    return true;
  }
  return false;
}
