/* Code points of UTF-8 text. */
#ifndef VLART_UTF8_H
#define VLART_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The code point at `text`, which is well-formed; its length is added to *at. */
static inline uint32_t vlart_text_point(const uint8_t *text, size_t *at) {
  const uint8_t *t = text + *at;
  if (t[0] < 0x80) {
    *at += 1;
    return t[0];
  }
  if (t[0] < 0xE0) {
    *at += 2;
    return (t[0] & 0x1Fu) << 6 | (t[1] & 0x3Fu);
  }
  if (t[0] < 0xF0) {
    *at += 3;
    return (t[0] & 0x0Fu) << 12 | (t[1] & 0x3Fu) << 6 | (t[2] & 0x3Fu);
  }
  *at += 4;
  return (t[0] & 0x07u) << 18 | (t[1] & 0x3Fu) << 12 | (t[2] & 0x3Fu) << 6 | (t[3] & 0x3Fu);
}

static inline size_t vlart_text_point_bytes(uint32_t point) {
  return point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
}

/* Bytes of the code point at `text`, which need not be well-formed; 0: there is none. */
size_t vlart_text_point_length(const uint8_t *text, size_t count);

/* Of text that need not be well-formed: bytes before the first fault; `count`: there is none. */
size_t vlart_text_fault(const uint8_t *text, size_t count);

/* Whether text is well-formed and without what a terminal would act on: control characters, ends of lines, and marks that
   change the direction in which other text is shown. */
bool vlart_text_is_line(const uint8_t *text, size_t count);

#endif
