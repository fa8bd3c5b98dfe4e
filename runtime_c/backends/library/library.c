/* No engine: a stage that depends on a text alone, in a bundle that no other texts than its own will
   reach. What the stage makes of each lies among the weights (plan/plan_instructions.h); running it is finding
   which of them its inputs are. */
#include <string.h>

#include "base/diag.h"
#include "builtin.h"
#include "plan/plan_instructions.h"

typedef struct {
  const vlart_bundle_t *bundle;
  uint32_t stage;
  void *ports[]; /* the addresses of its inputs, then of its outputs */
} library_engine_t;

static size_t context_bytes(const vlart_bundle_t *bundle) {
  (void)bundle;
  return 1;
}

static size_t engine_bytes(const vlart_bundle_t *bundle, uint32_t stage) {
  const vlart_stage_record_t *record = vlart_plan_stage(&bundle->plan, stage);
  return sizeof(library_engine_t) +
         ((size_t)record->input_count + record->output_count) * sizeof(void *);
}

static vlart_status_t library_open(void *context, const vlart_session_options_t *options,
                                   vlart_diag_t *diag) {
  (void)context;
  (void)options;
  (void)diag;
  return VLART_STATUS_OK;
}

/* The plan was checked: the stage has one iteration, and what it reads and writes is stored. */
static vlart_status_t library_load(void *context, void *engine, const vlart_bundle_t *bundle,
                                   uint32_t stage, vlart_diag_t *diag) {
  (void)context;
  (void)diag;
  library_engine_t *made = engine;
  made->bundle = bundle;
  made->stage = stage;
  return VLART_STATUS_OK;
}

static vlart_status_t library_prepare(void *memory, uint32_t iteration, void *const *inputs,
                                      void *const *outputs, vlart_diag_t *diag) {
  (void)iteration;
  (void)diag;
  library_engine_t *engine = memory;
  const vlart_stage_record_t *stage = vlart_plan_stage(&engine->bundle->plan, engine->stage);
  memcpy(engine->ports, inputs, stage->input_count * sizeof *engine->ports);
  memcpy(engine->ports + stage->input_count, outputs, stage->output_count * sizeof *engine->ports);
  return VLART_STATUS_OK;
}

static const void *kept(const vlart_bundle_t *bundle, uint32_t instruction, uint32_t binding) {
  uint32_t value = vlart_plan_binding(&bundle->plan, binding)->value;
  uint32_t weight = vlart_instruction_weight(&bundle->plan, instruction, value);
  return weight == VLART_NONE ? NULL : vlart_bundle_weight(bundle, weight);
}

static bool is_of(const library_engine_t *engine, uint32_t instruction) {
  const vlart_stage_record_t *stage = vlart_plan_stage(&engine->bundle->plan, engine->stage);
  for (uint32_t i = 0; i < stage->input_count; i++) {
    const void *want = kept(engine->bundle, instruction, stage->input_begin + i);
    size_t bytes = (size_t)vlart_stage_input(engine->bundle, engine->stage, i).bytes;
    if (want != NULL && memcmp(engine->ports[i], want, bytes) != 0) { /* NULL: a weight */
      return false;
    }
  }
  return true;
}

static vlart_status_t unknown(const library_engine_t *engine, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &engine->bundle->plan;
  char names[400];
  vlart_instruction_names(plan, vlart_plan_instruction(plan, 0)->source, names, sizeof names);
  vlart_fail(diag, VLART_STATUS_TEXT_REFUSED, "the bundle was built for other instructions",
             "write one that it knows, or build it without --only-instructions");
  vlart_where(diag, "stage \"%s\"", vlart_plan_stage_name(plan, engine->stage));
  vlart_why(diag, "known: %s", names);
  return VLART_STATUS_TEXT_REFUSED;
}

static vlart_status_t library_run(void *memory, uint32_t iteration, vlart_diag_t *diag) {
  (void)iteration;
  const library_engine_t *engine = memory;
  const vlart_plan_t *plan = &engine->bundle->plan;
  const vlart_stage_record_t *stage = vlart_plan_stage(plan, engine->stage);
  uint32_t count = vlart_plan_count(plan, VLART_SECTION_INSTRUCTIONS);
  uint32_t found = 0;
  while (found < count && !is_of(engine, found)) {
    found++;
  }
  if (found == count) {
    return unknown(engine, diag);
  }
  for (uint32_t i = 0; i < stage->output_count; i++) {
    size_t bytes = (size_t)vlart_stage_output(engine->bundle, engine->stage, i).bytes;
    if (bytes > 0) {
      memcpy(engine->ports[stage->input_count + i],
             kept(engine->bundle, found, stage->output_begin + i), bytes);
    }
  }
  return VLART_STATUS_OK;
}

static void library_end(void *memory) { (void)memory; }

const vlart_backend_t vlart_backend_library = {.id = VLART_BACKEND_LIBRARY,
                                               .name = "library",
                                               .context_bytes = context_bytes,
                                               .engine_bytes = engine_bytes,
                                               .open = library_open,
                                               .load = library_load,
                                               .prepare = library_prepare,
                                               .run = library_run,
                                               .unload = library_end,
                                               .close = library_end,
                                               .concurrent = true};
