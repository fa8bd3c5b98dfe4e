#include "plan_text.h"

#include <inttypes.h>

void vlart_print_quoted(FILE *out, const char *string) {
  fputc('"', out);
  for (; *string != '\0'; string++) {
    if (*string == '"' || *string == '\\') {
      fputc('\\', out);
    }
    fputc(*string, out);
  }
  fputc('"', out);
}

static void print_index(FILE *out, uint32_t index) {
  if (index == VLART_NONE) {
    fputs("none", out);
  } else {
    fprintf(out, "%" PRIu32, index);
  }
}

/* " NAME f32[1,9]" */
static void print_tensor(FILE *out, const char *name, uint32_t dtype, uint32_t rank,
                         const uint64_t *dims) {
  fputc(' ', out);
  vlart_print_quoted(out, name);
  fprintf(out, " %s[", vlart_dtype_name(dtype));
  for (uint32_t d = 0; d < rank; d++) {
    fprintf(out, "%s%" PRIu64, d > 0 ? "," : "", dims[d]);
  }
  fputc(']', out);
}

static const char *update_name(uint32_t update) {
  static const char *const names[] = {"static", "task", "observation", "step", "tick"};
  return names[update];
}

static const char *backend_name(uint32_t backend) {
  static const char *const names[] = {"none", "onnxruntime", "tensorrt",
                                      "tvm",  "library",     "tvm_cuda"};
  return names[backend];
}

static void print_files(FILE *out, const vlart_plan_t *plan) {
  static const char *const kinds[] = {"none", "stage", "weights", "golden", "tokenizer"};
  for (uint32_t i = 0; i < plan->file_count; i++) {
    const vlart_file_record_t *file = vlart_plan_file(plan, i);
    fprintf(out, "file %" PRIu32 " ", i);
    vlart_print_quoted(out, vlart_plan_string(plan, file->path));
    fprintf(out, " %s bytes=%" PRIu64 " crc32=%08" PRIx32 "\n", kinds[file->kind], file->bytes,
            file->crc32);
  }
}

static void print_weights(FILE *out, const vlart_plan_t *plan) {
  for (uint32_t i = 0; i < plan->weight_count; i++) {
    const vlart_weight_record_t *weight = vlart_plan_weight(plan, i);
    fprintf(out, "weight @%" PRIu32, i);
    print_tensor(out, vlart_plan_string(plan, weight->name), weight->dtype, weight->rank,
                 weight->dims);
    fputs(" file=", out);
    print_index(out, weight->file);
    fprintf(out, " offset=%" PRIu64 " bytes=%" PRIu64 "\n", weight->offset, weight->bytes);
  }
}

static void print_values(FILE *out, const vlart_plan_t *plan) {
  for (uint32_t i = 0; i < plan->value_count; i++) {
    const vlart_value_record_t *value = vlart_plan_value(plan, i);
    fprintf(out, "value %%%" PRIu32, i);
    print_tensor(out, vlart_plan_string(plan, value->name), value->dtype, value->rank, value->dims);
    if (value->storage == VLART_STORAGE_ARENA) {
      fprintf(out, " arena+%" PRIu64 "\n", value->offset);
    } else {
      fprintf(out, " weight=@%" PRIu32 "\n", value->weight);
    }
  }
}

static void print_sources(FILE *out, const vlart_plan_t *plan) {
  for (uint32_t i = 0; i < plan->source_count; i++) {
    const vlart_source_record_t *source = vlart_plan_source(plan, i);
    fprintf(out, "source %%%" PRIu32 " %s clock=%.9g\n", source->value, update_name(source->update),
            (double)source->clock_hz);
  }
}

static void print_histories(FILE *out, const vlart_plan_t *plan) {
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_HISTORIES); i++) {
    const vlart_history_record_t *history = vlart_plan_history(plan, i);
    fprintf(out, "history %%%" PRIu32 " frames=%" PRIu32 "\n",
            vlart_plan_source(plan, history->source)->value, history->frames);
  }
  for (uint32_t i = 0; i < plan->delay_count; i++) {
    const vlart_delay_record_t *delay = vlart_plan_delay(plan, i);
    fprintf(out, "delay %%%" PRIu32 " -> %%%" PRIu32 "\n", delay->input, delay->output);
  }
}

static void print_texts(FILE *out, const vlart_plan_t *plan) {
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_TEXTS); i++) {
    const vlart_text_record_t *text = vlart_plan_text(plan, i);
    fprintf(out, "text %%%" PRIu32 " mask=", vlart_plan_source(plan, text->tokens)->value);
    if (text->mask == VLART_NONE) {
      fputs("none", out);
    } else {
      fprintf(out, "%%%" PRIu32, vlart_plan_source(plan, text->mask)->value);
    }
    fprintf(out, " tokenizer=%" PRIu32 " max_bytes=%" PRIu32 "\n", text->tokenizer,
            text->max_bytes);
  }
}

static void print_lanes(FILE *out, const vlart_plan_t *plan) {
  for (uint32_t i = 0; i < plan->lane_count; i++) {
    const vlart_lane_record_t *lane = vlart_plan_lane(plan, i);
    fputs("lane ", out);
    vlart_print_quoted(out, vlart_plan_string(plan, lane->name));
    fprintf(out, " clock=%.9g max_age_ms=%" PRIu32, (double)lane->clock_hz, lane->max_age_ms);
    for (uint32_t k = 0; k < lane->index_count; k++) {
      uint32_t source = vlart_plan_index(plan, lane->index_begin + k);
      fprintf(out, " %%%" PRIu32, vlart_plan_source(plan, source)->value);
    }
    fputc('\n', out);
  }
}

static void print_instructions(FILE *out, const vlart_plan_t *plan) {
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_INSTRUCTIONS); i++) {
    const vlart_instruction_record_t *row = vlart_plan_instruction(plan, i);
    fprintf(out, "instruction %%%" PRIu32 " ", vlart_plan_source(plan, row->source)->value);
    vlart_print_quoted(out, vlart_plan_string(plan, row->text));
    for (uint32_t k = 0; k < row->stored_count; k++) {
      const vlart_stored_record_t *stored = vlart_plan_stored(plan, row->stored_begin + k);
      fprintf(out, " %%%" PRIu32 "=@%" PRIu32, stored->value, stored->weight);
    }
    fputc('\n', out);
  }
}

static void print_range(FILE *out, const vlart_plan_t *plan, const char *label, uint32_t begin,
                        uint32_t count) {
  fprintf(out, " %s=%s", label, count == 0 ? "none" : "");
  for (uint32_t i = 0; i < count; i++) {
    fprintf(out, "%s%.9g", i > 0 ? "," : "", (double)vlart_plan_floats(plan, begin)[i]);
  }
}

static void print_backbones(FILE *out, const vlart_plan_t *plan) {
  for (uint32_t i = 0; i < plan->backbone_count; i++) {
    const vlart_chunk_record_t *chunk = vlart_plan_chunk(plan, i);
    fputs("backbone ", out);
    vlart_print_quoted(out, vlart_plan_string(plan, chunk->backbone));
    fprintf(out, " %%%" PRIu32 "\n", chunk->value);
  }
}

static void print_guards(FILE *out, const vlart_plan_t *plan) {
  static const char *const rules[] = {"count", "refuse"};
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_GUARDS); i++) {
    const vlart_guard_record_t *guard = vlart_plan_guard(plan, i);
    fprintf(out, "guard %%%" PRIu32 " %s", vlart_plan_source(plan, guard->source)->value,
            rules[guard->outside]);
    print_range(out, plan, "low", guard->low_begin, guard->low_count);
    print_range(out, plan, "high", guard->high_begin, guard->high_count);
    fprintf(out, " not_finite=%" PRIu32 " max_age_us=%" PRIu64 "\n", guard->not_finite,
            guard->max_age_us);
  }
}

static void print_bindings(FILE *out, const vlart_plan_t *plan, const char *label, uint32_t begin,
                           uint32_t count) {
  static const char *const modes[] = {"whole", "row", "carry"};
  for (uint32_t i = 0; i < count; i++) {
    const vlart_binding_record_t *binding = vlart_plan_binding(plan, begin + i);
    fprintf(out, "  %s ", label);
    vlart_print_quoted(out, vlart_plan_string(plan, binding->port));
    fprintf(out, " %%%" PRIu32 " %s\n", binding->value, modes[binding->mode]);
  }
}

static void print_sampling(FILE *out, const vlart_plan_t *plan, uint32_t stage) {
  static const char *const forms[] = {"none", "steps", "fused"};
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_SAMPLINGS); i++) {
    const vlart_sampling_record_t *sampling = vlart_plan_sampling(plan, i);
    if (sampling->stage == stage) {
      fprintf(out, "  sampling form=%s iterations=%" PRIu32 " solver=", forms[sampling->form],
              sampling->iterations);
      vlart_print_quoted(out, vlart_plan_string(plan, sampling->solver));
      fprintf(out, " written=%" PRIu32 " error=%.9g budget=%.9g\n", sampling->written,
              (double)sampling->error, (double)sampling->budget);
    }
  }
}

static void print_precisions(FILE *out, const vlart_plan_t *plan, uint32_t stage) {
  static const char *const schemes[] = {"none", "fp32", "fp16", "int8", "int4"};
  static const char *const deciders[] = {"none", "default", "rule", "optimiser"};
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_PRECISIONS); i++) {
    const vlart_precision_record_t *precision = vlart_plan_precision(plan, i);
    if (precision->stage == stage) {
      fputs("  precision ", out);
      vlart_print_quoted(out, vlart_plan_string(plan, precision->group));
      fprintf(out, " %s by=%s layers=%" PRIu32 " error=%.9g time_us=%.9g bytes=%" PRIu64 "\n",
              schemes[precision->scheme], deciders[precision->decider], precision->layers,
              (double)precision->error, (double)precision->time_us, precision->bytes);
    }
  }
}

/* " LABEL\"STRING\"" */
static void print_string(FILE *out, const vlart_plan_t *plan, const char *label, uint32_t string) {
  fprintf(out, " %s", label);
  vlart_print_quoted(out, vlart_plan_string(plan, string));
}

static void print_board(FILE *out, const vlart_plan_t *plan) {
  if (vlart_plan_count(plan, VLART_SECTION_BOARD) > 0) {
    const vlart_board_record_t *board = vlart_plan_board(plan, 0);
    fputs("board", out);
    print_string(out, plan, "", board->name);
    fprintf(out, " sm=%" PRIu32, board->compute_capability);
    print_string(out, plan, "jetpack=", board->jetpack);
    print_string(out, plan, "l4t=", board->l4t);
    print_string(out, plan, "tensorrt=", board->tensorrt);
    print_string(out, plan, "timing_cache=", board->timing_cache);
    fputc('\n', out);
  }
}

static void print_build(FILE *out, const vlart_plan_t *plan, uint32_t stage) {
  static const char *const flags[] = {"none", "strongly_typed", "no_tf32",
                                      "strongly_typed,no_tf32"};
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_BUILDS); i++) {
    const vlart_build_record_t *build = vlart_plan_build(plan, i);
    if (build->stage == stage) {
      fprintf(out,
              "  build flags=%s level=%" PRIu32 " aux_streams=%" PRIu32 " workspace=%" PRIu64
              " weights=%" PRIu64 " engine=%" PRIu64 "..%" PRIu64 " activations=%" PRIu64
              " int8_gemms=%" PRIu32 " int4_dequants=%" PRIu32 " attentions=%" PRIu32 "\n",
              flags[build->flags], build->level, build->aux_streams, build->workspace_bytes,
              build->weight_bytes, build->engine_bytes_min, build->engine_bytes_max,
              build->activation_bytes, build->int8_gemms, build->int4_dequants, build->attentions);
    }
  }
}

static void print_stage(FILE *out, const vlart_plan_t *plan, uint32_t index) {
  const vlart_stage_record_t *stage = vlart_plan_stage(plan, index);
  fprintf(out, "stage %" PRIu32 " ", index);
  vlart_print_quoted(out, vlart_plan_string(plan, stage->name));
  fprintf(out, " %s file=", backend_name(stage->backend));
  print_index(out, stage->artefact);
  fprintf(out, " iterations=%" PRIu32 " flops=%" PRIu64 " weight_bytes=%" PRIu64 "\n",
          stage->iterations, stage->flops, stage->weight_bytes);
  fputs("  depends", out);
  for (uint32_t i = 0; i < stage->dep_count; i++) {
    uint32_t source = vlart_plan_index(plan, stage->dep_begin + i);
    fprintf(out, " %%%" PRIu32, vlart_plan_source(plan, source)->value);
  }
  fputc('\n', out);
  print_bindings(out, plan, "in", stage->input_begin, stage->input_count);
  print_bindings(out, plan, "out", stage->output_begin, stage->output_count);
  for (uint32_t i = 0; i < stage->initializer_count; i++) {
    const vlart_initializer_record_t *initializer =
        vlart_plan_initializer(plan, stage->initializer_begin + i);
    fputs("  init ", out);
    vlart_print_quoted(out, vlart_plan_string(plan, initializer->port));
    fprintf(out, " @%" PRIu32 "\n", initializer->weight);
  }
  for (uint32_t i = 0; i < stage->carry_count; i++) {
    const vlart_carry_record_t *carry = vlart_plan_carry(plan, stage->carry_begin + i);
    fprintf(out,
            "  carry %%%" PRIu32 " -> %%%" PRIu32 " scratch %%%" PRIu32 " in=%" PRIu32
            " out=%" PRIu32 "\n",
            carry->initial, carry->result, carry->scratch, carry->input - stage->input_begin,
            carry->output - stage->output_begin);
  }
  print_sampling(out, plan, index);
  print_precisions(out, plan, index);
  print_build(out, plan, index);
}

static void print_bounds(FILE *out, const vlart_plan_t *plan, const char *label, uint32_t begin,
                         uint32_t count) {
  if (count > 0) {
    fprintf(out, "  %s", label);
    for (uint32_t d = 0; d < count; d++) {
      fprintf(out, " %.9g", (double)vlart_plan_floats(plan, begin)[d]);
    }
    fputc('\n', out);
  }
}

void vlart_plan_print(FILE *out, const vlart_plan_t *plan) {
  const vlart_policy_record_t *policy = plan->policy;
  fputs("plan ", out);
  vlart_print_quoted(out, vlart_plan_string(plan, policy->name));
  fprintf(out, " format %" PRIu32 ".%" PRIu32 " target ", plan->file.version_major,
          plan->file.version_minor);
  vlart_print_quoted(out, vlart_plan_string(plan, policy->target));
  fputs(" recipe ", out);
  vlart_print_quoted(out, vlart_plan_string(plan, policy->recipe));
  fprintf(out, "\narena %" PRIu64 "\n", policy->arena_bytes);
  print_board(out, plan);
  print_files(out, plan);
  print_weights(out, plan);
  print_values(out, plan);
  print_sources(out, plan);
  print_histories(out, plan);
  print_texts(out, plan);
  print_instructions(out, plan);
  print_lanes(out, plan);
  print_guards(out, plan);
  print_backbones(out, plan);
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    print_stage(out, plan, i);
  }
  if (policy->action_value != VLART_NONE) {
    fprintf(out,
            "action %%%" PRIu32 " chunk=%" PRIu32 " execute=%" PRIu32 " dim=%" PRIu32
            " deadline_us=%" PRIu64 "\n",
            policy->action_value, policy->chunk_steps, policy->execute_steps, policy->action_dim,
            policy->deadline_us);
    print_bounds(out, plan, "low", policy->low_begin, policy->low_count);
    print_bounds(out, plan, "high", policy->high_begin, policy->high_count);
    vlart_plan_print_action(out, plan);
  }
}
