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
AT(vlart_session_options_t, tvm_ffi_library, 40); /* since 1.x; a struct_size of 40 is accepted */
AT(vlart_session_options_t, stand_in, 56);
AT(vlart_session_options_t, tensorrt_library, 64);
AT(vlart_session_options_t, tensorrt_trial, 72);
AT(vlart_session_options_t, whole_tick, 76);
AT(vlart_session_options_t, lane, 80);
AT(vlart_session_options_t, tvm_cuda_library, 88);
AT(vlart_session_options_t, native_code, 104);
AT(vlart_session_options_t, openvino_library, 112);
AT(vlart_session_options_t, openvino_device, 120);
AT(vlart_session_options_t, parallel, 128);
AT(vlart_session_options_t, weight_cache, 136);

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
AT(vlart_stage_info_t, backbones, 56);
AT(vlart_stage_info_t, end, 64);
AT_LEAST(vlart_stage_info_t, 56);

AT(vlart_queue_info_t, remaining, 8);
AT(vlart_queue_info_t, stale, 16);
AT(vlart_queue_info_t, due, 20);
AT(vlart_queue_info_t, chunks, 24);
AT_LEAST(vlart_queue_info_t, 32);

AT(vlart_stage_stats_t, runs, 8);
AT(vlart_stage_stats_t, max_ns, 48);
AT(vlart_stage_stats_t, last_iterations, 56);
AT_LEAST(vlart_stage_stats_t, 56);

AT(vlart_sensor_options_t, accept, 8);
AT(vlart_sensor_options_t, max_age_us, 16);
AT_LEAST(vlart_sensor_options_t, 24);
AT(vlart_sensor_info_t, writes, 8);
AT(vlart_sensor_info_t, lost, 56);
AT(vlart_sensor_info_t, max_age_us, 72);
AT(vlart_sensor_info_t, number, 84);
AT_LEAST(vlart_sensor_info_t, 88);

AT(vlart_session_totals_t, steps, 8);
AT(vlart_session_totals_t, last_step_ns, 64);
AT_LEAST(vlart_session_totals_t, 72);

AT(vlart_router_options_t, state, 8); /* the router is from version 1.2 */
AT(vlart_router_options_t, log_capacity, 16);
AT_LEAST(vlart_router_options_t, 24);

AT(vlart_decision_t, sequence, 8);
AT(vlart_decision_t, route, 16);
AT(vlart_decision_t, backbone, 32);
AT(vlart_decision_t, outcome, 40);
AT(vlart_decision_t, similarity, 48);
AT(vlart_decision_t, alpha, 72);
AT(vlart_decision_t, cost_ms, 168);
AT(vlart_decision_t, text, 200);
AT_LEAST(vlart_decision_t, 328);

AT(vlart_router_info_t, generation, 24);
AT(vlart_router_info_t, recovered, 32);
AT(vlart_router_info_t, log_dropped, 40);
AT_LEAST(vlart_router_info_t, 48);

NUMBER(VLART_BY_NOTHING, 3);
NUMBER(VLART_LEVEL_PRIOR, 3);
NUMBER(VLART_OUTCOME_FAILURE, 2);
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
NUMBER(VLART_STATUS_TEXT_REFUSED, 25);
NUMBER(VLART_STATUS_STALE_INPUT, 30);
NUMBER(VLART_STATUS_INPUT_OUT_OF_RANGE, 31);
NUMBER(VLART_ACCEPT_NOT_FINITE, 1);
NUMBER(VLART_ACCEPT_OUT_OF_RANGE, 2);
NUMBER(VLART_ACCEPT_STALE, 4);
NUMBER(VLART_ACCEPT_DENORMAL, 8);

/* Signatures: each assignment compiles only while the function keeps its type. */
AT(vlart_async_options_t, lead_ticks, 8);
AT(vlart_async_options_t, stale_ticks, 12);
AT(vlart_async_options_t, deadline_ticks, 16);
AT(vlart_async_options_t, safe, 20);
AT(vlart_async_options_t, safe_action, 24);
AT(vlart_async_options_t, deadline_us, 32);
AT_LEAST(vlart_async_options_t, 40);

AT(vlart_async_info_t, tick, 8);
AT(vlart_async_info_t, remaining, 16);
AT(vlart_async_info_t, due, 20);
AT(vlart_async_info_t, busy, 24);
AT(vlart_async_info_t, late_ticks, 28);
AT(vlart_async_info_t, chunks, 32);
AT(vlart_async_info_t, latency_ns, 72);
AT(vlart_async_info_t, status, 80);
AT_LEAST(vlart_async_info_t, 88);

NUMBER(VLART_SAFE_HOLD, 0);
NUMBER(VLART_SAFE_ZERO, 1);
NUMBER(VLART_SAFE_GIVEN, 2);
NUMBER(VLART_CANCEL_KEEP, 0);
NUMBER(VLART_CANCEL_DROP, 1);
NUMBER(VLART_CANCEL_EPISODE, 2);
/* From version 1.3. */
NUMBER(VLART_STATUS_LANE_STALE, 26);
AT(vlart_session_options_t, lane, 80);
AT(vlart_lane_info_t, sequence, 8);
AT(vlart_lane_info_t, age_ns, 16);
AT_LEAST(vlart_lane_info_t, 24);

NUMBER(VLART_STATUS_SAFE_ACTION, 23);
NUMBER(VLART_STATUS_CANCELLED, 24);

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
  vlart_status_t (*async_required_bytes)(const vlart_session_t *, const vlart_async_options_t *,
                                         vlart_diag_t *, size_t *); /* from version 1.2 */
  vlart_status_t (*async_init)(vlart_session_t *, const vlart_async_options_t *, void *, size_t,
                               vlart_diag_t *, vlart_async_t **);
  vlart_status_t (*async_serve)(vlart_async_t *);
  vlart_status_t (*async_answer)(vlart_async_t *);
  void (*async_stop)(vlart_async_t *);
  void (*async_close)(vlart_async_t *);
  vlart_status_t (*async_write)(vlart_async_t *, uint32_t, const void *, size_t, uint32_t, uint32_t,
                                const uint64_t *, vlart_diag_t *);
  vlart_status_t (*async_request)(vlart_async_t *);
  vlart_status_t (*async_pop)(vlart_async_t *, float *, size_t, vlart_diag_t *);
  vlart_status_t (*async_cancel)(vlart_async_t *, uint32_t);
  vlart_status_t (*async_info)(vlart_async_t *, vlart_async_info_t *);
  vlart_status_t (*router_required_bytes)(const char *, const vlart_router_options_t *,
                                          vlart_diag_t *, size_t *); /* from version 1.2 */
  vlart_status_t (*router_init)(const char *, const vlart_router_options_t *, void *, size_t,
                                vlart_diag_t *, vlart_router_t **);
  vlart_status_t (*router_decide)(vlart_router_t *, const char *, const float *, uint32_t,
                                  vlart_diag_t *, vlart_decision_t *);
  vlart_status_t (*router_report_outcome)(vlart_router_t *, uint32_t, vlart_diag_t *);
  vlart_status_t (*router_drain)(vlart_router_t *, vlart_decision_t *);
  vlart_status_t (*router_info)(const vlart_router_t *, vlart_router_info_t *);
  const char *(*router_backbone)(const vlart_router_t *, uint32_t);
  vlart_status_t (*session_write_text)(vlart_session_t *, uint32_t, const char *, size_t,
                                       vlart_diag_t *); /* from version 1.2 */
  vlart_status_t (*tokenizer_required_bytes)(const void *, size_t, size_t, vlart_diag_t *,
                                             size_t *);
  vlart_status_t (*tokenizer_open)(const void *, size_t, size_t, void *, size_t, vlart_diag_t *,
                                   vlart_tokenizer_t **);
  vlart_status_t (*tokenizer_encode)(vlart_tokenizer_t *, const char *, size_t, int64_t *, size_t,
                                     size_t *, vlart_diag_t *);
  vlart_status_t (*tokenizer_fill)(vlart_tokenizer_t *, const char *, size_t, int64_t *, uint8_t *,
                                   size_t, vlart_diag_t *);
  vlart_status_t (*bundle_find_lane)(const vlart_bundle_t *, const char *, uint32_t *); /* 1.3 */
  vlart_status_t (*lane_required_bytes)(const vlart_session_t *, uint32_t, vlart_diag_t *,
                                        size_t *);
  vlart_status_t (*lane_init)(vlart_session_t *, uint32_t, void *, size_t, vlart_diag_t *,
                              vlart_lane_t **);
  vlart_status_t (*session_follow)(vlart_session_t *, vlart_lane_t *, vlart_diag_t *);
  vlart_status_t (*lane_step)(vlart_lane_t *, vlart_diag_t *);
  vlart_status_t (*session_followed)(const vlart_session_t *, uint32_t, vlart_lane_info_t *);
  vlart_status_t (*session_sensors)(vlart_session_t *, const vlart_sensor_options_t *,
                                    vlart_diag_t *); /* from version 1.3 */
  vlart_status_t (*session_time)(vlart_session_t *, uint64_t);
  vlart_status_t (*session_stamp)(vlart_session_t *, uint32_t, uint32_t, uint64_t, vlart_diag_t *);
  vlart_status_t (*session_sensor)(const vlart_session_t *, uint32_t, vlart_sensor_info_t *);
  vlart_status_t (*async_time)(vlart_async_t *, uint64_t);
  vlart_status_t (*async_stamp)(vlart_async_t *, uint32_t, uint32_t, uint64_t, vlart_diag_t *);
  vlart_status_t (*async_sensor)(const vlart_async_t *, uint32_t, vlart_sensor_info_t *);
} functions = {
    vlart_abi_version,
    vlart_bundle_required_bytes,
    vlart_bundle_open,
    vlart_bundle_close,
    vlart_session_required_bytes,
    vlart_session_init,
    vlart_session_close,
    vlart_session_write,
    vlart_session_step,
    vlart_session_step_deadline,
    vlart_session_read,
    vlart_session_pop,
    vlart_session_queue,
    vlart_session_invalidate,
    vlart_session_stats,
    vlart_session_totals,
    vlart_session_observe,
    vlart_session_reset,
    vlart_async_required_bytes,
    vlart_async_init,
    vlart_async_serve,
    vlart_async_answer,
    vlart_async_stop,
    vlart_async_close,
    vlart_async_write,
    vlart_async_request,
    vlart_async_pop,
    vlart_async_cancel,
    vlart_async_info,
    vlart_router_required_bytes,
    vlart_router_init,
    vlart_router_decide,
    vlart_router_report_outcome,
    vlart_router_drain,
    vlart_router_info,
    vlart_router_backbone,
    vlart_session_write_text,
    vlart_tokenizer_required_bytes,
    vlart_tokenizer_open,
    vlart_tokenizer_encode,
    vlart_tokenizer_fill,
    vlart_bundle_find_lane,
    vlart_lane_required_bytes,
    vlart_lane_init,
    vlart_session_follow,
    vlart_lane_step,
    vlart_session_followed,
    vlart_session_sensors,
    vlart_session_time,
    vlart_session_stamp,
    vlart_session_sensor,
    vlart_async_time,
    vlart_async_stamp,
    vlart_async_sensor,
};

int main(void) {
  /* A library of another major version would be another ABI. */
  return functions.abi_version() >> 16 == 1 ? 0 : 1;
}
