/* A wall clock that a test sets, for any program: loaded with LD_PRELOAD, CLOCK_REALTIME is the machine's and what
   clock_set says. The other clocks are as they are. */
#pragma GCC visibility push(default) /* all of it is looked up by name */
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static atomic_llong ahead_ns;

void clock_set(int64_t ns);

/* Ahead of the machine's clock by so much, or behind it. */
void clock_set(int64_t ns) { atomic_store(&ahead_ns, ns); }

int clock_gettime(clockid_t which, struct timespec *out) {
  int result = (int)syscall(SYS_clock_gettime, which, out);
  if (result == 0 && which == CLOCK_REALTIME) {
    long long ns = out->tv_sec * 1000000000LL + out->tv_nsec + atomic_load(&ahead_ns);
    out->tv_sec = ns / 1000000000;
    out->tv_nsec = ns % 1000000000;
  }
  return result;
}
