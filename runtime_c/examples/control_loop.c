/* The smallest robot program: observe, step when a replan is due, execute one action per tick.

     control_loop BUNDLE LIBONNXRUNTIME TICKS

   It writes zeros where a robot would write its camera frames and joint state. Memory is taken
   once, before the loop; a microcontroller-minded program would use static arrays instead. */
#include <stdio.h>
#include <stdlib.h>

#include "vlart/vlart.h"

static vlart_diag_t diag = {.struct_size = sizeof diag};

static void must(vlart_status_t status) {
  if (status != VLART_STATUS_OK) {
    fprintf(stderr, "%s: %s\n%s\n%s\n%s\n", vlart_status_name(status), diag.what, diag.where,
            diag.why, diag.fix);
    exit(1);
  }
}

/* Stands for the drivers: fills every source. Equal bytes cost a comparison and nothing else. */
static void observe(const vlart_bundle_t *bundle, vlart_session_t *session, uint32_t sources) {
  for (uint32_t i = 0; i < sources; i++) {
    vlart_source_info_t source = {.struct_size = sizeof source};
    vlart_value_info_t value = {.struct_size = sizeof value};
    must(vlart_bundle_source(bundle, i, &source));
    must(vlart_bundle_value(bundle, source.value, &value));
    void *zeros = calloc(1, value.bytes + 1);
    must(vlart_session_write(session, i, zeros, value.bytes, value.dtype, value.rank, value.dims,
                             &diag));
    free(zeros);
  }
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fputs("usage: control_loop BUNDLE LIBONNXRUNTIME TICKS\n", stderr);
    return 2;
  }
  size_t bytes = 0;
  vlart_bundle_t *bundle = NULL;
  must(vlart_bundle_required_bytes(argv[1], &diag, &bytes));
  void *bundle_arena = malloc(bytes);
  must(vlart_bundle_open(argv[1], NULL, bundle_arena, bytes, &diag, &bundle));

  vlart_session_t *session = NULL;
  vlart_session_options_t options = {
      .struct_size = sizeof options, .ort_library = argv[2], .threads = 1};
  must(vlart_session_required_bytes(bundle, &options, &diag, &bytes));
  void *session_arena = malloc(bytes);
  must(vlart_session_init(bundle, &options, session_arena, bytes, &diag, &session));

  vlart_bundle_info_t info = {.struct_size = sizeof info};
  must(vlart_bundle_info(bundle, &info));
  float *action = calloc(info.action_dim + 1u, sizeof *action);
  for (long tick = 0; tick < strtol(argv[3], NULL, 10); tick++) {
    vlart_status_t status = vlart_session_pop(session, action, info.action_dim, &diag);
    if (status == VLART_STATUS_QUEUE_EMPTY) { /* a replan is due */
      observe(bundle, session, info.source_count);
      must(vlart_session_step(session, &diag)); /* a robot would stop, not exit */
      status = vlart_session_pop(session, action, info.action_dim, &diag);
    }
    must(status);
    printf("tick %ld:", tick); /* here the robot moves */
    for (uint32_t d = 0; d < info.action_dim; d++) {
      printf(" %.4f", (double)action[d]);
    }
    putchar('\n');
  }

  vlart_session_close(session);
  vlart_bundle_close(bundle);
  free(action);
  free(session_arena);
  free(bundle_arena);
  return 0;
}
