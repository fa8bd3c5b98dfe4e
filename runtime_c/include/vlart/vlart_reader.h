/* Part of vlart.h: the reader of files by itself, for a program that takes them apart in its own language:
   what it was told is OK here has no index, string or range that leads outside, and no part of it stands
   for more than its bytes. Phases, ownership and structs are as in vlart.h. */
#ifndef VLART_READER_API_H
#define VLART_READER_API_H

#include "vlart/vlart.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The content of a plan.bin, of a frames file or of engines/lock.bin, by its first bytes; 8-byte aligned. `name`:
   for the diagnostic. Any thread.
   [open] Bytes of arena that vlart_content_check needs. */
VLART_API vlart_status_t vlart_content_required_bytes(const void *data, size_t bytes,
                                                      const char *name, vlart_diag_t *diag,
                                                      size_t *out_bytes);

/* [open] Validates the content, as vlart_bundle_open does with a plan; the arena is free again afterwards. */
VLART_API vlart_status_t vlart_content_check(const void *data, size_t bytes, const char *name,
                                             void *arena, size_t arena_bytes, vlart_diag_t *diag);

/* The plan.bin of an open bundle as it was validated, until the bundle is closed. Any thread. */
VLART_API vlart_status_t vlart_bundle_plan(const vlart_bundle_t *bundle, const void **out_data,
                                           size_t *out_bytes);

#ifdef __cplusplus
}
#endif

#endif
