/* What a tick costs the control thread while a worker computes: pop, and pop with a new observation, beside a
   bare copy of the same action.

     bench_tick BUNDLE LIBONNXRUNTIME TICKS PERIOD_US SPINNERS

   SPINNERS threads load the processor meanwhile. Prints one JSON object; times in nanoseconds. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "vlart/vlart.h"

static vlart_diag_t diag = {.struct_size = sizeof diag};
static volatile int stop_spinning;

typedef struct {
  uint32_t *ns;
  size_t count;
} series_t;

static void must(vlart_status_t status) {
  if (status != VLART_STATUS_OK) {
    fprintf(stderr, "%s: %s\n%s\n%s\n", vlart_status_name(status), diag.what, diag.where, diag.why);
    exit(1);
  }
}

static void *spin(void *unused) {
  volatile double x = 1;
  while (!stop_spinning) {
    x = x * 1.0000001;
  }
  return unused;
}

static void *serve(void *async) {
  must(vlart_async_serve(async));
  return NULL;
}

static int ascending(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static void add(series_t *s, uint64_t ns) {
  s->ns[s->count++] = (uint32_t)(ns < UINT32_MAX ? ns : UINT32_MAX);
}

static void print_series(const char *name, series_t *s, const char *after) {
  qsort(s->ns, s->count, sizeof *s->ns, ascending);
  if (s->count == 0) {
    printf("\"%s\": null%s", name, after);
    return;
  }
  printf("\"%s\": {\"count\": %zu, \"median\": %u, \"p99_9\": %u, \"max\": %u}%s", name, s->count,
         s->ns[s->count / 2], s->ns[s->count - 1 - s->count / 1000], s->ns[s->count - 1], after);
}

/* Every source with bytes that differ from the last ones where its type allows any. */
static void observe(const vlart_bundle_t *bundle, vlart_async_t *async, uint32_t sources,
                    uint8_t **rooms, uint64_t tick) {
  for (uint32_t i = 0; i < sources; i++) {
    vlart_source_info_t source = {.struct_size = sizeof source};
    vlart_value_info_t value = {.struct_size = sizeof value};
    must(vlart_bundle_source(bundle, i, &source));
    must(vlart_bundle_value(bundle, source.value, &value));
    if (value.dtype == VLART_DTYPE_U8) {
      rooms[i][0] = (uint8_t)tick;
    } else if (value.dtype == VLART_DTYPE_F32) {
      float number = (float)(tick % 1000) * 1e-3f;
      memcpy(rooms[i], &number, sizeof number);
    }
    must(vlart_async_write(async, i, rooms[i], value.bytes, value.dtype, value.rank, value.dims,
                           &diag));
  }
}

int main(int argc, char **argv) {
  if (argc != 6) {
    fputs("usage: bench_tick BUNDLE LIBONNXRUNTIME TICKS PERIOD_US SPINNERS\n", stderr);
    return 2;
  }
  size_t bytes = 0;
  size_t ticks = strtoul(argv[3], NULL, 10);
  uint64_t period = strtoul(argv[4], NULL, 10) * 1000u;
  vlart_bundle_t *bundle = NULL;
  must(vlart_bundle_required_bytes(argv[1], &diag, &bytes));
  must(vlart_bundle_open(argv[1], NULL, malloc(bytes), bytes, &diag, &bundle));
  vlart_session_options_t options = {
      .struct_size = sizeof options, .ort_library = argv[2], .threads = 1};
  vlart_session_t *session = NULL;
  must(vlart_session_required_bytes(bundle, &options, &diag, &bytes));
  must(vlart_session_init(bundle, &options, malloc(bytes), bytes, &diag, &session));
  vlart_async_t *async = NULL;
  must(vlart_async_required_bytes(session, NULL, &diag, &bytes));
  must(vlart_async_init(session, NULL, malloc(bytes), bytes, &diag, &async));
  vlart_bundle_info_t info = {.struct_size = sizeof info};
  must(vlart_bundle_info(bundle, &info));
  uint8_t **rooms = calloc(info.source_count, sizeof *rooms);
  for (uint32_t i = 0; i < info.source_count; i++) {
    vlart_source_info_t source = {.struct_size = sizeof source};
    vlart_value_info_t value = {.struct_size = sizeof value};
    must(vlart_bundle_source(bundle, i, &source));
    must(vlart_bundle_value(bundle, source.value, &value));
    rooms[i] = calloc(1, value.bytes + 1);
  }
  series_t pops = {malloc(ticks * sizeof(uint32_t)), 0};
  series_t requests = {malloc(ticks * sizeof(uint32_t)), 0};
  series_t copies = {malloc(ticks * sizeof(uint32_t)), 0};
  float *action = calloc(info.action_dim, sizeof *action);
  float *other = calloc(info.action_dim, sizeof *other);
  pthread_t worker, spinners[64];
  unsigned count = (unsigned)strtoul(argv[5], NULL, 10);
  count = count < 64 ? count : 64;
  for (unsigned i = 0; i < count; i++) {
    pthread_create(&spinners[i], NULL, spin, NULL);
  }
  pthread_create(&worker, NULL, serve, async);
  uint64_t next = vlart_now_ns();
  uint64_t safe = 0;
  for (size_t t = 0; t < ticks; t++) {
    vlart_async_info_t now = {.struct_size = sizeof now};
    uint64_t began = vlart_now_ns();
    must(vlart_async_info(async, &now));
    if (now.due) {
      observe(bundle, async, info.source_count, rooms, t);
      must(vlart_async_request(async));
    }
    vlart_status_t status = vlart_async_pop(async, action, info.action_dim, &diag);
    uint64_t popped = vlart_now_ns();
    memcpy(other, action, info.action_dim * sizeof *action);
    uint64_t copied = vlart_now_ns();
    safe += status != VLART_STATUS_OK;
    add(now.due ? &requests : &pops, popped - began);
    add(&copies, copied - popped);
    next += period;
    struct timespec until = {(time_t)(next / 1000000000u), (long)(next % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
  }
  vlart_async_info_t end = {.struct_size = sizeof end};
  must(vlart_async_info(async, &end));
  vlart_async_stop(async);
  pthread_join(worker, NULL);
  stop_spinning = 1;
  for (unsigned i = 0; i < count; i++) {
    pthread_join(spinners[i], NULL);
  }
  printf(
      "{\"ticks\": %zu, \"period_us\": %llu, \"spinners\": %u, \"action_dim\": %u, \"chunks\": "
      "%llu, "
      "\"without_chunk\": %llu, ",
      ticks, (unsigned long long)(period / 1000), count, info.action_dim,
      (unsigned long long)end.chunks, (unsigned long long)safe);
  print_series("pop", &pops, ", ");
  print_series("pop_and_request", &requests, ", ");
  print_series("memcpy", &copies, "}\n");
  vlart_async_close(async);
  vlart_session_close(session);
  vlart_bundle_close(bundle);
  return other[0] == other[0] ? 0 : 1;
}
