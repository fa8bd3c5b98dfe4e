/* The lines below "action": decode steps and consumption. */
#include <inttypes.h>

#include "plan_text.h"

static void print_indices(FILE *out, const vlart_plan_t *plan, const char *label, uint32_t begin,
                          uint32_t count) {
  fprintf(out, " %s=", label);
  for (uint32_t i = 0; i < count; i++) {
    uint32_t index = vlart_plan_index(plan, begin + i);
    fputs(i > 0 ? "," : "", out);
    if (index == VLART_NONE) {
      fputs("none", out);
    } else {
      fprintf(out, "%" PRIu32, index);
    }
  }
}

static void print_floats(FILE *out, const vlart_plan_t *plan, const char *label, uint32_t begin,
                         uint32_t count) {
  fprintf(out, " %s=", label);
  for (uint32_t i = 0; i < count; i++) {
    fprintf(out, "%s%.9g", i > 0 ? "," : "", (double)vlart_plan_floats(plan, begin)[i]);
  }
}

static void print_value(FILE *out, const char *label, uint32_t value) {
  if (value == VLART_NONE) {
    fprintf(out, " %s=none", label);
  } else {
    fprintf(out, " %s=%%%" PRIu32, label, value);
  }
}

static void print_tokens(FILE *out, const vlart_decode_record_t *step) {
  static const char *const outsides[] = {"clip", "zero", "refuse", "skip"};
  fprintf(out, " @%" PRIu32 " direction=%" PRId64 " outside=%s", step->table, step->direction,
          outsides[step->outside]);
}

static void print_decode(FILE *out, const vlart_plan_t *plan, const vlart_decode_record_t *step) {
  static const char *const kinds[] = {"none", "lookup", "pieces", "basis", "affine", "delta"};
  static const char *const symbols[] = {"integers", "utf8"};
  static const char *const lengths[] = {"exact", "fit"};
  uint32_t dim = plan->policy->action_dim;
  fprintf(out, "  decode %s", kinds[step->kind]);
  switch (step->kind) {
    case VLART_DECODE_KIND_LOOKUP:
      print_tokens(out, step);
      print_indices(out, plan, "first", step->index_begin, dim);
      print_indices(out, plan, "rows", step->index_begin + dim, dim);
      break;
    case VLART_DECODE_KIND_PIECES:
      print_tokens(out, step);
      print_indices(out, plan, "first", step->index_begin, 1);
      fprintf(out, " symbols=%s offset=%" PRId64, symbols[step->symbols], step->offset);
      if (step->stop < 0) {
        fputs(" stop=none", out);
      } else {
        fprintf(out, " stop=%" PRId64, step->stop);
      }
      fprintf(out, " length=%s", lengths[step->length]);
      break;
    case VLART_DECODE_KIND_BASIS: fprintf(out, " @%" PRIu32, step->table); break;
    case VLART_DECODE_KIND_AFFINE:
      print_floats(out, plan, "scale", step->float_begin, dim);
      print_floats(out, plan, "offset", step->float_begin + dim, dim);
      break;
    default:
      fprintf(out, " %%%" PRIu32, step->value);
      print_indices(out, plan, "element", step->index_begin, dim);
      break;
  }
  fputc('\n', out);
}

void vlart_plan_print_action(FILE *out, const vlart_plan_t *plan) {
  static const char *const schedules[] = {"zeros", "ones", "linear", "exp"};
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_DECODES); i++) {
    print_decode(out, plan, vlart_plan_decode(plan, i));
  }
  const vlart_consumption_record_t *c = plan->consumption;
  if (c == NULL) {
    return;
  }
  if (c->consume == VLART_CONSUME_ENSEMBLE) {
    fprintf(out, "  consume ensemble decay=%.9g\n", (double)c->decay);
  } else if (c->consume == VLART_CONSUME_REALTIME) {
    fprintf(out, "  consume realtime delay=%" PRIu32 " schedule=%s horizon=%" PRIu32, c->delay,
            schedules[c->schedule], c->horizon);
    print_value(out, "previous", c->previous);
    print_value(out, "weights", c->weights);
    print_value(out, "chunk", c->chunk);
    fputc('\n', out);
  }
}
