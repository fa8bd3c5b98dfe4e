/* [tick] Runs the plan's decode steps: from the action value to a chunk of actions. Everything that
   a step indexes with was checked when the bundle was opened, or is checked here per token. */
#include "session/decode_action.h"

#include <math.h>
#include <string.h>

#include "base/diag.h"
#include "session/session.h"

typedef struct {
  vlart_session_t *session;
  vlart_diag_t *diag;
  const vlart_plan_t *plan;
  const vlart_decode_record_t *step;
  size_t steps;    /* H */
  size_t dim;      /* D */
  double *numbers; /* [H, D] what the steps hand on */
} decode_t;

/* A token sequence that becomes a chunk symbol by symbol. */
typedef struct {
  size_t count; /* symbols so far; numbers has room for `most` */
  size_t most;
  uint32_t code;  /* UTF-8: bits of the code point so far */
  uint32_t least; /* UTF-8: smallest code point that may be written with so many bytes */
  uint32_t more;  /* UTF-8: continuation bytes that are missing */
} sequence_t;

static vlart_status_t refuse(const decode_t *d, size_t token, int64_t id, const char *why) {
  vlart_fail(d->diag, VLART_STATUS_ACTION_NOT_DECODED, "the tokens are no action chunk",
             "execute the stale chunk or stop; write a new observation and step");
  vlart_where(d->diag, "token %zu of value \"%s\"", token,
              vlart_plan_value_name(d->plan, d->session->selection.action_value));
  if (id < 0) {
    vlart_why(d->diag, "%s: -%llu", why, -(unsigned long long)id);
  } else {
    vlart_why(d->diag, "%s: %llu", why, (unsigned long long)id);
  }
  return VLART_STATUS_ACTION_NOT_DECODED;
}

static size_t token_count(const decode_t *d) {
  const vlart_value_record_t *value = vlart_plan_value(d->plan, d->session->selection.action_value);
  return (size_t)value->bytes / vlart_dtype_bytes(value->dtype);
}

static int64_t token_at(const decode_t *d, size_t i) {
  uint32_t value = d->session->selection.action_value;
  const void *tokens = d->session->values.at[value];
  return vlart_plan_value(d->plan, value)->dtype == VLART_DTYPE_I32 ? ((const int32_t *)tokens)[i]
                                                                    : ((const int64_t *)tokens)[i];
}

/* direction * (token - first); where that overflows, the nearest number that does not. */
static int64_t index_of(const decode_t *d, int64_t token, uint32_t first) {
  int64_t index;
  bool down = d->step->direction < 0;
  if (down ? __builtin_sub_overflow((int64_t)first, token, &index)
           : __builtin_sub_overflow(token, (int64_t)first, &index)) {
    return down ? INT64_MAX : INT64_MIN;
  }
  return index;
}

static vlart_status_t run_lookup(const decode_t *d) {
  const vlart_decode_record_t *step = d->step;
  const float *table = vlart_bundle_weight(d->session->bundle, step->table);
  size_t columns = (size_t)vlart_plan_weight(d->plan, step->table)->dims[1];
  for (size_t n = 0; n < d->steps * d->dim; n++) {
    uint32_t at = (uint32_t)(n % d->dim);
    int64_t token = token_at(d, n);
    int64_t index = index_of(d, token, vlart_plan_index(d->plan, step->index_begin + at));
    int64_t last = vlart_plan_index(d->plan, step->index_begin + (uint32_t)d->dim + at) - 1;
    if (index < 0 || index > last) {
      if (step->outside == VLART_OUTSIDE_REFUSE) {
        return refuse(d, n, token, "the table has no row for it");
      }
      if (step->outside == VLART_OUTSIDE_ZERO) {
        d->numbers[n] = 0;
        continue;
      }
      index = index < 0 ? 0 : last;
    }
    d->numbers[n] = (double)table[at * columns + (size_t)index];
  }
  return VLART_STATUS_OK;
}

/* Takes one byte of UTF-8 (RFC 3629: no overlong form, no surrogate, at most U+10FFFF). Returns
   whether it may stand here; `more` is 0 when `code` is complete. */
static bool take_byte(sequence_t *s, uint32_t byte) {
  if (s->more > 0) {
    s->code = s->code << 6 | (byte & 0x3Fu);
    s->more--;
    return byte >= 0x80 && byte < 0xC0 &&
           (s->more > 0 ||
            (s->code >= s->least && s->code <= 0x10FFFF && (s->code < 0xD800 || s->code > 0xDFFF)));
  }
  s->more = byte < 0x80 ? 0 : byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
  s->least = s->more == 0 ? 0 : s->more == 1 ? 0x80 : s->more == 2 ? 0x800 : 0x10000;
  s->code = byte & (0x7Fu >> (s->more == 0 ? 0 : s->more + 1));
  return byte < 0x80 || (byte >= 0xC0 && byte < 0xF8);
}

/* Appends the symbols of one row. False: a byte that is no UTF-8, or one symbol too many. */
static bool take_row(const decode_t *d, sequence_t *s, const int32_t *row, size_t length) {
  for (size_t i = 0; i < length && row[i] >= 0; i++) {
    if (s->count == s->most) {
      return d->step->length == VLART_LENGTH_FIT;
    }
    if (d->step->symbols == VLART_SYMBOLS_INTEGERS) {
      s->code = (uint32_t)row[i];
    } else if (!take_byte(s, (uint32_t)row[i])) {
      return false;
    }
    if (s->more == 0) {
      d->numbers[s->count++] = (double)s->code + (double)d->step->offset;
    }
  }
  return true;
}

static vlart_status_t run_pieces(const decode_t *d) {
  const vlart_decode_record_t *step = d->step;
  const vlart_weight_record_t *record = vlart_plan_weight(d->plan, step->table);
  const int32_t *table = vlart_bundle_weight(d->session->bundle, step->table);
  sequence_t s = {.most = d->steps * d->dim};
  size_t length = (size_t)record->dims[1];
  size_t tokens = token_count(d);
  memset(d->numbers, 0, s.most * sizeof *d->numbers);
  size_t i = 0;
  for (; i < tokens && (step->length == VLART_LENGTH_EXACT || s.count < s.most); i++) {
    int64_t token = token_at(d, i);
    if (step->stop >= 0 && token == step->stop) {
      break;
    }
    int64_t index = index_of(d, token, vlart_plan_index(d->plan, step->index_begin));
    if (index < 0 || (uint64_t)index >= record->dims[0]) {
      if (step->outside == VLART_OUTSIDE_REFUSE) {
        return refuse(d, i, token, "the table has no row for it");
      }
    } else if (!take_row(d, &s, table + (size_t)index * length, length)) {
      return refuse(d, i, token,
                    s.count == s.most ? "it brings more symbols than the chunk has numbers"
                                      : "its symbols are no UTF-8 here");
    }
  }
  if (s.more > 0) {
    return refuse(d, i, s.more, "the sequence ends within a character, bytes missing");
  }
  if (s.count < s.most && step->length == VLART_LENGTH_EXACT) {
    return refuse(d, i, (int64_t)(s.most - s.count), "the sequence ends early, symbols missing");
  }
  return VLART_STATUS_OK;
}

/* numbers[t, d] <- sum over k of basis[t, k] * numbers[k, d] */
static void run_basis(const decode_t *d) {
  const float *basis = vlart_bundle_weight(d->session->bundle, d->step->table);
  double *column = d->session->decode.column;
  for (size_t at = 0; at < d->dim; at++) {
    for (size_t k = 0; k < d->steps; k++) {
      column[k] = d->numbers[k * d->dim + at];
    }
    for (size_t t = 0; t < d->steps; t++) {
      double sum = 0;
      for (size_t k = 0; k < d->steps; k++) {
        sum += (double)basis[t * d->steps + k] * column[k];
      }
      d->numbers[t * d->dim + at] = sum;
    }
  }
}

static void run_affine(const decode_t *d) {
  const float *scale = vlart_plan_floats(d->plan, d->step->float_begin);
  for (size_t n = 0; n < d->steps * d->dim; n++) {
    size_t at = n % d->dim;
    d->numbers[n] = d->numbers[n] * (double)scale[at] + (double)scale[d->dim + at];
  }
}

static void run_delta(const decode_t *d) {
  const float *source = d->session->values.at[d->step->value];
  for (size_t n = 0; n < d->steps * d->dim; n++) {
    uint32_t element = vlart_plan_index(d->plan, d->step->index_begin + (uint32_t)(n % d->dim));
    d->numbers[n] += element == VLART_NONE ? 0 : (double)source[element];
  }
}

/* What no float can hold becomes an infinity, which the checks of the queue refuse. */
static float to_float(double number) {
  return fabs(number) <= (double)3.402823466e38f ? (float)number : (float)INFINITY;
}

vlart_status_t vlart_decode(vlart_session_t *session, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  decode_t d = {.session = session,
                .diag = diag,
                .plan = plan,
                .steps = plan->policy->chunk_steps,
                .dim = plan->policy->action_dim,
                .numbers = session->decode.numbers};
  if (vlart_plan_value(plan, session->selection.action_value)->dtype == VLART_DTYPE_F32) {
    const float *chunk = session->values.at[session->selection.action_value];
    for (size_t n = 0; n < d.steps * d.dim; n++) {
      d.numbers[n] = (double)chunk[n];
    }
  }
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_DECODES); i++) {
    vlart_status_t status = VLART_STATUS_OK;
    d.step = vlart_plan_decode(plan, i);
    switch (d.step->kind) {
      case VLART_DECODE_KIND_LOOKUP: status = run_lookup(&d); break;
      case VLART_DECODE_KIND_PIECES: status = run_pieces(&d); break;
      case VLART_DECODE_KIND_BASIS: run_basis(&d); break;
      case VLART_DECODE_KIND_AFFINE: run_affine(&d); break;
      default: run_delta(&d); break;
    }
    if (status != VLART_STATUS_OK) {
      return status;
    }
  }
  for (size_t n = 0; n < d.steps * d.dim; n++) {
    session->decode.chunk[n] = to_float(d.numbers[n]);
  }
  return VLART_STATUS_OK;
}

void vlart_decode_take(vlart_session_t *draft, vlart_arena_t *arena) {
  const vlart_plan_t *plan = &draft->bundle->plan;
  bool decodes = vlart_plan_count(plan, VLART_SECTION_DECODES) > 0;
  size_t steps = decodes ? plan->policy->chunk_steps : 0;
  size_t numbers = steps * (decodes ? plan->policy->action_dim : 0);
  draft->decode.numbers = vlart_arena_take(arena, numbers, sizeof *draft->decode.numbers);
  draft->decode.column = vlart_arena_take(arena, steps, sizeof *draft->decode.column);
  draft->decode.chunk = vlart_arena_take(arena, numbers, sizeof *draft->decode.chunk);
}

void vlart_decode_init(vlart_session_t *session) {
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; i < vlart_plan_count(plan, VLART_SECTION_DECODES); i++) {
    const vlart_decode_record_t *step = vlart_plan_decode(plan, i);
    if (step->kind == VLART_DECODE_KIND_DELTA) {
      session->decode.sources |= 1ull << plan->writers[step->value].index;
    }
  }
}

uint64_t vlart_decode_version(const vlart_session_t *session) {
  uint64_t version = 0; /* versions only grow, so that equal sums are equal versions */
  for (uint32_t i = 0; i < session->bundle->plan.source_count; i++) {
    version += session->decode.sources >> i & 1 ? session->sources.versions[i] : 0;
  }
  return version;
}
