/* Temporal ensembling: an action is the mean of what all chunks predict for its tick. */
#ifndef VLART_TEMPORAL_ENSEMBLE_H
#define VLART_TEMPORAL_ENSEMBLE_H

#include "plan/plan.h"

/* The mean of the chunks so far, per tick ahead. */
typedef struct {
  bool on;
  bool offered;   /* the newest chunk is not in the mean yet */
  uint32_t steps; /* H */
  uint32_t dim;
  double *mean;    /* [chunk_steps, action_dim] a ring: slot (first + k) % H is k ticks ahead */
  uint32_t *count; /* [chunk_steps] chunks in the mean of a slot */
  double *weight;  /* [chunk_steps] exp(-m * i) */
  double *total;   /* [chunk_steps + 1] sum of the first n weights */
  uint32_t first;
} vlart_ensemble_t;

/* [init] Places, or measures, what the mean needs; then sets it up. */
void vlart_ensemble_take(vlart_ensemble_t *e, const vlart_plan_t *plan, vlart_arena_t *arena);
void vlart_ensemble_init(vlart_ensemble_t *e, const vlart_plan_t *plan);

/* [tick] Takes a chunk into the mean of every tick that it predicts; its action `from` is for the next one. */
void vlart_ensemble_fold(vlart_ensemble_t *e, const float *actions, uint32_t from);
bool vlart_ensemble_ready(const vlart_ensemble_t *e); /* the next tick was predicted */
void vlart_ensemble_read(const vlart_ensemble_t *e, float *action);
void vlart_ensemble_advance(vlart_ensemble_t *e); /* to the next tick */
void vlart_ensemble_reset(vlart_ensemble_t *e);

#endif
