/* Texts of a session. */
#ifndef VLART_TASK_TEXT_H
#define VLART_TASK_TEXT_H

#include "base/arena.h"
#include "tokenizer/tokenizer.h"

/* One text of the plan: its tokenizer, and what the last call made of it. */
typedef struct {
  vlart_tokenizer_t *tokenizer;
  uint8_t *ids;  /* as the token source */
  uint8_t *mask; /* [L] */
} vlart_session_text_t;

/* [init] Places, or measures, what the texts of a session need. */
void vlart_texts_take(vlart_session_t *draft, vlart_arena_t *arena);

#endif
