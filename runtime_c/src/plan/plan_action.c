/* [open] Checks how the action value becomes actions: the decode steps and the consumption. Tables
   are weights; their content is not checked, because no content of theirs can lead outside. */
#include <math.h>

#include "base/diag.h"
#include "plan/plan_check.h"

typedef struct {
  const vlart_plan_t *plan;
  vlart_diag_t *diag;
  uint32_t index; /* of the decode step */
  const vlart_decode_record_t *step;
  uint64_t elements; /* of the action value */
} action_t;

static bool is_token(uint32_t kind) {
  return kind == VLART_DECODE_KIND_LOOKUP || kind == VLART_DECODE_KIND_PIECES;
}

static uint64_t elements_of(const vlart_value_record_t *value) {
  return value->bytes / vlart_dtype_bytes(value->dtype);
}

static vlart_status_t wrong(const action_t *a, const char *why) {
  return vlart_corrupt(a->diag, "plan.bin", "decodes", a->index, "%s", why);
}

/* A table of a given element type; `rows` 0: any number from 1. */
static const char *table_fault(const action_t *a, uint32_t dtype, uint64_t rows) {
  if (a->step->table == VLART_NONE) {
    return "it has no table";
  }
  const vlart_weight_record_t *table = vlart_plan_weight(a->plan, a->step->table);
  bool good = table->dtype == dtype && table->rank == 2 && table->dims[0] > 0 &&
              table->dims[1] > 0 && table->dims[0] <= UINT32_MAX && table->dims[1] <= UINT32_MAX;
  return good && (rows == 0 || table->dims[0] == rows) ? NULL : "its table has another shape";
}

static const char *range_fault(const action_t *a, uint32_t floats, uint32_t indices) {
  return a->step->float_count == floats && a->step->index_count == indices
             ? NULL
             : "its numbers are too many or too few";
}

static const char *token_fault(const action_t *a) {
  const vlart_decode_record_t *step = a->step;
  bool pieces = step->kind == VLART_DECODE_KIND_PIECES;
  if (a->index != 0) {
    return "tokens can only be read by the first step";
  }
  if (step->direction != 1 && step->direction != -1) {
    return "its direction is neither 1 nor -1";
  }
  if (pieces ? step->outside < VLART_OUTSIDE_REFUSE : step->outside == VLART_OUTSIDE_SKIP) {
    return "what a token beyond the table gives is not of this kind of step";
  }
  return NULL;
}

static const char *lookup_fault(const action_t *a) {
  uint32_t dim = a->plan->policy->action_dim;
  const char *fault = table_fault(a, VLART_DTYPE_F32, dim);
  if (fault == NULL) {
    fault = range_fault(a, 0, 2 * dim);
  }
  if (fault != NULL) {
    return fault;
  }
  if (a->elements != (uint64_t)a->plan->policy->chunk_steps * dim) {
    return "the tokens are not one per number of the chunk";
  }
  uint64_t columns = vlart_plan_weight(a->plan, a->step->table)->dims[1];
  for (uint32_t d = 0; d < dim; d++) {
    uint32_t count = vlart_plan_index(a->plan, a->step->index_begin + dim + d);
    if (count == 0 || count > columns) {
      return "a dimension uses no row, or more than its table has";
    }
  }
  return NULL;
}

static const char *affine_fault(const action_t *a) {
  uint32_t dim = a->plan->policy->action_dim;
  const char *fault = range_fault(a, 2 * dim, 0);
  for (uint32_t i = 0; fault == NULL && i < 2 * dim; i++) {
    if (!isfinite(vlart_plan_floats(a->plan, a->step->float_begin)[i])) {
      fault = "a scale or an offset is not finite";
    }
  }
  return fault;
}

static const char *delta_fault(const action_t *a) {
  const vlart_plan_t *plan = a->plan;
  uint32_t dim = plan->policy->action_dim;
  uint32_t value = a->step->value;
  if (value == VLART_NONE || plan->writers[value].origin != VLART_ORIGIN_SOURCE ||
      vlart_plan_value(plan, value)->dtype != VLART_DTYPE_F32) {
    return "what it adds is not a source of f32";
  }
  const char *fault = range_fault(a, 0, dim);
  for (uint32_t d = 0; fault == NULL && d < dim; d++) {
    uint32_t element = vlart_plan_index(plan, a->step->index_begin + d);
    if (element != VLART_NONE && element >= elements_of(vlart_plan_value(plan, value))) {
      fault = "an element of its source does not exist";
    }
  }
  return fault;
}

static vlart_status_t check_decode(action_t *a) {
  const char *fault = is_token(a->step->kind) ? token_fault(a) : NULL;
  if (fault != NULL) {
    return wrong(a, fault);
  }
  switch (a->step->kind) {
    case VLART_DECODE_KIND_LOOKUP: fault = lookup_fault(a); break;
    case VLART_DECODE_KIND_PIECES:
      fault = table_fault(a, VLART_DTYPE_I32, 0);
      fault = fault == NULL ? range_fault(a, 0, 1) : fault;
      break;
    case VLART_DECODE_KIND_BASIS:
      fault = table_fault(a, VLART_DTYPE_F32, a->plan->policy->chunk_steps);
      if (fault == NULL &&
          vlart_plan_weight(a->plan, a->step->table)->dims[1] != a->plan->policy->chunk_steps) {
        fault = "its table has another shape";
      }
      break;
    case VLART_DECODE_KIND_AFFINE: fault = affine_fault(a); break;
    default: fault = delta_fault(a); break;
  }
  return fault == NULL ? VLART_STATUS_OK : wrong(a, fault);
}

static vlart_status_t check_value(const action_t *a, bool tokens) {
  const vlart_plan_t *plan = a->plan;
  const vlart_policy_record_t *policy = plan->policy;
  const vlart_value_record_t *action = vlart_plan_value(plan, policy->action_value);
  bool written = plan->writers[policy->action_value].origin == VLART_ORIGIN_STAGE;
  if (tokens) {
    if (!written || (action->dtype != VLART_DTYPE_I32 && action->dtype != VLART_DTYPE_I64) ||
        a->elements == 0) {
      return vlart_corrupt(a->diag, "plan.bin", "policy", 0,
                           "action value %u is not a stage's i32 or i64 tokens",
                           policy->action_value);
    }
    return VLART_STATUS_OK;
  }
  if (!written || action->dtype != VLART_DTYPE_F32 || action->rank != 3 || action->dims[0] != 1 ||
      action->dims[1] != policy->chunk_steps || action->dims[2] != policy->action_dim) {
    return vlart_corrupt(a->diag, "plan.bin", "policy", 0,
                         "action value %u is not a stage's f32[1,%u,%u]", policy->action_value,
                         policy->chunk_steps, policy->action_dim);
  }
  return VLART_STATUS_OK;
}

uint64_t vlart_plan_observations(const vlart_plan_t *plan) {
  uint64_t sources = plan->depends[plan->writers[plan->policy->action_value].index];
  uint64_t out = 0;
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_DECODES); i++) {
    const vlart_decode_record_t *step = vlart_plan_decode(plan, i);
    if (step->kind == VLART_DECODE_KIND_DELTA) {
      sources |= 1ull << plan->writers[step->value].index;
    }
  }
  for (uint32_t i = 0; i < plan->source_count; i++) {
    const vlart_source_record_t *source = vlart_plan_source(plan, i);
    bool observed =
        source->update == VLART_UPDATE_OBSERVATION || source->update == VLART_UPDATE_TICK;
    bool filled = plan->consumption != NULL && (source->value == plan->consumption->previous ||
                                                source->value == plan->consumption->weights);
    if (observed && !filled) {
      out |= sources & 1ull << i;
    }
  }
  return out;
}

static const char *filled_fault(const vlart_plan_t *plan) {
  const vlart_consumption_record_t *c = plan->consumption;
  if (c->previous == VLART_NONE && c->weights == VLART_NONE && c->chunk == VLART_NONE) {
    return NULL;
  }
  if (c->previous == VLART_NONE || c->weights == VLART_NONE || c->chunk == VLART_NONE ||
      c->previous == c->weights) {
    return "the previous chunk, its weights and what it continues are not all there";
  }
  const vlart_value_record_t *previous = vlart_plan_value(plan, c->previous);
  const vlart_value_record_t *weights = vlart_plan_value(plan, c->weights);
  const vlart_value_record_t *chunk = vlart_plan_value(plan, c->chunk);
  if (plan->writers[c->previous].origin != VLART_ORIGIN_SOURCE ||
      plan->writers[c->weights].origin != VLART_ORIGIN_SOURCE ||
      previous->dtype != VLART_DTYPE_F32 || weights->dtype != VLART_DTYPE_F32 ||
      previous->rank != 3 || previous->dims[0] != 1 ||
      previous->dims[1] != plan->policy->chunk_steps ||
      elements_of(weights) != plan->policy->chunk_steps) {
    return "the previous chunk and its weights are not sources f32[1,H,N] and of H f32";
  }
  uint32_t action_stage = plan->writers[plan->policy->action_value].index;
  if (plan->writers[c->chunk].origin != VLART_ORIGIN_STAGE ||
      plan->writers[c->chunk].index > action_stage || chunk->dtype != VLART_DTYPE_F32 ||
      chunk->rank != 3 || chunk->dims[0] != 1 || chunk->dims[1] != previous->dims[1] ||
      chunk->dims[2] != previous->dims[2]) {
    return "what the previous chunk continues is not a stage's value of its shape";
  }
  return NULL;
}

static const char *consumption_fault(const vlart_plan_t *plan) {
  const vlart_consumption_record_t *c = plan->consumption;
  const vlart_policy_record_t *policy = plan->policy;
  double steps = policy->chunk_steps;
  switch (c->consume) {
    case VLART_CONSUME_ENSEMBLE:
      if (policy->execute_steps != 1) {
        return "an ensemble replans after every action";
      }
      /* exp(500) is far from the largest double, for the sum of the weights as well. */
      return isfinite(c->decay) && -(double)c->decay * steps <= 500 ? NULL
                                                                    : "its decay is out of range";
    case VLART_CONSUME_REALTIME:
      if (c->delay > policy->execute_steps ||
          c->delay > policy->chunk_steps - policy->execute_steps) {
        return "delay <= executed <= predicted - delay does not hold";
      }
      if (c->horizon == 0 || c->horizon > policy->chunk_steps) {
        return "its horizon is not in the chunk";
      }
      if (vlart_plan_observations(plan) == 0) {
        return "the actions depend on no observation";
      }
      return filled_fault(plan);
    default: return NULL;
  }
}

vlart_status_t vlart_plan_check_action(vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t decodes = vlart_plan_count(plan, VLART_SECTION_DECODES);
  uint32_t consumptions = vlart_plan_count(plan, VLART_SECTION_CONSUMPTION);
  const vlart_policy_record_t *policy = plan->policy;
  if (consumptions > 1 || (policy->action_value == VLART_NONE && decodes + consumptions > 0)) {
    return vlart_corrupt(diag, "plan.bin", "consumption", 0,
                         "%u records, and %u of decode steps, are too many", consumptions, decodes);
  }
  if (policy->action_value == VLART_NONE) {
    return VLART_STATUS_OK;
  }
  if (decodes + consumptions > 0 && (policy->chunk_steps > VLART_MAX_CHUNK ||
                                     policy->action_dim > VLART_MAX_CHUNK / policy->chunk_steps)) {
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "an action chunk is too large", NULL);
    vlart_where(diag, "plan.bin, policy[0]");
    vlart_why(diag, "it has %u actions of %u numbers, this reader takes %u numbers",
              policy->chunk_steps, policy->action_dim, VLART_MAX_CHUNK);
    return VLART_STATUS_UNSUPPORTED;
  }
  action_t a = {.plan = plan, .diag = diag};
  a.elements = elements_of(vlart_plan_value(plan, policy->action_value));
  bool tokens = decodes > 0 && is_token(vlart_plan_decode(plan, 0)->kind);
  vlart_status_t status = check_value(&a, tokens);
  for (; status == VLART_STATUS_OK && a.index < decodes; a.index++) {
    a.step = vlart_plan_decode(plan, a.index);
    status = check_decode(&a);
  }
  if (status == VLART_STATUS_OK && consumptions == 1) {
    plan->consumption = vlart_record(&plan->file.tables[VLART_SECTION_CONSUMPTION], 0);
    const char *fault = consumption_fault(plan);
    if (fault != NULL) {
      status = vlart_corrupt(diag, "plan.bin", "consumption", 0, "%s", fault);
    }
  }
  return status;
}
