/* A validated plan: records in place in plan.bin, and what was derived from them at [open].
   Knows nothing of files and engines: it works on memory alone, which is what the fuzzers feed. */
#ifndef VLART_PLAN_H
#define VLART_PLAN_H

#include "base/arena.h"
#include "container/container.h"

#define VLART_ALL_BACKBONES 0xFFFFFFFFu /* a bit for each; also where a plan has none */

/* Who writes a value. */
typedef enum {
  VLART_ORIGIN_NOBODY,
  VLART_ORIGIN_WEIGHT,  /* constant */
  VLART_ORIGIN_SOURCE,  /* the caller */
  VLART_ORIGIN_STAGE,   /* an output of a stage */
  VLART_ORIGIN_DELAY,   /* the history, when it advances */
  VLART_ORIGIN_CARRIED, /* the step before */
  VLART_ORIGIN_SCRATCH, /* the inner iterations of a loop stage */
} vlart_origin_t;

typedef struct {
  uint32_t origin; /* vlart_origin_t */
  uint32_t index;  /* source, stage, delay, carried or weight */
} vlart_writer_t;

typedef struct {
  vlart_container_t file;
  const vlart_policy_record_t *policy;
  const vlart_consumption_record_t *consumption; /* NULL: a queue */
  uint32_t file_count;
  uint32_t value_count;
  uint32_t source_count;
  uint32_t weight_count;
  uint32_t stage_count;
  uint32_t delay_count;
  uint32_t carried_count;
  uint32_t observing_stages; /* index behind the last stage that must run for every observation */
  uint64_t histories;        /* bit i: source i has a history */
  vlart_writer_t *writers;   /* [value_count] */
  uint32_t *names;           /* [value_count] value indices in the order of their names */
  uint64_t *depends;         /* [stage_count] bit i: source i */
  uint32_t *delay_roots;     /* [delay_count] value at the beginning of the chain */
  uint8_t *looks_back;       /* [stage_count] 1: depends on an earlier observation */
  uint8_t *observes;         /* [stage_count] 1: what it computes is delayed */
  uint8_t *continues; /* [stage_count] 1: depends on a carried value, so runs in every step */
  uint8_t *places;    /* [stage_count] 2: its values lie elsewhere in every other step; 1 */
  uint8_t *lanes;     /* [stage_count] the lane that runs it; lane_count: the control loop */
  uint32_t lane_count;
  uint64_t lane_sources[VLART_MAX_LANES]; /* bit i: source i is the lane's */
  uint32_t
      lane_carries[VLART_MAX_LANES]; /* bit i: its sets have what they were made of from lane i */
  uint32_t *loop_ends;               /* [stage_count] its loop end, or VLART_NONE */
  uint32_t *conditions;              /* [stage_count] the carry of its condition, or VLART_NONE */
  uint32_t *serves;                  /* [stage_count] bit i: backbone i */
  uint32_t backbone_count;
  /* The next two serve the checks and are idle afterwards. */
  uint32_t *order;       /* [largest record count] */
  uint8_t *binding_seen; /* [binding_count] */
} vlart_plan_t;

/* [open] Takes the plan's derived arrays from the arena, or measures them. Counts must be set. */
void vlart_plan_take(vlart_plan_t *plan, vlart_arena_t *arena);

/* [open] Container checks and record counts; `plan` can then be measured. */
vlart_status_t vlart_plan_read(const uint8_t *data, size_t bytes, vlart_diag_t *diag,
                               vlart_plan_t *out_plan);

/* [open] Everything else, once vlart_plan_take placed the arrays. */
vlart_status_t vlart_plan_check(vlart_plan_t *plan, vlart_diag_t *diag);

/* Bit i: source i is an observation that the actions depend on. After vlart_plan_check_flow. */
uint64_t vlart_plan_observations(const vlart_plan_t *plan);

/* Record accessors; indices are not checked. */
#define VLART_ACCESSOR(record, SECTION)                                                        \
  static inline const vlart_##record##_record_t *vlart_plan_##record(const vlart_plan_t *plan, \
                                                                     uint32_t index) {         \
    return vlart_record(&plan->file.tables[VLART_SECTION_##SECTION], index);                   \
  }
VLART_ACCESSOR(file, FILES)
VLART_ACCESSOR(value, VALUES)
VLART_ACCESSOR(source, SOURCES)
VLART_ACCESSOR(weight, WEIGHTS)
VLART_ACCESSOR(stage, STAGES)
VLART_ACCESSOR(binding, BINDINGS)
VLART_ACCESSOR(initializer, INITIALIZERS)
VLART_ACCESSOR(carry, CARRIES)
VLART_ACCESSOR(sampling, SAMPLINGS)
VLART_ACCESSOR(precision, PRECISIONS)
VLART_ACCESSOR(build, BUILDS)
VLART_ACCESSOR(board, BOARD)
VLART_ACCESSOR(concurrency, CONCURRENCY)
VLART_ACCESSOR(decode, DECODES)
VLART_ACCESSOR(delay, DELAYS)
VLART_ACCESSOR(history, HISTORIES)
VLART_ACCESSOR(carried, CARRIED)
VLART_ACCESSOR(text, TEXTS)
VLART_ACCESSOR(instruction, INSTRUCTIONS)
VLART_ACCESSOR(stored, STORED)
VLART_ACCESSOR(lane, LANES)
VLART_ACCESSOR(guard, GUARDS)
VLART_ACCESSOR(chunk, CHUNKS)
VLART_ACCESSOR(bucket, BUCKETS)
VLART_ACCESSOR(rate_limit, RATE_LIMITS)
VLART_ACCESSOR(token_range, TOKEN_RANGES)
VLART_ACCESSOR(loop_end, LOOP_ENDS)
#undef VLART_ACCESSOR

static inline uint32_t vlart_plan_count(const vlart_plan_t *plan, uint32_t section) {
  return plan->file.tables[section].count;
}

/* How many sets of addresses an engine is given: one per iteration, and per place of carried values. */
static inline uint32_t vlart_plan_address_sets(const vlart_plan_t *plan, uint32_t stage) {
  return vlart_plan_stage(plan, stage)->iterations * plan->places[stage];
}

static inline uint32_t vlart_plan_index(const vlart_plan_t *plan, uint32_t index) {
  return *(const uint32_t *)vlart_record(&plan->file.tables[VLART_SECTION_INDICES], index);
}

static inline const float *vlart_plan_floats(const vlart_plan_t *plan, uint32_t begin) {
  return vlart_record(&plan->file.tables[VLART_SECTION_FLOATS], begin);
}

static inline const char *vlart_plan_string(const vlart_plan_t *plan, uint32_t string) {
  return vlart_string(&plan->file, string);
}

static inline const vlart_value_record_t *vlart_plan_source_value(const vlart_plan_t *plan,
                                                                  uint32_t source) {
  return vlart_plan_value(plan, vlart_plan_source(plan, source)->value);
}

static inline const char *vlart_plan_value_name(const vlart_plan_t *plan, uint32_t value) {
  return vlart_plan_string(plan, vlart_plan_value(plan, value)->name);
}

static inline const char *vlart_plan_stage_name(const vlart_plan_t *plan, uint32_t stage) {
  return vlart_plan_string(plan, vlart_plan_stage(plan, stage)->name);
}

#endif
