/* The public ABI as version 1 had it. This file only grows: what stands here holds for every
   library of major version 1, so a change that breaks a caller does not compile. */
#include <stddef.h>

#include "vlart/vlart.h"

#define AT(struct_name, field, offset) \
  _Static_assert(offsetof(struct_name, field) == (offset), #struct_name "." #field)
#define AT_LEAST(struct_name, bytes) \
  _Static_assert(sizeof(struct_name) >= (bytes), #struct_name " lost a field")
#define NUMBER(name, number) _Static_assert((int)(name) == (number), #name)

_Static_assert(sizeof(void *) == 8, "64-bit targets only");
_Static_assert(sizeof(vlart_status_t) == 4, "a status is an int");

AT(vlart_diag_t, struct_size, 0);
AT(vlart_diag_t, status, 8);
AT(vlart_diag_t, what, 12);
AT(vlart_diag_t, where, 172);
AT(vlart_diag_t, why, 428);
AT(vlart_diag_t, fix, 940);
AT_LEAST(vlart_diag_t, 1200);

AT(vlart_open_options_t, skip_file_checksums, 8);
AT_LEAST(vlart_open_options_t, 16);

AT(vlart_session_options_t, ort_library, 8);
AT(vlart_session_options_t, threads, 16);
AT(vlart_session_options_t, backends, 24);
AT(vlart_session_options_t, backend_count, 32);
AT_LEAST(vlart_session_options_t, 40);

AT(vlart_bundle_info_t, name, 8);
AT(vlart_bundle_info_t, recipe, 24);
AT(vlart_bundle_info_t, format_major, 32);
AT(vlart_bundle_info_t, source_count, 40);
AT(vlart_bundle_info_t, action_value, 52);
AT(vlart_bundle_info_t, execute_steps, 60);
AT(vlart_bundle_info_t, consume, 68);
AT(vlart_bundle_info_t, low, 72);
AT(vlart_bundle_info_t, high, 80);
AT(vlart_bundle_info_t, deadline_us, 88);
AT(vlart_bundle_info_t, arena_bytes, 96);
AT_LEAST(vlart_bundle_info_t, 104);

AT(vlart_value_info_t, name, 8);
AT(vlart_value_info_t, dtype, 16);
AT(vlart_value_info_t, dims, 24);
AT(vlart_value_info_t, bytes, 88);
AT_LEAST(vlart_value_info_t, 96);

AT(vlart_source_info_t, value, 8);
AT(vlart_source_info_t, clock_hz, 16);
AT(vlart_source_info_t, frames, 20);
AT_LEAST(vlart_source_info_t, 24);

AT(vlart_stage_info_t, artefact, 16);
AT(vlart_stage_info_t, backend, 24);
AT(vlart_stage_info_t, depends, 32);
AT(vlart_stage_info_t, weight_bytes, 48);
AT_LEAST(vlart_stage_info_t, 56);

AT(vlart_queue_info_t, remaining, 8);
AT(vlart_queue_info_t, stale, 16);
AT(vlart_queue_info_t, due, 20);
AT(vlart_queue_info_t, chunks, 24);
AT_LEAST(vlart_queue_info_t, 32);

AT(vlart_stage_stats_t, runs, 8);
AT(vlart_stage_stats_t, max_ns, 48);
AT_LEAST(vlart_stage_stats_t, 56);

AT(vlart_session_totals_t, steps, 8);
AT(vlart_session_totals_t, last_step_ns, 64);
AT_LEAST(vlart_session_totals_t, 72);

NUMBER(VLART_STATUS_OK, 0);
NUMBER(VLART_STATUS_BAD_ARGUMENT, 1);
NUMBER(VLART_STATUS_IO, 2);
NUMBER(VLART_STATUS_NOT_A_BUNDLE, 3);
NUMBER(VLART_STATUS_VERSION, 4);
NUMBER(VLART_STATUS_CORRUPT, 5);
NUMBER(VLART_STATUS_UNSUPPORTED, 6);
NUMBER(VLART_STATUS_OUT_OF_MEMORY, 7);
NUMBER(VLART_STATUS_NO_BACKEND, 8);
NUMBER(VLART_STATUS_BACKEND_FAILED, 9);
NUMBER(VLART_STATUS_WRONG_DTYPE, 10);
NUMBER(VLART_STATUS_WRONG_SHAPE, 11);
NUMBER(VLART_STATUS_NOT_FINITE, 12);
NUMBER(VLART_STATUS_SOURCE_UNSET, 13);
NUMBER(VLART_STATUS_VALUE_UNSET, 14);
NUMBER(VLART_STATUS_ACTION_NOT_FINITE, 15);
NUMBER(VLART_STATUS_ACTION_OUT_OF_RANGE, 16);
NUMBER(VLART_STATUS_DEADLINE_MISSED, 17);
NUMBER(VLART_STATUS_QUEUE_EMPTY, 18);
NUMBER(VLART_STATUS_NOT_FOUND, 19);
NUMBER(VLART_STATUS_SELF_TEST_FAILED, 20);
NUMBER(VLART_STATUS_ACTION_NOT_DECODED, 21);
NUMBER(VLART_STATUS_CHUNK_TOO_LATE, 22);

/* Signatures: each assignment compiles only while the function keeps its type. */
static const struct {
  uint32_t (*abi_version)(void);
  vlart_status_t (*bundle_required_bytes)(const char *, vlart_diag_t *, size_t *);
  vlart_status_t (*bundle_open)(const char *, const vlart_open_options_t *, void *, size_t,
                                vlart_diag_t *, vlart_bundle_t **);
  void (*bundle_close)(vlart_bundle_t *);
  vlart_status_t (*session_required_bytes)(const vlart_bundle_t *, const vlart_session_options_t *,
                                           vlart_diag_t *, size_t *);
  vlart_status_t (*session_init)(const vlart_bundle_t *, const vlart_session_options_t *, void *,
                                 size_t, vlart_diag_t *, vlart_session_t **);
  void (*session_close)(vlart_session_t *);
  vlart_status_t (*session_write)(vlart_session_t *, uint32_t, const void *, size_t, uint32_t,
                                  uint32_t, const uint64_t *, vlart_diag_t *);
  vlart_status_t (*session_step)(vlart_session_t *, vlart_diag_t *);
  vlart_status_t (*session_step_deadline)(vlart_session_t *, uint64_t, vlart_diag_t *);
  vlart_status_t (*session_read)(vlart_session_t *, uint32_t, void *, size_t, vlart_diag_t *);
  vlart_status_t (*session_pop)(vlart_session_t *, float *, size_t, vlart_diag_t *);
  vlart_status_t (*session_queue)(const vlart_session_t *, vlart_queue_info_t *);
  vlart_status_t (*session_invalidate)(vlart_session_t *);
  vlart_status_t (*session_stats)(const vlart_session_t *, uint32_t, vlart_stage_stats_t *);
  vlart_status_t (*session_totals)(const vlart_session_t *, vlart_session_totals_t *);
  vlart_status_t (*session_observe)(vlart_session_t *, vlart_diag_t *); /* from version 1.1 */
  vlart_status_t (*session_reset)(vlart_session_t *);
} functions = {
    vlart_abi_version,     vlart_bundle_required_bytes, vlart_bundle_open,
    vlart_bundle_close,    vlart_session_required_bytes, vlart_session_init,
    vlart_session_close,   vlart_session_write,          vlart_session_step,
    vlart_session_step_deadline, vlart_session_read,     vlart_session_pop,
    vlart_session_queue,   vlart_session_invalidate,     vlart_session_stats,
    vlart_session_totals,  vlart_session_observe,        vlart_session_reset,
};

int main(void) {
  /* A library of another major version would be another ABI. */
  return functions.abi_version() >> 16 == 1 ? 0 : 1;
}
