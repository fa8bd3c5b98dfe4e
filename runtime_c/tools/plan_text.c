#include "plan_text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "plan_text_lines.h"

/* A record, and the one that its line stands below. */
typedef struct item item_t;
struct item {
  uint32_t section;
  uint32_t number;
  const uint8_t *record;
  const item_t *above;
};

typedef struct {
  FILE *out;
  const vlart_plan_t *plan;
} printer_t;

static const vlart_table_t *table_of(const printer_t *printer, uint32_t section) {
  return &printer->plan->file.tables[section];
}

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

/* Values are %N, weights @N, a source is its value, other records are N. */
static void print_index(const printer_t *printer, uint32_t section, uint32_t index) {
  if (index == VLART_NONE) {
    fputs("none", printer->out);
    return;
  }
  if (section == VLART_SECTION_SOURCES) {
    index = vlart_plan_source(printer->plan, index)->value;
    section = VLART_SECTION_VALUES;
  }
  const char *sign = section == VLART_SECTION_VALUES    ? "%"
                     : section == VLART_SECTION_WEIGHTS ? "@"
                                                        : "";
  fprintf(printer->out, "%s%" PRIu32, sign, index);
}

static void print_bits(FILE *out, const vlart_enum_t *bits, uint32_t number) {
  const char *before = "";
  for (uint32_t i = 0; i < bits->count; i++) {
    if ((number & bits->members[i].number) != 0) {
      fprintf(out, "%s%s", before, bits->members[i].name);
      before = ",";
    }
  }
  fputs(number == 0 ? "none" : "", out);
}

static void print_dims(FILE *out, const item_t *item, const uint8_t *at) {
  const vlart_field_t *rank = vlart_field(item->section, "rank");
  const uint64_t *dims = (const void *)at;
  for (uint32_t d = 0; d < vlart_field_u32(rank, item->record); d++) {
    fprintf(out, "%s%" PRIu64, d > 0 ? "," : "", dims[d]);
  }
}

static void print_number(FILE *out, const vlart_field_t *field, const uint8_t *at) {
  switch (field->type) {
    case VLART_TYPE_U32: fprintf(out, "%" PRIu32, *(const uint32_t *)(const void *)at); break;
    case VLART_TYPE_U64: fprintf(out, "%" PRIu64, *(const uint64_t *)(const void *)at); break;
    case VLART_TYPE_F32: fprintf(out, "%.9g", (double)*(const float *)(const void *)at); break;
    case VLART_TYPE_F64: fprintf(out, "%.9g", *(const double *)(const void *)at); break;
    case VLART_TYPE_I64: {
      int64_t number = *(const int64_t *)(const void *)at;
      if (field->optional && number < 0) {
        fputs("none", out);
      } else {
        fprintf(out, "%" PRId64, number);
      }
    }
  }
}

static void print_field(const printer_t *printer, const item_t *item, const vlart_field_t *field) {
  const uint8_t *at = item->record + field->offset;
  uint32_t number = vlart_field_u32(field, item->record);
  switch (field->kind) {
    case VLART_KIND_STRING:
      vlart_print_quoted(printer->out, vlart_plan_string(printer->plan, number));
      break;
    case VLART_KIND_INDEX:
    case VLART_KIND_OWNER:
      if (field->within != NULL) {
        const vlart_field_t *span = vlart_field(item->above->section, field->within);
        number -= vlart_field_u32(span, item->above->record);
      }
      print_index(printer, field->section, number);
      break;
    case VLART_KIND_ENUM: fputs(vlart_member_name(field->of, number), printer->out); break;
    case VLART_KIND_BITS: print_bits(printer->out, field->of, number); break;
    case VLART_KIND_CHECKSUM: fprintf(printer->out, "%08" PRIx32, number); break;
    case VLART_KIND_DIMS: print_dims(printer->out, item, at); break;
    case VLART_KIND_NUMBER:
    case VLART_KIND_FLOAT:
    case VLART_KIND_FLAG:
    case VLART_KIND_RANK: print_number(printer->out, field, at); break;
    case VLART_KIND_SPAN:
    case VLART_KIND_RESERVED: break;
  }
}

/* Records within records, lines below lines: as deep as the generated tables are, which is three. */
// NOLINTBEGIN(misc-no-recursion)
static void print_text(const printer_t *printer, const item_t *item, const char *text);

/* One item of a span: a float, an index, or a record. */
static void print_item(const printer_t *printer, const item_t *item, const vlart_field_t *span,
                       uint32_t index) {
  const vlart_table_t *table = table_of(printer, span->section);
  const uint8_t *record = vlart_record(table, index);
  if (span->section == VLART_SECTION_FLOATS) {
    fprintf(printer->out, "%.9g", (double)*(const float *)(const void *)record);
  } else if (span->section == VLART_SECTION_INDICES) {
    print_index(printer, span->items, *(const uint32_t *)(const void *)record);
  } else {
    print_text(printer, &(item_t){span->section, index, record, item},
               plan_item_texts[span->section]);
  }
}

/* "{*span}", "{span}" or "{span[part/parts]}". */
static void print_span(const printer_t *printer, const item_t *item, const vlart_field_t *span,
                       bool each, const char *part) {
  uint32_t begin = vlart_field_u32(span, item->record);
  uint32_t count = vlart_span_count(span, item->record);
  if (*part == '[') {
    count /= (uint32_t)atoi(part + 3); /* both are one digit */
    begin += count * (uint32_t)atoi(part + 1);
  } else if (count == 0 && !each) {
    fputs("none", printer->out);
  }
  for (uint32_t i = 0; i < count; i++) {
    fputs(each ? " " : i > 0 ? "," : "", printer->out);
    print_item(printer, item, span, begin + i);
  }
}

static void print_text(const printer_t *printer, const item_t *item, const char *text) {
  for (const char *open = strchr(text, '{'); open != NULL; open = strchr(text, '{')) {
    fwrite(text, 1, (size_t)(open - text), printer->out);
    bool each = open[1] == '*';
    const char *name = open + 1 + each;
    size_t length = strcspn(name, "[}");
    char key[64] = {0}; /* the generated lines name only fields that there are */
    memcpy(key, name, length);
    text = strchr(name, '}') + 1;
    if (*name == '#') {
      fprintf(printer->out, "%" PRIu32, item->number);
    } else if (strncmp(name, "format}", 7) == 0) {
      fprintf(printer->out, "%" PRIu32 ".%" PRIu32, printer->plan->file.version_major,
              printer->plan->file.version_minor);
    } else {
      const vlart_field_t *field = vlart_field(item->section, key);
      if (field->kind == VLART_KIND_SPAN) {
        print_span(printer, item, field, each, name + length);
      } else {
        print_field(printer, item, field);
      }
    }
  }
  fputs(text, printer->out);
}

static void print_lines(const printer_t *printer, const plan_line_t *lines, uint32_t count,
                        const item_t *above);

static bool is_there(const item_t *item, const char *name) {
  const vlart_field_t *field = vlart_field(item->section, name);
  return field->kind == VLART_KIND_SPAN ? vlart_span_count(field, item->record) > 0
                                        : vlart_field_u32(field, item->record) != VLART_NONE;
}

static void print_line(const printer_t *printer, const plan_line_t *line, const item_t *item) {
  uint32_t member = 0;
  if (line->by != NULL) {
    member = vlart_field_u32(vlart_field(item->section, line->by), item->record);
  }
  const char *text = line->texts[member];
  if (text == NULL || (line->when != NULL && !is_there(item, line->when))) {
    return;
  }
  fputs(line->lead != NULL ? line->lead : "", printer->out);
  print_text(printer, item, text);
  fputc('\n', printer->out);
  print_lines(printer, line->lines, line->line_count, item);
}

static void print_lines(const printer_t *printer, const plan_line_t *lines, uint32_t count,
                        const item_t *above) {
  for (const plan_line_t *line = lines; line < lines + count; line++) {
    const vlart_table_t *table = table_of(printer, line->section);
    uint32_t begin = 0;
    uint32_t end = table->count;
    const vlart_field_t *owner = NULL;
    if (line->of == PLAN_LINE_SELF) {
      print_line(printer, line, above);
      continue;
    }
    if (line->of == PLAN_LINE_SPAN) {
      const vlart_field_t *span = vlart_field(above->section, line->field);
      begin = vlart_field_u32(span, above->record);
      end = begin + vlart_span_count(span, above->record);
    } else if (line->of == PLAN_LINE_OWNED) {
      owner = vlart_field(line->section, line->field);
    }
    for (uint32_t i = begin; i < end; i++) {
      item_t item = {line->section, i, vlart_record(table, i), above};
      if (owner == NULL || vlart_field_u32(owner, item.record) == above->number) {
        print_line(printer, line, &item);
      }
    }
  }
}

// NOLINTEND(misc-no-recursion)

void vlart_plan_print(FILE *out, const vlart_plan_t *plan) {
  item_t policy = {VLART_SECTION_POLICY, 0, (const uint8_t *)plan->policy, NULL};
  policy.above = &policy; /* the lines that stand below none are the policy's */
  print_lines(&(printer_t){out, plan}, plan_lines, plan_line_count, &policy);
}
