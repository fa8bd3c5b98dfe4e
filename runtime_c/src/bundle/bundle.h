/* The inside of a bundle: a validated plan and the mapped files. Constant after [open]. */
#ifndef VLART_BUNDLE_H
#define VLART_BUNDLE_H

#include "base/file_map.h"
#include "plan/plan.h"
#include "tokenizer/tokenizer.h"

/* Longer paths cannot be handed to an engine. */
enum { VLART_BUNDLE_PATH_BYTES = 4096 };

struct vlart_bundle {
  vlart_plan_t plan;
  vlart_map_t plan_map;
  vlart_map_t *files;                /* [file_count] as they were checked */
  vlart_token_table_t *token_tables; /* [text records] */
  char *dir;                         /* as given to open, NUL-terminated */
};

/* [init] Writes "DIR/PATH" of a file; false if it does not fit. */
bool vlart_bundle_path(const vlart_bundle_t *bundle, uint32_t file, char *out, size_t bytes);

/* [init] Whether a path still leads to the file that was checked, for engines that take nothing but a path. */
bool vlart_bundle_is_at(const vlart_bundle_t *bundle, uint32_t file, const char *path);

/* [init] The same of all files of weights. */
bool vlart_bundle_weights_are_at(const vlart_bundle_t *bundle);

/* [open] With the plan checked and the files mapped: the tables of its texts. */
vlart_status_t vlart_bundle_read_tokenizers(vlart_bundle_t *bundle, vlart_diag_t *diag);

/* Where a weight lies. */
const void *vlart_bundle_weight(const vlart_bundle_t *bundle, uint32_t weight);

/* [init] Gives the weights' pages back once an engine has read them: without this a weight counts twice, as mapped and
   as packed. */
void vlart_bundle_forget_pages(const vlart_bundle_t *bundle);

#endif
