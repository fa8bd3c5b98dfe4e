#include <string.h>

#include "base/diag.h"
#include "container/record_fields.h"

const vlart_field_t *vlart_field(uint32_t section, const char *name) {
  const vlart_fields_t *fields = &vlart_record_fields[section];
  for (uint32_t i = 0; i < fields->count; i++) {
    if (strcmp(fields->fields[i].name, name) == 0) {
      return &fields->fields[i];
    }
  }
  return NULL;
}

const char *vlart_member_name(const vlart_enum_t *members, uint32_t number) {
  for (uint32_t i = 0; i < members->count; i++) {
    if (members->members[i].number == number) {
      return members->members[i].name;
    }
  }
  return NULL;
}

typedef struct {
  const vlart_container_t *container;
  vlart_diag_t *diag;
  uint32_t section;
  uint32_t index;
  const uint8_t *record;
} row_t;

static uint32_t count_of(const row_t *row, uint32_t section) {
  return row->container->tables[section].count;
}

static const char *section_name(uint32_t section) {
  switch (section) { /* the ones without records */
    case VLART_SECTION_STRINGS: return "strings";
    case VLART_SECTION_INDICES: return "indices";
    case VLART_SECTION_FLOATS: return "floats";
    case VLART_SECTION_ENTRY_IDS: return "entries";
    default: return vlart_record_fields[section].section;
  }
}

#define WRONG(row, ...)                                                                           \
  vlart_corrupt((row)->diag, (row)->container->name, vlart_record_fields[(row)->section].section, \
                (row)->index, __VA_ARGS__)

static vlart_status_t check_string(const row_t *row, const vlart_field_t *field, uint32_t string) {
  const char *fault = vlart_string_fault(row->container, string);
  return fault == NULL ? VLART_STATUS_OK : WRONG(row, "its %s: %s", field->name, fault);
}

static vlart_status_t check_index(const row_t *row, const char *name, uint32_t section,
                                  uint32_t index) {
  uint32_t count = count_of(row, section);
  return index < count ? VLART_STATUS_OK
                       : WRONG(row, "its %s %u does not exist: there are %u %s", name, index, count,
                               section_name(section));
}

static vlart_status_t check_span(const row_t *row, const vlart_field_t *field, uint32_t begin) {
  uint32_t count = vlart_span_count(field, row->record);
  uint32_t available = count_of(row, field->section);
  if (begin > available || count > available - begin) {
    return WRONG(row, "its %s, %u from %u on, leaves the %s section of %u", field->name, count,
                 begin, section_name(field->section), available);
  }
  vlart_status_t status = VLART_STATUS_OK;
  for (uint32_t i = 0; field->items != 0 && status == VLART_STATUS_OK && i < count; i++) {
    const uint32_t *item = vlart_record(&row->container->tables[field->section], begin + i);
    status = check_index(row, field->name, field->items, *item);
  }
  return status;
}

static vlart_status_t check_bits(const row_t *row, const vlart_field_t *field, uint32_t bits) {
  uint32_t known = 0;
  for (uint32_t i = 0; i < field->of->count; i++) {
    known |= field->of->members[i].number;
  }
  return (bits & ~known) == 0 ? VLART_STATUS_OK
                              : WRONG(row, "its %s %u are unknown", field->name, bits);
}

static vlart_status_t check_field(const row_t *row, const vlart_field_t *field) {
  uint32_t number = vlart_field_u32(field, row->record);
  if (field->optional && number == VLART_NONE) {
    return VLART_STATUS_OK;
  }
  switch (field->kind) {
    case VLART_KIND_STRING: return check_string(row, field, number);
    case VLART_KIND_INDEX:
    case VLART_KIND_OWNER: return check_index(row, field->name, field->section, number);
    case VLART_KIND_SPAN: return check_span(row, field, number);
    case VLART_KIND_BITS: return check_bits(row, field, number);
    case VLART_KIND_ENUM:
      return field->later || vlart_member_name(field->of, number) != NULL
                 ? VLART_STATUS_OK
                 : WRONG(row, "its %s %u is unknown", field->name, number);
    case VLART_KIND_FLAG:
      return number <= 1 ? VLART_STATUS_OK
                         : WRONG(row, "its %s is %u, neither 0 nor 1", field->name, number);
    case VLART_KIND_RESERVED: /* a later minor version may use it */
      return number == 0 || row->container->version_minor > VLART_FORMAT_MINOR
                 ? VLART_STATUS_OK
                 : WRONG(row, "its field \"%s\" is not zero", field->name);
    case VLART_KIND_RANK:
      return number <= VLART_MAX_RANK ? VLART_STATUS_OK
                                      : WRONG(row, "its rank is larger than 8: %u", number);
    case VLART_KIND_NUMBER:
    case VLART_KIND_FLOAT:
    case VLART_KIND_CHECKSUM:
    case VLART_KIND_DIMS: break;
  }
  return VLART_STATUS_OK;
}

/* Every item is of one span at most: what a file stands for is no larger than the file. */
static vlart_status_t check_shares(const vlart_container_t *container, const row_t *row,
                                   uint64_t *left) {
  const vlart_fields_t *fields = &vlart_record_fields[row->section];
  for (uint32_t i = 0; i < fields->count; i++) {
    const vlart_field_t *field = &fields->fields[i];
    if (field->kind != VLART_KIND_SPAN) {
      continue;
    }
    uint32_t count = vlart_span_count(field, row->record);
    if (count > left[field->section]) {
      return WRONG(row, "its %s, %u from %u on, are in part another record's: there are %u %s",
                   field->name, count, vlart_field_u32(field, row->record),
                   container->tables[field->section].count, section_name(field->section));
    }
    left[field->section] -= count;
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_records_check(const vlart_container_t *container, vlart_diag_t *diag) {
  uint64_t left[VLART_SECTION_ID_LIMIT];
  for (uint32_t i = 0; i < VLART_SECTION_ID_LIMIT; i++) {
    left[i] = container->tables[i].count;
  }
  row_t row = {.container = container, .diag = diag};
  for (; row.section < VLART_SECTION_ID_LIMIT; row.section++) {
    const vlart_fields_t *fields = &vlart_record_fields[row.section];
    const vlart_table_t *table = &container->tables[row.section];
    for (row.index = 0; fields->section != NULL && row.index < table->count; row.index++) {
      row.record = vlart_record(table, row.index);
      for (uint32_t i = 0; i < fields->count; i++) {
        vlart_status_t status = check_field(&row, &fields->fields[i]);
        if (status != VLART_STATUS_OK) {
          return status;
        }
      }
      vlart_status_t status = check_shares(container, &row, left);
      if (status != VLART_STATUS_OK) {
        return status;
      }
    }
  }
  return VLART_STATUS_OK;
}
