/* The TensorRT backend in C: which versions fit a plan, and neither building a session nor a tick
   allocates. Usage: test_tensorrt [BUNDLE LIBRARY], a bundle whose engines are built and the library
   that runs them; without, only the first.
   Linked with --wrap=malloc,calloc,realloc,free: calls from our objects are counted. */
#include <string.h>

#include "robot.h"
#include "tensorrt/trt_engine.h"
#include "vlart/vlart.h"

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

/* Only the first element changes: an index stays one. */
static void write_all(const robot_t *r, uint8_t number) {
  for (uint32_t i = 0; i < r->bundle->plan.source_count; i++) {
    uint8_t data[4096] = {number};
    vlart_value_info_t value = source_value(r->bundle, i);
    CHECK(value.bytes <= sizeof data);
    if (value.dtype ==
        VLART_DTYPE_F32) { /* as a number: the byte alone would be too small to be kept */
      float first = number;
      memcpy(data, &first, sizeof first);
    }
    CHECK_STATUS(write_source(r, i, data), OK);
  }
}

static void test_session(const char *dir, const char *library, uint32_t whole) {
  vlart_session_options_t options = {
      .struct_size = sizeof options, .tensorrt_library = library, .whole_tick = whole};
  robot_t r = open_robot(dir, &options);
  for (uint8_t tick = 0; tick < 20; tick++) {
    write_all(&r, (uint8_t)(tick % 2));
    CHECK_STATUS(vlart_session_step(r.session, &diag), OK);
  }
  vlart_session_totals_t totals = totals_of(&r);
  CHECK(totals.stages_run == 20u * r.bundle->plan.stage_count && totals.backend_failures == 0);
  close_robot(&r);
}

/* Every arena that is too small is refused. */
static void test_arenas(const char *dir, const char *library) {
  vlart_session_options_t options = {.struct_size = sizeof options, .tensorrt_library = library};
  void *bundle_arena;
  vlart_bundle_t *bundle = open_bundle(dir, &bundle_arena);
  vlart_session_t *session = NULL;
  size_t bytes = 0;
  CHECK_STATUS(vlart_session_required_bytes(bundle, &options, &diag, &bytes), OK);
  for (size_t small = 0; small + 63 < bytes; small += 64) {
    void *arena = test_take(small);
    CHECK_STATUS(vlart_session_init(bundle, &options, arena, small, &diag, &session),
                 OUT_OF_MEMORY);
    test_give(arena);
  }
  vlart_bundle_close(bundle);
  test_give(bundle_arena);
}

int main(int argc, char **argv) {
  CHECK(argc == 1 || argc == 3);
  test_versions();
  if (argc == 3) {
    test_arenas(argv[1], argv[2]);
    test_session(argv[1], argv[2], 0);
    test_session(argv[1], argv[2], 1);
  }
  CHECK(allocations == 0);
  puts("test_tensorrt: passed");
  return 0;
}
