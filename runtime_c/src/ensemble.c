/* [tick] Temporal ensembling (Zhao et al. 2023, arXiv 2304.13705, Algorithm 2): every tick replans,
   and an action is the mean of all predictions of its tick, weighted with exp(-m * i), i = 0 the
   oldest. Online: a mean and a count per tick ahead, O(H * D) whatever the number of chunks. */
#include <math.h>
#include <string.h>

#include "session.h"

void vlart_ensemble_take(vlart_session_t *draft, vlart_arena_t *arena) {
  const vlart_plan_t *plan = &draft->bundle->plan;
  vlart_ensemble_t *e = &draft->ensemble;
  e->on = plan->consumption != NULL && plan->consumption->consume == VLART_CONSUME_ENSEMBLE;
  size_t steps = e->on ? plan->policy->chunk_steps : 0;
  size_t numbers = steps * (e->on ? plan->policy->action_dim : 0);
  e->mean = vlart_arena_take(arena, numbers, sizeof *e->mean);
  e->count = vlart_arena_take(arena, steps, sizeof *e->count);
  e->weight = vlart_arena_take(arena, steps, sizeof *e->weight);
  e->total = vlart_arena_take(arena, steps + (e->on ? 1 : 0), sizeof *e->total);
}

void vlart_ensemble_init(vlart_session_t *session) {
  vlart_ensemble_t *e = &session->ensemble;
  if (!e->on) {
    return;
  }
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; i < plan->policy->chunk_steps; i++) {
    e->weight[i] = exp(-(double)plan->consumption->decay * i);
    e->total[i + 1] = e->total[i] + e->weight[i];
  }
}

/* Takes the offered chunk into the mean of every tick that it predicts. A slot meets at most one
   chunk per tick and lives H ticks, so that its count stays below H here. */
static void fold(vlart_session_t *session) {
  vlart_ensemble_t *e = &session->ensemble;
  uint32_t steps = session->bundle->plan.policy->chunk_steps;
  uint32_t dim = session->bundle->plan.policy->action_dim;
  for (uint32_t k = 0; k < steps; k++) {
    uint32_t slot = (uint32_t)(((uint64_t)e->first + k) % steps);
    uint32_t n = e->count[slot];
    double *mean = e->mean + (size_t)slot * dim;
    const float *action = session->queue.actions + (size_t)k * dim;
    for (uint32_t d = 0; d < dim; d++) {
      double sum = n == 0 ? 0 : mean[d] * e->total[n];
      mean[d] = (sum + (double)action[d] * e->weight[n]) / e->total[n + 1];
    }
    e->count[slot] = n + 1;
  }
  e->offered = false;
}

void vlart_ensemble_offer(vlart_session_t *session) { session->ensemble.offered = true; }

bool vlart_ensemble_ready(const vlart_session_t *session) {
  const vlart_ensemble_t *e = &session->ensemble;
  return e->offered || e->count[e->first] > 0;
}

void vlart_ensemble_pop(vlart_session_t *session, float *action) {
  vlart_ensemble_t *e = &session->ensemble;
  uint32_t steps = session->bundle->plan.policy->chunk_steps;
  uint32_t dim = session->bundle->plan.policy->action_dim;
  if (e->offered) {
    fold(session);
  }
  for (uint32_t d = 0; d < dim; d++) {
    action[d] = (float)e->mean[(size_t)e->first * dim + d];
  }
  e->count[e->first] = 0;
  e->first = (e->first + 1) % steps;
}

void vlart_ensemble_reset(vlart_session_t *session) {
  vlart_ensemble_t *e = &session->ensemble;
  if (e->on) {
    memset(e->count, 0, session->bundle->plan.policy->chunk_steps * sizeof *e->count);
  }
  e->first = 0;
  e->offered = false;
}
