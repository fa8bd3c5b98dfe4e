/* How threads run: what was asked for is what the system says, what it refuses changes nothing, and an engine's pool
   inherits it while the thread that makes the session is as before. Usage: test_threads SAMPLES/reactive.
   Linked with --wrap=malloc,calloc,realloc,free. */
#include <pthread.h>
#include <string.h>

#include "base/thread_schedule.h"
#include "robot.h"
#include "small_engine.h"
#include "vlart/vlart.h"

static vlart_schedule_t now_run(void) {
  vlart_schedule_t now;
  memset(&now, 0, sizeof now);
  now.policy = sched_getscheduler(0);
  CHECK(sched_getparam(0, &now.param) == 0);
  CHECK(sched_getaffinity(0, sizeof now.cores, &now.cores) == 0);
  return now;
}

static bool runs_as(const vlart_schedule_t *a) {
  vlart_schedule_t b = now_run();
  return a->policy == b.policy && a->param.sched_priority == b.param.sched_priority &&
         CPU_EQUAL(&a->cores, &b.cores);
}

/* A core that this process may use. */
static uint32_t some_core(void) {
  vlart_schedule_t now = now_run();
  uint32_t core = 0;
  while (!CPU_ISSET(core, &now.cores)) {
    core++;
  }
  return core;
}

/* What the engine's load saw: a pool's threads would inherit it. */
static vlart_schedule_t seen;

static vlart_status_t run(const small_engine_t *engine, vlart_diag_t *out) {
  (void)engine;
  (void)out;
  return VLART_STATUS_OK;
}

static vlart_status_t load_and_see(void *context, void *engine, const vlart_bundle_t *bundle,
                                   uint32_t stage, vlart_diag_t *out) {
  seen = now_run();
  return small_load(context, engine, bundle, stage, out);
}

static vlart_status_t fail_to_load(void *context, void *engine, const vlart_bundle_t *bundle,
                                   uint32_t stage, vlart_diag_t *out) {
  load_and_see(context, engine, bundle, stage, out);
  return VLART_STATUS_BACKEND_FAILED;
}

static void test_pool(const char *dir) {
  vlart_backend_t engine = small_engine;
  const vlart_backend_t *const backends[] = {&engine};
  uint32_t core = some_core(), nowhere = 1000;
  vlart_thread_options_t pool = {.struct_size = sizeof pool, .cores = &core, .core_count = 1};
  vlart_session_options_t options = small_options();
  options.backends = backends;
  options.threads = 1;
  options.pool = &pool;
  vlart_schedule_t before = now_run();
  void *arenas[2];
  vlart_bundle_t *bundle = open_bundle(dir, &arenas[0]);
  engine.load = load_and_see;
  vlart_session_t *session = open_session(bundle, &options, &arenas[1]);
  CHECK(CPU_COUNT(&seen.cores) == 1 && CPU_ISSET(core, &seen.cores) && runs_as(&before));
  vlart_session_close(session);
  size_t bytes;
  CHECK_STATUS(vlart_session_required_bytes(bundle, &options, &diag, &bytes), OK);
  engine.load = fail_to_load;
  CHECK_STATUS(vlart_session_init(bundle, &options, arenas[1], bytes, &diag, &session),
               BACKEND_FAILED);
  CHECK(runs_as(&before)); /* also where the engine fails */
  engine.load = load_and_see;
  options.threads = 0;
  CHECK_STATUS(vlart_session_init(bundle, &options, arenas[1], bytes, &diag, &session),
               BAD_ARGUMENT);
  options.threads = 1;
  pool.cores = &nowhere;
  CHECK_STATUS(vlart_session_init(bundle, &options, arenas[1], bytes, &diag, &session),
               THREAD_REFUSED);
  CHECK(runs_as(&before) && session == NULL);
  vlart_bundle_close(bundle);
  test_give(arenas[0]);
  test_give(arenas[1]);
}

/* In a thread of its own, which ends with what it was given. */
static void *test_apply(void *unused) {
  (void)unused;
  uint32_t core = some_core(), nowhere = 1000;
  vlart_schedule_t before = now_run();
  vlart_thread_options_t options = {.struct_size = sizeof options};
  CHECK_STATUS(vlart_thread_apply(&options, &diag), OK);
  CHECK_STATUS(vlart_thread_apply(NULL, &diag), OK);
  CHECK(runs_as(&before));
  options.priority = 100;
  CHECK_STATUS(vlart_thread_apply(&options, &diag), BAD_ARGUMENT);
  options = (vlart_thread_options_t){.struct_size = sizeof options, .core_count = 1};
  CHECK_STATUS(vlart_thread_apply(&options, &diag), BAD_ARGUMENT);
  nowhere = 1024;
  options.cores = &nowhere;
  CHECK_STATUS(vlart_thread_apply(&options, &diag), BAD_ARGUMENT);
  options.lock_memory = 2;
  CHECK_STATUS(vlart_thread_apply(&options, &diag), BAD_ARGUMENT);
  options.lock_memory = 0;
  options.struct_size = 8;
  CHECK_STATUS(vlart_thread_apply(&options, &diag), BAD_ARGUMENT);
  options.struct_size = sizeof options;
  nowhere = 1000;
  CHECK_STATUS(vlart_thread_apply(&options, &diag), THREAD_REFUSED);
  CHECK(strstr(diag.what, "cores") != NULL && runs_as(&before));
  options.cores = &core;
  CHECK_STATUS(vlart_thread_apply(&options, &diag), OK);
  vlart_schedule_t after = now_run();
  CHECK(CPU_COUNT(&after.cores) == 1 && CPU_ISSET(core, &after.cores));
  options.priority = 1; /* not everywhere allowed: then the thread is as it was */
  vlart_status_t status = vlart_thread_apply(&options, &diag);
  printf("  priority 1: %s\n", vlart_status_name(status));
  CHECK(status == VLART_STATUS_OK || (status == VLART_STATUS_THREAD_REFUSED && runs_as(&after)));
  if (status == VLART_STATUS_OK) {
    CHECK(now_run().policy == SCHED_FIFO && now_run().param.sched_priority == 1);
  }
  return NULL;
}

int main(int argc, char **argv) {
  pthread_t thread;
  CHECK(argc == 2);
  vlart_schedule_t before = now_run();
  test_pool(argv[1]);
  CHECK(pthread_create(&thread, NULL, test_apply, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(runs_as(&before) && allocations == 0);
  puts("test_threads: passed");
  return 0;
}
