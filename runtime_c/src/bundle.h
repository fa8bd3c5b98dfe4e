/* The inside of a bundle: a validated plan and the mapped files. Constant after [open]. */
#ifndef VLART_BUNDLE_H
#define VLART_BUNDLE_H

#include "plan.h"
#include "tokenizer.h"

typedef struct {
  const uint8_t *data; /* NULL: not mapped, or empty */
  size_t bytes;
} vlart_map_t;

struct vlart_bundle {
  vlart_plan_t plan;
  vlart_map_t plan_map;
  vlart_map_t *files; /* [file_count] weights and tokenizers stay mapped, the others do not */
  vlart_token_table_t *token_tables; /* [text records] */
  char *dir;          /* as given to open, NUL-terminated */
};

/* [init] Writes "DIR/PATH" of a file; false if it does not fit. */
bool vlart_bundle_path(const vlart_bundle_t *bundle, uint32_t file, char *out, size_t bytes);

/* Where a weight lies. */
const void *vlart_bundle_weight(const vlart_bundle_t *bundle, uint32_t weight);

/* [init] Gives the weights' pages back: an engine has read them by now, and what it still reads
   comes from the file again. Without this a weight counts twice, as mapped and as packed. */
void vlart_bundle_forget_pages(const vlart_bundle_t *bundle);

/* Copies a public output struct: BAD_ARGUMENT unless the caller's struct_size is at least ours. */
vlart_status_t vlart_copy_out(void *out, const void *full, size_t bytes);

/* The same of a struct that has grown: a caller may know it as it was, of `oldest` bytes at least. */
vlart_status_t vlart_copy_out_since(void *out, const void *full, size_t oldest, size_t bytes);

/* Copies a public option struct of `bytes`: `in` may be NULL (all defaults). What a newer caller
   added at the tail must be zero; what an older one, with at least the `oldest` bytes, does not
   have is zero. */
vlart_status_t vlart_copy_in(void *options, size_t oldest, size_t bytes, const void *in,
                             const char *call, vlart_diag_t *diag);

#endif
