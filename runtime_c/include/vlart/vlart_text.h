/* Part of vlart.h: texts of a session, and a tokenizer by itself. Phases, ownership and structs are as in
   vlart.h. */
#ifndef VLART_TEXT_API_H
#define VLART_TEXT_API_H

#include "vlart/vlart.h"

#ifdef __cplusplus
extern "C" {
#endif

/* [tick] Writes a text. One of the instructions that the bundle knows is looked up: its token ids and
   what was computed of them at build time are taken, and the stages that depend on nothing else do not
   run. Of another text the token ids that the bundle's own tokenizer gives, cut or filled up to the
   source's length, go into `source`, and which of them are tokens into the mask source that belongs
   to it. UTF-8, `bytes` of it, no NUL needed. The same text again marks nothing dirty. TEXT_REFUSED
   leaves both as they were; NOT_FOUND: the text is none of them, and there is no
   tokenizer for this source. The session's
   thread. */
VLART_API vlart_status_t vlart_session_write_text(vlart_session_t *session, uint32_t source,
                                                  const char *text, size_t bytes,
                                                  vlart_diag_t *diag);

/* A tokenizer by itself, from the bytes of a bundle's tokenizer file (8-byte aligned; they stay
   where they are as long as it is used). `max_text_bytes`: longest text that it will be given. A
   tokenizer belongs to one thread at a time.
   [open] Bytes of arena that vlart_tokenizer_open needs. */
VLART_API vlart_status_t vlart_tokenizer_required_bytes(const void *table, size_t table_bytes,
                                                        size_t max_text_bytes, vlart_diag_t *diag,
                                                        size_t *out_bytes);

/* [open] Validates the table and places the tokenizer in the arena. There is nothing to close. */
VLART_API vlart_status_t vlart_tokenizer_open(const void *table, size_t table_bytes,
                                              size_t max_text_bytes, void *arena,
                                              size_t arena_bytes, vlart_diag_t *diag,
                                              vlart_tokenizer_t **out_tokenizer);

/* [tick] All ids of a text. WRONG_SHAPE: there are more than `capacity`; *out_count says how many. */
VLART_API vlart_status_t vlart_tokenizer_encode(vlart_tokenizer_t *tokenizer, const char *text,
                                                size_t bytes, int64_t *ids, size_t capacity,
                                                size_t *out_count, vlart_diag_t *diag);

/* [tick] Exactly `length` ids, cut or filled up as the checkpoint does it; mask[i] is 1 where ids[i]
   is a token (NULL: not wanted). TEXT_REFUSED: too many tokens, and the checkpoint does not cut. */
VLART_API vlart_status_t vlart_tokenizer_fill(vlart_tokenizer_t *tokenizer, const char *text,
                                              size_t bytes, int64_t *ids, uint8_t *mask,
                                              size_t length, vlart_diag_t *diag);

#ifdef __cplusplus
}
#endif

#endif
