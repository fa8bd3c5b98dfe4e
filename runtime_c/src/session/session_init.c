/* [init] Places a session in its arena and builds its engines. */

#include <math.h>

#include "base/diag.h"
#include "base/struct_size.h"
#include "base/thread_schedule.h"
#include "plan/plan_lanes.h"
#include "session/bind_addresses.h"
#include "session/graph_capture.h"
#include "session/remote_stages.h"
#include "session/select_backbone.h"
#include "session/session.h"
#include "session/task_text.h"
#include "session/tensor_io.h"

static const vlart_backend_t *find_backend(const vlart_session_options_t *options, uint32_t id) {
  if (options->stand_in == 1 && (id == VLART_BACKEND_TENSORRT || id == VLART_BACKEND_OPENVINO)) {
    id = VLART_BACKEND_ONNXRUNTIME;
  }
  for (size_t i = 0; i < options->backend_count; i++) {
    if (options->backends[i]->id == id) {
      return options->backends[i];
    }
  }
  size_t count;
  const vlart_backend_t *const *builtin = vlart_builtin_backends(&count);
  for (size_t i = 0; i < count; i++) {
    if (builtin[i]->id == id) {
      return builtin[i];
    }
  }
  return NULL;
}

static vlart_status_t refuse_code(const vlart_bundle_t *bundle, uint32_t stage,
                                  const vlart_backend_t *backend, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_UNTRUSTED, "a stage is machine code that nobody vouched for",
             "verify the bundle's signature (--signers FILE), or load its code by name "
             "(native_code, --native-code) where you built it yourself");
  vlart_where(diag, "stage \"%s\"", vlart_plan_stage_name(&bundle->plan, stage));
  vlart_why(diag, "it is for backend %s, whose files can do whatever this program may",
            backend->name);
  return VLART_STATUS_UNTRUSTED;
}

static vlart_status_t check_backends(const vlart_bundle_t *bundle,
                                     const vlart_session_options_t *options, vlart_diag_t *diag) {
  for (uint32_t i = 0; i < bundle->plan.stage_count; i++) {
    const vlart_stage_record_t *stage = vlart_plan_stage(&bundle->plan, i);
    const vlart_backend_t *backend = find_backend(options, stage->backend);
    if (backend != NULL && backend->native_code && options->native_code == 0) {
      return refuse_code(bundle, i, backend, diag);
    }
    if (backend == NULL) {
      vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "a stage needs an engine that is not built in",
                 stage->backend == VLART_BACKEND_TENSORRT
                     ? "run it on its board, or here with ONNX Runtime as a stand-in: stand_in"
                     : "build libvlart with this backend, or the bundle for another one");
      vlart_where(diag, "stage \"%s\"", vlart_plan_stage_name(&bundle->plan, i));
      vlart_why(diag, "it is for backend %u", stage->backend);
      return VLART_STATUS_UNSUPPORTED;
    }
  }
  return VLART_STATUS_OK;
}

/* The engine that gives the memory of the values; NULL: the arena does. */
static const vlart_backend_t *find_giver(const vlart_bundle_t *bundle,
                                         const vlart_session_options_t *options) {
  for (uint32_t i = 0; i < bundle->plan.stage_count; i++) {
    const vlart_backend_t *backend =
        find_backend(options, vlart_plan_stage(&bundle->plan, i)->backend);
    if (backend->values != NULL) {
      return backend;
    }
  }
  return NULL;
}

static void take_stages(vlart_session_t *draft, const vlart_session_options_t *options,
                        vlart_arena_t *arena) {
  const vlart_plan_t *plan = &draft->bundle->plan;
  uint32_t most_ports = plan->stage_count;
  draft->stages = vlart_arena_take(arena, plan->stage_count, sizeof *draft->stages);
  for (uint32_t i = 0; i < plan->stage_count && !arena->full; i++) {
    const vlart_stage_record_t *record = vlart_plan_stage(plan, i);
    bool owned = vlart_plan_owns_stage(plan, options->lane, i);
    const vlart_backend_t *backend =
        owned ? find_backend(options, record->backend) : &vlart_backend_remote;
    vlart_context_t *context = &draft->engines.contexts[backend->id];
    if (owned && context->backend == NULL) {
      context->backend = backend;
      context->memory = vlart_arena_take(arena, backend->context_bytes(draft->bundle), 1);
    }
    uint64_t *seen = vlart_arena_take(arena, record->dep_count, sizeof *seen);
    void *engine = vlart_arena_take(arena, backend->engine_bytes(draft->bundle, i), 1);
    if (draft->stages != NULL) {
      draft->stages[i] = (vlart_stage_state_t){.backend = backend, .engine = engine, .seen = seen};
    }
    uint32_t ports = record->input_count + record->output_count;
    most_ports = ports > most_ports ? ports : most_ports;
  }
  draft->engines.addresses = vlart_arena_take(arena, most_ports, sizeof *draft->engines.addresses);
}

/* Places, or measures, the whole session. Returns where it lies; the content is in `draft`. */
static vlart_session_t *take_session(vlart_session_t *draft, const vlart_bundle_t *bundle,
                                     const vlart_session_options_t *options, vlart_arena_t *arena) {
  const vlart_plan_t *plan = &bundle->plan;
  const vlart_policy_record_t *policy = plan->policy;
  bool acts = policy->action_value != VLART_NONE;
  size_t numbers = acts ? (size_t)policy->chunk_steps * policy->action_dim : 0;
  size_t dim = acts ? policy->action_dim : 0;
  *draft = (vlart_session_t){
      .bundle = bundle,
      .lanes.option = options->lane,
      .selection = {.backbones = plan->backbone_count == 0 ? VLART_ALL_BACKBONES : 1,
                    .action_value = VLART_NONE,
                    .action_stage = VLART_NONE}};
  vlart_session_t *session = vlart_arena_take(arena, 1, sizeof *session);
  bool given = find_giver(bundle, options) != NULL;
  draft->values.memory = vlart_arena_take(arena, given ? 0 : policy->arena_bytes, 1);
  draft->values.at = vlart_arena_take(arena, plan->value_count, sizeof *draft->values.at);
  vlart_carried_take(&draft->carried, plan, arena);
  draft->sources.versions =
      vlart_arena_take(arena, plan->source_count, sizeof *draft->sources.versions);
  draft->queue.actions = vlart_arena_take(arena, numbers, sizeof *draft->queue.actions);
  draft->bounds.low = vlart_arena_take(arena, dim, sizeof *draft->bounds.low);
  draft->bounds.high = vlart_arena_take(arena, dim, sizeof *draft->bounds.high);
  vlart_decode_take(draft, arena);
  vlart_ensemble_take(&draft->ensemble, plan, arena);
  vlart_realtime_take(draft, arena);
  vlart_texts_take(draft, arena);
  vlart_sensors_take(&draft->sensors, plan, arena);
  vlart_inbox_take(&draft->inbox, plan, arena);
  vlart_handed_take(&draft->handed, plan, arena);
  vlart_recorded_take(&draft->recorded, plan, arena);
  take_stages(draft, options, arena);
  vlart_pool_take(&draft->pool, plan, options->parallel, arena);
  return session;
}

static void place_values(vlart_session_t *session) {
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; i < plan->value_count; i++) {
    const vlart_value_record_t *value = vlart_plan_value(plan, i);
    session->values.at[i] =
        value->storage == VLART_STORAGE_ARENA
            ? session->values.memory + value->offset
            : (void *)(uintptr_t)vlart_bundle_weight(session->bundle, value->weight);
  }
  session->sources.own = ~0ull;
  for (uint32_t i = 0; session->lanes.option != 0 && i < plan->lane_count; i++) {
    session->sources.own &= session->lanes.option == i + 1 ? ~0ull : ~plan->lane_sources[i];
  }
}

/* Bounds with their tolerance: 1e-6 of the range, or of the bound where the other one is missing. */
static void place_bounds(vlart_session_t *session) {
  const vlart_plan_t *plan = &session->bundle->plan;
  const vlart_policy_record_t *policy = plan->policy;
  if (policy->action_value == VLART_NONE) {
    return;
  }
  if (!vlart_plan_owns_stage(plan, session->lanes.option,
                             plan->writers[policy->action_value].index)) {
    return; /* a lane has no actions */
  }
  session->selection.action_value = policy->action_value;
  session->selection.action_stage = plan->writers[policy->action_value].index;
  for (uint32_t d = 0; d < policy->action_dim; d++) {
    double low = policy->low_count > 0 ? (double)vlart_plan_floats(plan, policy->low_begin)[d]
                                       : -(double)INFINITY;
    double high = policy->high_count > 0 ? (double)vlart_plan_floats(plan, policy->high_begin)[d]
                                         : (double)INFINITY;
    double range = high - low;
    session->bounds.low[d] = isinf(low) ? low : low - 1e-6 * (isinf(range) ? fabs(low) : range);
    session->bounds.high[d] =
        isinf(high) ? high : high + 1e-6 * (isinf(range) ? fabs(high) : range);
  }
}

/* Opens the contexts, and places the values where the engines can reach them. */
static vlart_status_t open_contexts(vlart_session_t *session,
                                    const vlart_session_options_t *options, vlart_diag_t *diag) {
  vlart_status_t status = VLART_STATUS_OK;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < VLART_BACKEND_LIMIT; i++) {
    const vlart_context_t *context = &session->engines.contexts[i];
    if (context->backend != NULL) {
      status = context->backend->open(context->memory, options, diag);
    }
  }
  const vlart_backend_t *giver = find_giver(session->bundle, options);
  if (status == VLART_STATUS_OK && giver != NULL) {
    void *memory = NULL;
    status = giver->values(session->engines.contexts[giver->id].memory, session->bundle,
                           session->bundle->plan.policy->arena_bytes, &memory, diag);
    session->values.memory = memory;
  }
  if (status == VLART_STATUS_OK) {
    place_values(session);
  }
  return status;
}

/* All engines are loaded before the first is prepared: they may share what the largest needs. */
static vlart_status_t build_engines(vlart_session_t *session,
                                    const vlart_session_options_t *options, vlart_diag_t *diag) {
  uint32_t count = session->bundle->plan.stage_count;
  vlart_status_t status = VLART_STATUS_OK;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < count; i++) {
    const vlart_stage_state_t *stage = &session->stages[i];
    status = stage->backend->load(session->engines.contexts[stage->backend->id].memory,
                                  stage->engine, session->bundle, i, diag);
    vlart_bundle_forget_pages(session->bundle);
  }
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < count; i++) {
    status = vlart_session_bind(session, i, diag);
  }
  vlart_carried_exchange(session);
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < count; i++) {
    if (session->bundle->plan.places[i] == 2) {
      status = vlart_session_bind(session, i, diag);
    }
  }
  vlart_carried_exchange(session);
  if (status == VLART_STATUS_OK && options->whole_tick != 0) {
    status = vlart_graph_capture(session, diag);
  }
  return status;
}

static vlart_status_t read_options(const vlart_bundle_t *bundle,
                                   const vlart_session_options_t *given, const char *call,
                                   vlart_diag_t *diag, vlart_session_options_t *out_options) {
  vlart_status_t status =
      vlart_copy_in(out_options, offsetof(vlart_session_options_t, tvm_ffi_library),
                    sizeof *out_options, given, call, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  if (out_options->threads > VLART_MAX_THREADS) {
    return vlart_bad_argument(diag, call, "more than 1024 threads are asked for");
  }
  if (out_options->lane != VLART_LANE_CONTROL && out_options->lane > bundle->plan.lane_count) {
    return vlart_bad_argument(diag, call, "the plan has no such lane");
  }
  if (out_options->parallel > VLART_MAX_PARALLEL) {
    return vlart_bad_argument(diag, call, "more than 64 stages at a time are asked for");
  }
  if (out_options->threads == 0 && out_options->parallel == 0 &&
      vlart_plan_count(&bundle->plan, VLART_SECTION_CONCURRENCY) > 0) {
    const vlart_concurrency_record_t *timed = vlart_plan_concurrency(&bundle->plan, 0);
    uint32_t processors = vlart_schedule_processors(); /* those of another machine, in a plan */
    out_options->threads = timed->threads < processors ? timed->threads : processors;
    uint32_t at_a_time = processors / out_options->threads;
    out_options->parallel = timed->parallel < at_a_time ? timed->parallel : at_a_time;
  }
  if (out_options->stand_in > 1) {
    return vlart_bad_argument(diag, call, "stand_in is neither 0 nor 1");
  }
  if (out_options->native_code > 1) {
    return vlart_bad_argument(diag, call, "native_code is neither 0 nor 1");
  }
  if (out_options->weight_cache != NULL &&
      (out_options->weight_cache->struct_size != sizeof *out_options->weight_cache ||
       out_options->weight_cache->folder == NULL)) {
    return vlart_bad_argument(diag, call,
                              "weight_cache has no folder, or its struct_size is not set");
  }
  for (size_t i = 0; i < out_options->backend_count; i++) {
    if (out_options->backends == NULL || out_options->backends[i] == NULL ||
        out_options->backends[i]->id >= VLART_BACKEND_LIMIT) {
      return vlart_bad_argument(diag, call, "a backend is NULL or its id is unknown");
    }
  }
  return check_backends(bundle, out_options, diag);
}

vlart_status_t vlart_session_required_bytes(const vlart_bundle_t *bundle,
                                            const vlart_session_options_t *options,
                                            vlart_diag_t *diag, size_t *out_bytes) {
  const char *call = "vlart_session_required_bytes";
  if (bundle == NULL || out_bytes == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  vlart_session_options_t chosen;
  vlart_status_t status = read_options(bundle, options, call, diag, &chosen);
  if (status == VLART_STATUS_OK) {
    vlart_session_t draft;
    vlart_arena_t arena;
    vlart_arena_measure(&arena);
    take_session(&draft, bundle, &chosen, &arena);
    *out_bytes = vlart_arena_required(&arena);
  }
  return status;
}

/* All that may start threads of an engine. */
static vlart_status_t prepare(vlart_session_t *session, const vlart_session_options_t *options,
                              vlart_diag_t *diag) {
  vlart_status_t status = open_contexts(session, options, diag);
  if (status == VLART_STATUS_OK) {
    vlart_decode_init(session);
    vlart_task_init(session);
    session->sources.needed = vlart_sources_of(session, session->selection.backbones);
    vlart_ensemble_init(&session->ensemble, &session->bundle->plan);
    vlart_realtime_init(session);
    vlart_handed_init(&session->handed, &session->bundle->plan);
    vlart_sensors_init(&session->sensors, &(vlart_sensor_options_t){0}, session->realtime.filled);
    vlart_written_init(session);
    status = build_engines(session, options, diag);
  }
  return status == VLART_STATUS_OK ? vlart_pool_start(session, diag) : status;
}

/* The threads of an engine's pool inherit how the thread runs that starts them. */
static vlart_status_t make_engines(vlart_session_t *session, const vlart_session_options_t *options,
                                   vlart_diag_t *diag) {
  const char *call = "vlart_session_init";
  vlart_thread_options_t pool;
  vlart_schedule_t before;
  if (options->pool == NULL) {
    return prepare(session, options, diag);
  }
  vlart_status_t status = vlart_schedule_check(options->pool, call, diag, &pool);
  if (status == VLART_STATUS_OK && pool.core_count > 0 && options->threads == 0) {
    status = vlart_bad_argument(diag, call, "the pool has cores, but `threads` is not said");
  }
  if (status == VLART_STATUS_OK) {
    status = vlart_schedule_apply(&pool, call, diag, &before);
  }
  if (status != VLART_STATUS_OK) {
    return status;
  }
  status = prepare(session, options, diag);
  vlart_schedule_restore(&before);
  return status;
}

vlart_status_t vlart_session_init(const vlart_bundle_t *bundle,
                                  const vlart_session_options_t *options, void *arena_base,
                                  size_t arena_bytes, vlart_diag_t *diag,
                                  vlart_session_t **out_session) {
  if (bundle == NULL || out_session == NULL) {
    return vlart_bad_argument(diag, "vlart_session_init", "a pointer is NULL");
  }
  *out_session = NULL;
  vlart_session_options_t chosen;
  vlart_status_t status = read_options(bundle, options, "vlart_session_init", diag, &chosen);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_session_t draft;
  vlart_arena_t arena;
  vlart_arena_place(&arena, arena_base, arena_bytes);
  vlart_session_t *session = take_session(&draft, bundle, &chosen, &arena);
  if (arena.full) {
    vlart_arena_measure(&arena);
    take_session(&draft, bundle, &chosen, &arena);
    return vlart_arena_too_small(diag, "vlart_session_init", vlart_arena_required(&arena),
                                 arena_bytes);
  }
  *session = draft;
  if (chosen.weight_cache != NULL) {
    *chosen.weight_cache = (vlart_weight_cache_t){.struct_size = chosen.weight_cache->struct_size,
                                                  .folder = chosen.weight_cache->folder};
  }
  place_bounds(session);
  status = make_engines(session, &chosen, diag);
  if (status == VLART_STATUS_OK) {
    *out_session = session;
  } else {
    vlart_session_close(session);
  }
  return status;
}

void vlart_session_close(vlart_session_t *session) {
  if (session == NULL) {
    return;
  }
  vlart_pool_stop(session);
  for (uint32_t i = session->bundle->plan.stage_count; i > 0; i--) {
    session->stages[i - 1].backend->unload(session->stages[i - 1].engine);
  }
  for (uint32_t i = 0; i < VLART_BACKEND_LIMIT; i++) {
    if (session->engines.contexts[i].backend != NULL) {
      session->engines.contexts[i].backend->close(session->engines.contexts[i].memory);
    }
  }
}

vlart_status_t vlart_session_reset(vlart_session_t *session) {
  if (session == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  vlart_end_episode(session);
  vlart_recorded_reset(session);
  return VLART_STATUS_OK;
}
