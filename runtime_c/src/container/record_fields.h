/* What the fields of the records hold, by section: the layout as tables, for what treats all records alike.
   record_fields.c is generated. Knows nothing of what is recorded. */
#ifndef VLART_RECORD_FIELDS_H
#define VLART_RECORD_FIELDS_H

#include "container/container.h"

/* As in vlart/bundle/format/record.py. */
typedef enum {
  VLART_KIND_NUMBER, /* optional: a negative one is none */
  VLART_KIND_FLOAT,
  VLART_KIND_CHECKSUM,
  VLART_KIND_FLAG, /* 0 or 1 */
  VLART_KIND_STRING,
  VLART_KIND_INDEX, /* of a record of `section` */
  VLART_KIND_OWNER, /* the same: of the record that it belongs to */
  VLART_KIND_ENUM,  /* a member of `of` */
  VLART_KIND_BITS,  /* a sum of members of `of` */
  VLART_KIND_RANK,
  VLART_KIND_DIMS,
  VLART_KIND_SPAN,     /* two numbers: begin and count in `section` */
  VLART_KIND_RESERVED, /* zero */
} vlart_kind_t;

typedef enum {
  VLART_TYPE_U32,
  VLART_TYPE_U64,
  VLART_TYPE_I64,
  VLART_TYPE_F32,
  VLART_TYPE_F64,
} vlart_type_t;

typedef struct {
  uint32_t number;
  const char *name;
} vlart_member_t;

typedef struct {
  const vlart_member_t *members;
  uint32_t count;
} vlart_enum_t;

typedef struct {
  const char *name; /* of a span: without _begin */
  vlart_kind_t kind;
  vlart_type_t type;
  bool optional;          /* may be VLART_NONE */
  bool later;             /* ENUM: whoever uses it decides on unknown members */
  uint32_t offset;        /* in the record, bytes */
  uint32_t section;       /* INDEX, OWNER, SPAN */
  uint32_t items;         /* SPAN of indices: the section that they lead into, or 0 */
  const char *within;     /* INDEX: text counts from the begin of this span of its owner */
  const vlart_enum_t *of; /* ENUM, BITS */
} vlart_field_t;

typedef struct {
  const char *section; /* NULL: a section without records */
  const vlart_field_t *fields;
  uint32_t count;
} vlart_fields_t;

extern const vlart_fields_t vlart_record_fields[VLART_SECTION_ID_LIMIT];

/* The u32 at a field of a record: the index, the member, the begin of a span. */
static inline uint32_t vlart_field_u32(const vlart_field_t *field, const uint8_t *record) {
  return *(const uint32_t *)(const void *)(record + field->offset);
}

/* The field of a section's records with this name; NULL: there is none. */
const vlart_field_t *vlart_field(uint32_t section, const char *name);

/* NULL: no member has this number. */
const char *vlart_member_name(const vlart_enum_t *members, uint32_t number);

/* How many records, or numbers, a span covers. */
static inline uint32_t vlart_span_count(const vlart_field_t *field, const uint8_t *record) {
  return *(const uint32_t *)(const void *)(record + field->offset + sizeof(uint32_t));
}

/* [open] What follows from the kinds, for every record of a container: strings, indices and spans lie inside their
   sections, members of enumerations are known, flags are 0 or 1, reserved fields are zero. */
vlart_status_t vlart_records_check(const vlart_container_t *container, vlart_diag_t *diag);

#endif
