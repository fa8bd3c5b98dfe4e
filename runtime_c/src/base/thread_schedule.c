/* [init] Scheduling of the calling thread. */
#include "base/thread_schedule.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "base/diag.h"
#include "base/struct_size.h"
#include "vlart/vlart_threads.h"

vlart_status_t vlart_schedule_check(const vlart_thread_options_t *given, const char *call,
                                    vlart_diag_t *diag, vlart_thread_options_t *out) {
  vlart_status_t status = vlart_copy_in(out, sizeof *out, sizeof *out, given, call, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  if (out->priority > VLART_MAX_PRIORITY || out->lock_memory > 1) {
    return vlart_bad_argument(diag, call, "a priority is 0 to 99, and lock_memory 0 or 1");
  }
  if (out->core_count > VLART_MAX_CORES || (out->core_count > 0 && out->cores == NULL)) {
    return vlart_bad_argument(diag, call, "there are more than 1024 cores, or `cores` is NULL");
  }
  for (size_t i = 0; i < out->core_count; i++) {
    if (out->cores[i] >= VLART_MAX_CORES) {
      return vlart_bad_argument(diag, call, "a core's number is above 1023");
    }
  }
  return VLART_STATUS_OK;
}

static vlart_status_t refused(const char *call, const char *what, const char *fix, int error,
                              vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_THREAD_REFUSED, what, fix);
  vlart_where(diag, "%s", call);
  vlart_why(diag, "the system refused with errno %u", (unsigned)error);
  return VLART_STATUS_THREAD_REFUSED;
}

static bool set_cores(const vlart_thread_options_t *options) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  for (size_t i = 0; i < options->core_count; i++) {
    CPU_SET(options->cores[i], &cores);
  }
  return options->core_count == 0 || sched_setaffinity(0, sizeof cores, &cores) == 0;
}

static bool set_priority(const vlart_thread_options_t *options) {
  struct sched_param param = {.sched_priority = (int)options->priority};
  return options->priority == 0 || sched_setscheduler(0, SCHED_FIFO, &param) == 0;
}

vlart_status_t vlart_schedule_apply(const vlart_thread_options_t *options, const char *call,
                                    vlart_diag_t *diag, vlart_schedule_t *out_before) {
  vlart_schedule_t before;
  CPU_ZERO(&before.cores);
  before.policy = sched_getscheduler(0);
  if (before.policy < 0 || sched_getparam(0, &before.param) != 0 ||
      sched_getaffinity(0, sizeof before.cores, &before.cores) != 0) {
    return refused(call, "the thread's scheduling cannot be read", "ask for nothing", errno, diag);
  }
  if (out_before != NULL) {
    *out_before = before;
  }
  const char *what = NULL;
  const char *fix = NULL;
  if (!set_cores(options)) {
    what = "the thread may not run on these cores";
    fix = "name cores that exist and that the process may use: taskset -p PID";
  } else if (!set_priority(options)) {
    what = "the thread may not have this priority";
    fix = "allow it (rtprio in limits.conf, or CAP_SYS_NICE), or leave the priority at 0";
  } else if (options->lock_memory != 0 && mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
    what = "the process may not lock its memory";
    fix = "allow it (memlock in limits.conf, or CAP_IPC_LOCK), or leave lock_memory at 0";
  }
  if (what == NULL) {
    return VLART_STATUS_OK;
  }
  int error = errno;
  vlart_schedule_restore(&before);
  return refused(call, what, fix, error, diag);
}

void vlart_schedule_restore(const vlart_schedule_t *before) {
  sched_setscheduler(0, before->policy, &before->param);
  sched_setaffinity(0, sizeof before->cores, &before->cores);
}

vlart_status_t vlart_thread_apply(const vlart_thread_options_t *options, vlart_diag_t *diag) {
  const char *call = "vlart_thread_apply";
  vlart_thread_options_t chosen;
  vlart_status_t status = vlart_schedule_check(options, call, diag, &chosen);
  return status != VLART_STATUS_OK ? status : vlart_schedule_apply(&chosen, call, diag, NULL);
}

uint32_t vlart_schedule_processors(void) {
  cpu_set_t cores;
  int count = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
  return count > 0 ? (uint32_t)count : 1;
}
