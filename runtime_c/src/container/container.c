
#include "container/container.h"

#include <string.h>

#include "base/crc32.h"
#include "base/diag.h"
#include "base/utf8.h"
#include "container/record_fields.h"

/* Record size of a known section: strides may grow with a minor version, never shrink.
   1 and 4 are sections of raw bytes and scalars. 0: an id that this reader does not know. */
static uint32_t known_stride(uint32_t id) {
  switch (id) {
#define STRIDE(name, bytes) \
  case VLART_SECTION_##name: return bytes;
    VLART_SECTIONS(STRIDE)
#undef STRIDE
    default: return 0;
  }
}

static vlart_status_t check_header(const uint8_t *data, size_t bytes, const char *magic,
                                   const char *name, vlart_diag_t *diag) {
  const vlart_header_record_t *header = (const void *)data;
  if (bytes < sizeof *header || memcmp(data, magic, 8) != 0) {
    vlart_fail(diag, VLART_STATUS_NOT_A_BUNDLE, "the file is not what its name says", NULL);
    vlart_where(diag, "%s", name);
    vlart_why(diag, "it has %zu bytes and does not begin with \"%s\"", bytes, magic);
    return VLART_STATUS_NOT_A_BUNDLE;
  }
  vlart_crc32_table_t table;
  vlart_crc32_init(&table);
  uint32_t crc = vlart_crc32(&table, 0, data, offsetof(vlart_header_record_t, header_crc32));
  if (crc != header->header_crc32) {
    return vlart_corrupt(diag, name, "header", 0, "its CRC-32 is %08x, it says %08x", crc,
                         header->header_crc32);
  }
  if (header->version_major != VLART_FORMAT_MAJOR) {
    vlart_fail(diag, VLART_STATUS_VERSION, "the file has another format version",
               "build the bundle with the compiler of this runtime, or update the runtime");
    vlart_where(diag, "%s", name);
    vlart_why(diag, "it is of version %u.%u, this library reads %u.x", header->version_major,
              header->version_minor, VLART_FORMAT_MAJOR);
    return VLART_STATUS_VERSION;
  }
  if (header->file_bytes != bytes) {
    return vlart_corrupt(diag, name, "header", 0, "the file has %zu bytes, it says %llu", bytes,
                         (unsigned long long)header->file_bytes);
  }
  crc = vlart_crc32(&table, 0, data + sizeof *header, bytes - sizeof *header);
  if (crc != header->payload_crc32) {
    return vlart_corrupt(diag, name, "header", 0, "the payload's CRC-32 is %08x, it says %08x", crc,
                         header->payload_crc32);
  }
  if (header->section_count > (bytes - sizeof *header) / sizeof(vlart_section_record_t)) {
    return vlart_corrupt(diag, name, "header", 0, "%u sections do not fit into %zu bytes",
                         header->section_count, bytes);
  }
  return VLART_STATUS_OK;
}

static vlart_status_t check_section(const vlart_section_record_t *section, uint32_t index,
                                    size_t tables_end, size_t bytes, const char *name,
                                    vlart_diag_t *diag) {
  if (section->offset % VLART_ALIGN != 0 || section->offset < tables_end ||
      section->offset > bytes || section->bytes > bytes - section->offset) {
    return vlart_corrupt(diag, name, "section", index,
                         "%llu bytes at offset %llu are not aligned or not inside the file",
                         (unsigned long long)section->bytes, (unsigned long long)section->offset);
  }
  if ((uint64_t)section->stride * section->count != section->bytes) {
    return vlart_corrupt(diag, name, "section", index, "%u records of %u bytes are not %llu bytes",
                         section->count, section->stride, (unsigned long long)section->bytes);
  }
  uint32_t known = known_stride(section->id);
  bool raw = known == 1 || known == 4;
  if (known != 0 &&
      (raw ? section->stride != known : section->stride < known || section->stride % 8 != 0)) {
    return vlart_corrupt(diag, name, "section", index, "its stride is %u, this reader knows %u",
                         section->stride, known);
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_container_open(const uint8_t *data, size_t bytes, const char *magic,
                                    const char *name, vlart_diag_t *diag,
                                    vlart_container_t *out_container) {
  vlart_status_t status = check_header(data, bytes, magic, name, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  const vlart_header_record_t *header = (const void *)data;
  *out_container = (vlart_container_t){
      .name = name, .version_major = header->version_major, .version_minor = header->version_minor};
  const vlart_section_record_t *sections = (const void *)(data + sizeof *header);
  size_t tables_end = sizeof *header + header->section_count * sizeof *sections;
  for (uint32_t i = 0; i < header->section_count; i++) {
    const vlart_section_record_t *section = &sections[i];
    status = check_section(section, i, tables_end, bytes, name, diag);
    if (status != VLART_STATUS_OK) {
      return status;
    }
    if (known_stride(section->id) == 0) {
      continue;
    }
    vlart_table_t *table = &out_container->tables[section->id];
    if (table->records != NULL) {
      return vlart_corrupt(diag, name, "section", i, "section id %u comes twice", section->id);
    }
    *table = (vlart_table_t){data + section->offset, section->count, section->stride};
  }
  return vlart_records_check(out_container, diag);
}

const char *vlart_string_fault(const vlart_container_t *container, uint32_t string) {
  const vlart_table_t *strings = &container->tables[VLART_SECTION_STRINGS];
  if (string >= strings->count) {
    return "a string begins outside the strings section";
  }
  uint32_t rest = strings->count - string;
  uint32_t longest = VLART_MAX_STRING + 1;
  const uint8_t *text = strings->records + string;
  const uint8_t *end = memchr(text, '\0', rest < longest ? rest : longest);
  if (end == NULL) {
    return "a string has no end in its section or is longer than 1023 bytes";
  }
  return vlart_text_is_line(text, (size_t)(end - text))
             ? NULL
             : "a string is not UTF-8, or holds control characters";
}

const char *vlart_shape_fault(uint32_t dtype, uint32_t rank, const uint64_t *dims, uint64_t bytes) {
  uint64_t product = vlart_dtype_bytes(dtype);
  if (product == 0) {
    return "the element type is unknown";
  }
  if (rank > VLART_MAX_RANK) {
    return "the rank is larger than 8";
  }
  for (uint32_t d = 0; d < VLART_MAX_RANK; d++) {
    if (d >= rank ? dims[d] != 1 : dims[d] > INT64_MAX) {
      return "a dimension is too large, or one beyond the rank is not 1";
    }
    if (__builtin_mul_overflow(product, dims[d], &product)) {
      return "the product of the dimensions overflows";
    }
  }
  return product == bytes ? NULL : "the dimensions do not give the size in bytes";
}
