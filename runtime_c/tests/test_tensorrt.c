/* The TensorRT backend in C: which versions fit a plan, and neither building a session nor a tick
   allocates. Usage: test_tensorrt [BUNDLE LIBRARY], a bundle whose engines are built and the library
   that runs them; without, only the first.
   Linked with --wrap=malloc,calloc,realloc,free: calls from our objects are counted. */
#include <string.h>

#include "check.h"
#include "tensorrt/trt_engine.h"
#include "vlart/vlart.h"

static uint64_t allocations;

void *__real_malloc(size_t bytes);
void __real_free(void *memory);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void __wrap_free(void *memory);

void *__wrap_malloc(size_t bytes) {
  (void)bytes;
  allocations++;
  return NULL;
}

void *__wrap_calloc(size_t count, size_t bytes) {
  (void)count;
  (void)bytes;
  allocations++;
  return NULL;
}

void *__wrap_realloc(void *memory, size_t bytes) {
  (void)memory;
  (void)bytes;
  allocations++;
  return NULL;
}

void __wrap_free(void *memory) {
  (void)memory;
  allocations++;
}

static void test_versions(void) {
  vlart_trt_system_t system = {.jetpack = "?"};
  CHECK(vlart_trt_within("10.3", "10.3.0.30") && vlart_trt_within("10.3", "10.3"));
  CHECK(!vlart_trt_within("10.3", "10.30.1") && !vlart_trt_within("10.3.0", "10.3"));
  CHECK(vlart_trt_jetpack("# R36 (release), REVISION: 4.7, GCID: 1", &system));
  CHECK(strcmp(system.jetpack, "6.2.1") == 0 && strcmp(system.l4t, "36.4.7") == 0);
  CHECK(vlart_trt_jetpack("# R39 (release), REVISION: 2.0, GCID: 1", &system));
  CHECK(strcmp(system.jetpack, "7.2") == 0);
  CHECK(!vlart_trt_jetpack("# R36 (release), REVISION: 2.0, GCID: 1", &system));
  CHECK(!vlart_trt_jetpack("# R40 (release), REVISION: 1.0, GCID: 1", &system));
  CHECK(!vlart_trt_jetpack("something else", &system));
}

static vlart_diag_t diag = {.struct_size = sizeof diag};

static void write_all(vlart_bundle_t *bundle, vlart_session_t *session, uint8_t byte) {
  static uint8_t data[4096]; /* only the first byte changes: an index stays one */
  for (uint32_t i = 0; i < bundle->plan.source_count; i++) {
    memset(data, 0, sizeof(float));
    data[0] = byte;
    const vlart_value_record_t *v =
        vlart_plan_value(&bundle->plan, vlart_plan_source(&bundle->plan, i)->value);
    CHECK(v->bytes <= sizeof data);
    if (v->dtype == VLART_DTYPE_F32) { /* as a number: the byte alone would be too small to be kept */
      float number = byte;
      memcpy(data, &number, sizeof number);
    }
    CHECK_STATUS(vlart_session_write(session, i, data, v->bytes, v->dtype, v->rank, v->dims, &diag),
                 OK);
  }
}

static void test_session(const char *dir, const char *library, uint32_t whole) {
  vlart_session_options_t options = {.struct_size = sizeof options,
                                     .tensorrt_library = library,
                                     .whole_tick = whole};
  vlart_bundle_t *bundle = NULL;
  vlart_session_t *session = NULL;
  size_t bytes = 0;
  CHECK_STATUS(vlart_bundle_required_bytes(dir, &diag, &bytes), OK);
  void *bundle_arena = __real_malloc(bytes);
  CHECK_STATUS(vlart_bundle_open(dir, NULL, bundle_arena, bytes, &diag, &bundle), OK);
  CHECK_STATUS(vlart_session_required_bytes(bundle, &options, &diag, &bytes), OK);
  for (size_t small = 0; small + 63 < bytes; small += 64) {
    void *arena = __real_malloc(small);
    CHECK_STATUS(vlart_session_init(bundle, &options, arena, small, &diag, &session),
                 OUT_OF_MEMORY);
    __real_free(arena);
  }
  void *arena = __real_malloc(bytes);
  CHECK_STATUS(vlart_session_init(bundle, &options, arena, bytes, &diag, &session), OK);
  for (uint8_t tick = 0; tick < 20; tick++) {
    write_all(bundle, session, (uint8_t)(tick % 2));
    CHECK_STATUS(vlart_session_step(session, &diag), OK);
  }
  vlart_session_totals_t totals = {.struct_size = sizeof totals};
  CHECK_STATUS(vlart_session_totals(session, &totals), OK);
  CHECK(totals.stages_run == 20u * bundle->plan.stage_count && totals.backend_failures == 0);
  vlart_session_close(session);
  vlart_bundle_close(bundle);
  __real_free(arena);
  __real_free(bundle_arena);
}

int main(int argc, char **argv) {
  CHECK(argc == 1 || argc == 3);
  test_versions();
  if (argc == 3) {
    test_session(argv[1], argv[2], 0);
    test_session(argv[1], argv[2], 1);
  }
  CHECK(allocations == 0);
  puts("test_tensorrt: passed");
  return 0;
}
