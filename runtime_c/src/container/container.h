/* The header and the section table that plan.bin and frames files share. */
#ifndef VLART_CONTAINER_H
#define VLART_CONTAINER_H

#include <stdbool.h>

#include "vlart/vlart.h"

#define VLART_SECTION_ID_LIMIT 64u /* known ids are below; sections of other ids are skipped */

/* The records of one section; an absent section has count 0. */
typedef struct {
  const uint8_t *records;
  uint32_t count;
  uint32_t stride;
} vlart_table_t;

typedef struct {
  const char *name; /* of the file, for diagnostics */
  uint32_t version_major;
  uint32_t version_minor;
  vlart_table_t tables[VLART_SECTION_ID_LIMIT];
} vlart_container_t;

/* [open] Checks magic, checksums, version, every section's bounds, stride and alignment, and of every
   record what follows from the kinds of its fields (record_fields.h): afterwards no index, no string
   and no span leads outside.
   `data` is 8-byte aligned and stays mapped as long as the tables are used. */
vlart_status_t vlart_container_open(const uint8_t *data, size_t bytes, const char *magic,
                                    const char *name, vlart_diag_t *diag,
                                    vlart_container_t *out_container);

static inline const void *vlart_record(const vlart_table_t *table, uint32_t index) {
  return table->records + (size_t)index * table->stride;
}

/* [open] NULL if `string` is an offset of a well-formed string; else what is wrong with it. */
const char *vlart_string_fault(const vlart_container_t *container, uint32_t string);

/* After vlart_string_fault gave NULL. */
static inline const char *vlart_string(const vlart_container_t *container, uint32_t string) {
  return (const char *)container->tables[VLART_SECTION_STRINGS].records + string;
}

/* [open] NULL if element type, rank, dims and size agree; else what is wrong with them. */
const char *vlart_shape_fault(uint32_t dtype, uint32_t rank, const uint64_t *dims, uint64_t bytes);

#endif
