/* [tick] Temporal ensembling (Zhao et al. 2023, arXiv 2304.13705, Algorithm 2): every tick replans,
   and an action is the mean of all predictions of its tick, weighted with exp(-m * i), i = 0 the
   oldest. Online: a mean and a count per tick ahead, O(H * D) whatever the number of chunks. */
#include "session/temporal_ensemble.h"

#include <math.h>
#include <string.h>

void vlart_ensemble_take(vlart_ensemble_t *e, const vlart_plan_t *plan, vlart_arena_t *arena) {
  e->on = plan->consumption != NULL && plan->consumption->consume == VLART_CONSUME_ENSEMBLE;
  size_t steps = e->on ? plan->policy->chunk_steps : 0;
  size_t numbers = steps * (e->on ? plan->policy->action_dim : 0);
  e->mean = vlart_arena_take(arena, numbers, sizeof *e->mean);
  e->count = vlart_arena_take(arena, steps, sizeof *e->count);
  e->weight = vlart_arena_take(arena, steps, sizeof *e->weight);
  e->total = vlart_arena_take(arena, steps + (e->on ? 1 : 0), sizeof *e->total);
  e->steps = (uint32_t)steps;
  e->dim = e->on ? plan->policy->action_dim : 0;
}

void vlart_ensemble_init(vlart_ensemble_t *e, const vlart_plan_t *plan) {
  if (!e->on) {
    return;
  }
  for (uint32_t i = 0; i < plan->policy->chunk_steps; i++) {
    e->weight[i] = exp(-(double)plan->consumption->decay * i);
    e->total[i + 1] = e->total[i] + e->weight[i];
  }
}

/* A slot meets at most one chunk per tick and lives H ticks, so that its count stays below H. */
void vlart_ensemble_fold(vlart_ensemble_t *e, const float *actions, uint32_t from) {
  for (uint32_t k = from; k < e->steps; k++) {
    uint32_t slot = (uint32_t)(((uint64_t)e->first + k - from) % e->steps);
    uint32_t n = e->count[slot];
    double *mean = e->mean + (size_t)slot * e->dim;
    const float *action = actions + (size_t)k * e->dim;
    for (uint32_t d = 0; d < e->dim; d++) {
      double sum = n == 0 ? 0 : mean[d] * e->total[n];
      mean[d] = (sum + (double)action[d] * e->weight[n]) / e->total[n + 1];
    }
    e->count[slot] = n + 1;
  }
}

bool vlart_ensemble_ready(const vlart_ensemble_t *e) { return e->count[e->first] > 0; }

void vlart_ensemble_read(const vlart_ensemble_t *e, float *action) {
  for (uint32_t d = 0; d < e->dim; d++) {
    action[d] = (float)e->mean[(size_t)e->first * e->dim + d];
  }
}

void vlart_ensemble_advance(vlart_ensemble_t *e) {
  e->count[e->first] = 0;
  e->first = (e->first + 1) % e->steps;
}

void vlart_ensemble_reset(vlart_ensemble_t *e) {
  if (e->on) {
    memset(e->count, 0, e->steps * sizeof *e->count);
  }
  e->first = 0;
  e->offered = false;
}
