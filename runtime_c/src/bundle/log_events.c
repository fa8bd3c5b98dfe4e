/* [open] What events of a recording must be like. */
#include <string.h>

#include "bundle/log.h"

static bool acts(const vlart_plan_t *plan) { return plan->policy->action_value != VLART_NONE; }

/* Numbers of a chunk. */
static uint64_t chunk_numbers(const vlart_plan_t *plan) {
  return acts(plan) ? (uint64_t)plan->policy->chunk_steps * plan->policy->action_dim : 0;
}

size_t vlart_log_largest(const vlart_plan_t *plan) {
  uint64_t most = sizeof(vlart_note_event_record_t) + VLART_MAX_RECORDED_TEXT;
  for (uint32_t i = 0; i < plan->source_count; i++) {
    uint64_t bytes = sizeof(vlart_source_event_record_t) + vlart_plan_source_value(plan, i)->bytes;
    most = bytes > most ? bytes : most;
  }
  uint64_t step = sizeof(vlart_step_event_record_t) +
                  plan->stage_count * sizeof(vlart_stage_time_record_t) +
                  chunk_numbers(plan) * sizeof(float);
  return (size_t)(step > most ? step : most);
}

static const char *source_fault(const vlart_plan_t *plan, const void *record, size_t bytes) {
  const vlart_source_event_record_t *e = record;
  if (bytes < sizeof *e) {
    return "a source event is too short";
  }
  if (e->source >= plan->source_count) {
    return "a source event is of a source that the plan does not have";
  }
  if (e->bytes != vlart_plan_source_value(plan, e->source)->bytes) {
    return "a source event has another size than its source";
  }
  uint64_t content = (e->flags & VLART_SOURCE_FLAG_FULL) != 0 ? e->bytes : 0;
  return bytes - sizeof *e == content ? NULL : "a source event does not end with its content";
}

static const char *step_fault(const vlart_plan_t *plan, const void *record, size_t bytes) {
  const vlart_step_event_record_t *e = record;
  if (bytes < sizeof *e) {
    return "a step event is too short";
  }
  if (e->stage_count != plan->stage_count) {
    return "a step event has another number of stages than the plan";
  }
  if (e->stop_stage != VLART_NONE && e->stop_stage >= plan->stage_count) {
    return "a step event stops at a stage that the plan does not have";
  }
  if (e->chunk_count != 0 && e->chunk_count != chunk_numbers(plan)) {
    return "a step event has a chunk of another size than the plan's";
  }
  size_t rest = e->stage_count * sizeof(vlart_stage_time_record_t) + e->chunk_count * sizeof(float);
  return bytes - sizeof *e == rest ? NULL : "a step event does not end with its chunk";
}

static const char *pop_fault(const vlart_plan_t *plan, const void *record, size_t bytes) {
  const vlart_pop_event_record_t *e = record;
  if (bytes < sizeof *e) {
    return "a pop event is too short";
  }
  if (!acts(plan) || e->dim != plan->policy->action_dim || e->rows > plan->policy->chunk_steps) {
    return "a pop event has actions of another size than the plan's";
  }
  uint64_t rest = (uint64_t)e->rows * e->dim * sizeof(float);
  return bytes - sizeof *e == rest ? NULL : "a pop event does not end with its actions";
}

static const char *note_fault(const vlart_plan_t *plan, uint32_t kind, const void *record,
                              size_t bytes) {
  const vlart_note_event_record_t *e = record;
  if (bytes < sizeof *e) {
    return "an event is too short";
  }
  bool of_a_source = kind == VLART_EVENT_KIND_TEXT || kind == VLART_EVENT_KIND_REFUSED;
  if (of_a_source && e->index >= plan->source_count) {
    return "an event is of a source that the plan does not have";
  }
  if (kind == VLART_EVENT_KIND_OBSERVE && e->index != VLART_NONE && e->index >= plan->stage_count) {
    return "an event stops at a stage that the plan does not have";
  }
  if (kind == VLART_EVENT_KIND_TEXT) {
    return bytes - sizeof *e <= VLART_MAX_RECORDED_TEXT ? NULL : "a text is too long";
  }
  return bytes == sizeof *e ? NULL : "an event is too long";
}

static const char *control_fault(const vlart_plan_t *plan, const void *record, size_t bytes) {
  const vlart_control_event_record_t *e = record;
  if (bytes < sizeof *e || !acts(plan) || e->dim != plan->policy->action_dim ||
      bytes - sizeof *e != e->dim * sizeof(float)) {
    return "options of asynchronous control have the wrong size";
  }
  return e->safe <= VLART_SAFE_GIVEN && e->expire <= VLART_EXPIRE_EXECUTION
             ? NULL
             : "options of asynchronous control are unknown";
}

static const char *decision_fault(const void *record, size_t bytes) {
  const vlart_decision_event_record_t *e = record;
  if (bytes < sizeof *e || bytes > sizeof *e + 128) {
    return "a decision has the wrong size";
  }
  bool known = e->backbone_count <= VLART_MAX_BACKBONES && e->backbone < e->backbone_count;
  return known ? NULL : "a decision is for a backbone that it does not have";
}

static const char *clock_fault(const vlart_event_record_t *event, const void *record) {
  const vlart_clock_event_record_t *e = record;
  if (event->bytes != sizeof *e) {
    return "a reading of the wall clock has the wrong size";
  }
  if (event->role != VLART_EVENT_ROLE_WRITER || event->track != VLART_MAX_TRACKS) {
    return "a reading of the wall clock is not the writer's";
  }
  bool possible = e->wall_ns <= INT64_MAX && e->changes > 0 && e->moved_ns != 0;
  return possible ? NULL : "a reading of the wall clock is not possible";
}

const char *vlart_log_event_fault(const vlart_plan_t *plan, const vlart_event_record_t *event,
                                  const void *record) {
  if (event->role < VLART_EVENT_ROLE_SESSION || event->role > VLART_EVENT_ROLE_WRITER ||
      event->track > VLART_MAX_TRACKS) {
    return "an event is of nobody's";
  }
  switch (event->kind) {
    case VLART_EVENT_KIND_SOURCE: return source_fault(plan, record, event->bytes);
    case VLART_EVENT_KIND_STEP: return step_fault(plan, record, event->bytes);
    case VLART_EVENT_KIND_POP: return pop_fault(plan, record, event->bytes);
    case VLART_EVENT_KIND_CONTROL: return control_fault(plan, record, event->bytes);
    case VLART_EVENT_KIND_DECISION: return decision_fault(record, event->bytes);
    case VLART_EVENT_KIND_LOSS:
      return event->bytes == sizeof(vlart_loss_event_record_t) ? NULL : "a loss has the wrong size";
    case VLART_EVENT_KIND_CLOCK: return clock_fault(event, record);
    default: break;
  }
  if (event->kind < VLART_EVENT_KIND_SOURCE || event->kind > VLART_EVENT_KIND_CLOCK) {
    return "an event is of an unknown kind";
  }
  return note_fault(plan, event->kind, record, event->bytes);
}
