/* [tick] Real-time chunking (Black et al. 2025, arXiv 2506.07339): a new chunk begins at the tick of
   its observation, so that the actions popped since are dropped from it; and the rest of the last
   chunk, with prefix weights, is handed to the next replan as two sources. */
#include "session/realtime_chunking.h"

#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "session/session.h"

void vlart_realtime_take(vlart_session_t *draft, vlart_arena_t *arena) {
  const vlart_plan_t *plan = &draft->bundle->plan;
  vlart_realtime_t *r = &draft->realtime;
  r->on = plan->consumption != NULL && plan->consumption->consume == VLART_CONSUME_REALTIME;
  r->fills = r->on && plan->consumption->previous != VLART_NONE;
  size_t bytes = r->fills ? (size_t)vlart_plan_value(plan, plan->consumption->chunk)->bytes : 0;
  r->chunk = vlart_arena_take(arena, bytes, 1);
  r->scratch =
      vlart_arena_take(arena, r->fills ? plan->policy->chunk_steps : 0, sizeof *r->scratch);
}

void vlart_realtime_init(vlart_session_t *session) {
  const vlart_plan_t *plan = &session->bundle->plan;
  vlart_realtime_t *r = &session->realtime;
  if (!r->on) {
    return;
  }
  r->observations = vlart_plan_observations(plan);
  if (r->fills) {
    r->filled = 1ull << plan->writers[plan->consumption->previous].index |
                1ull << plan->writers[plan->consumption->weights].index;
    session->sources.needed &= ~r->filled;
  }
}

void vlart_realtime_written(vlart_session_t *session, uint32_t source) {
  vlart_realtime_t *r = &session->realtime;
  r->given |= r->filled & 1ull << source;
  if ((r->observations >> source & 1) != 0) {
    r->observed = r->pops;
  }
}

uint64_t vlart_realtime_dropped(const vlart_session_t *session) {
  return session->realtime.pops - session->realtime.observed;
}

vlart_status_t vlart_realtime_late(const vlart_session_t *session, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_CHUNK_TOO_LATE, "the new chunk is over before it begins",
             "replan earlier, or write a new observation and step");
  vlart_where(diag, "vlart_session_step");
  vlart_why(diag, "%llu actions were popped since the observation, a chunk has %u",
            (unsigned long long)vlart_realtime_dropped(session),
            session->bundle->plan.policy->chunk_steps);
  return VLART_STATUS_CHUNK_TOO_LATE;
}

void vlart_realtime_publish(vlart_session_t *session) {
  const vlart_plan_t *plan = &session->bundle->plan;
  vlart_realtime_t *r = &session->realtime;
  r->began = r->observed;
  r->given = 0;
  r->running = true;
  if (r->fills) {
    uint32_t chunk = plan->consumption->chunk;
    memcpy(r->chunk, session->values.at[chunk], vlart_plan_value(plan, chunk)->bytes);
  }
}

/* Weight of step i of the prefix: 1 for i < start, 0 for i >= end, between them as the schedule says
   (`get_prefix_weights` of the paper's code: a straight line L, or L * expm1(L) / (e - 1)). */
static float prefix_weight(uint32_t schedule, uint64_t i, uint64_t start, uint64_t end) {
  if (i >= end || (schedule == VLART_SCHEDULE_ZEROS && i >= start)) {
    return 0;
  }
  if (i < start || schedule == VLART_SCHEDULE_ONES) {
    return 1;
  }
  double line = 1 - (double)(i - start + 1) / (double)(end - start + 1);
  return (float)(schedule == VLART_SCHEDULE_LINEAR ? line : line * expm1(line) / expm1(1));
}

static void give(vlart_session_t *session, uint32_t value, bool changed) {
  uint32_t source = session->bundle->plan.writers[value].index;
  session->sources.versions[source] += changed || session->sources.versions[source] == 0;
  session->sources.written |= 1ull << source;
}

static void fill_previous(vlart_session_t *session, uint64_t shift, uint64_t left) {
  const vlart_plan_t *plan = &session->bundle->plan;
  uint32_t value = plan->consumption->previous;
  size_t row = (size_t)vlart_plan_value(plan, value)->bytes / plan->policy->chunk_steps;
  uint8_t *to = session->values.at[value];
  bool changed = false;
  for (uint64_t i = 0; i < plan->policy->chunk_steps; i++) {
    for (size_t b = 0; b < row; b++) {
      uint8_t byte = i < left ? session->realtime.chunk[(i + shift) * row + b] : 0;
      changed |= to[i * row + b] != byte;
      to[i * row + b] = byte;
    }
  }
  give(session, value, changed);
}

static void fill_weights(vlart_session_t *session, uint64_t left) {
  const vlart_consumption_record_t *c = session->bundle->plan.consumption;
  uint32_t steps = session->bundle->plan.policy->chunk_steps;
  float *weights = session->realtime.scratch;
  uint64_t end = c->horizon < left ? c->horizon : left;
  uint64_t start = c->delay < end ? c->delay : end;
  for (uint32_t i = 0; i < steps; i++) {
    weights[i] = prefix_weight(c->schedule, i, start, end);
  }
  bool changed = memcmp(session->values.at[c->weights], weights, steps * sizeof *weights) != 0;
  memcpy(session->values.at[c->weights], weights, steps * sizeof *weights);
  give(session, c->weights, changed);
}

void vlart_realtime_fill(vlart_session_t *session) {
  const vlart_plan_t *plan = &session->bundle->plan;
  const vlart_realtime_t *r = &session->realtime;
  if (!r->fills) {
    return;
  }
  uint64_t shift = r->observed - r->began;
  uint64_t steps = plan->policy->chunk_steps;
  uint64_t left = r->running && shift < steps ? steps - shift : 0;
  if ((r->given >> plan->writers[plan->consumption->previous].index & 1) == 0) {
    fill_previous(session, shift, left);
  }
  if ((r->given >> plan->writers[plan->consumption->weights].index & 1) == 0) {
    fill_weights(session, left);
  }
}

void vlart_realtime_forget(vlart_realtime_t *r) { r->running = false; }

void vlart_realtime_reset(vlart_realtime_t *r) {
  r->running = false;
  r->observed = r->pops;
}
