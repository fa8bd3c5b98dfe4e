/* Texts of a plan, a bundle and a session. */
#ifndef VLART_TEXT_H
#define VLART_TEXT_H

#include "bundle.h"

/* [open] The plan's records; then, with the files mapped, their tables. */
vlart_status_t vlart_plan_check_texts(const vlart_plan_t *plan, vlart_diag_t *diag);
vlart_status_t vlart_bundle_read_tokenizers(vlart_bundle_t *bundle, vlart_diag_t *diag);

/* [init] Places, or measures, what the texts of a session need. */
void vlart_texts_take(vlart_session_t *draft, vlart_arena_t *arena);

#endif
