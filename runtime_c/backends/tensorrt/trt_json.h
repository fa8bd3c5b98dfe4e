/* Reads the JSON that vlart-build writes, in place and without allocating: a value is the text
   between its first and its last character. Everything handed in was checked by vlart_json_read. */
#ifndef VLART_TRT_JSON_H
#define VLART_TRT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
  const char *at;
  const char *end;
} vlart_json_t;

/* False unless the bytes are one JSON value, nested at most 16 deep, of ASCII text. */
bool vlart_json_read(const char *data, size_t bytes, vlart_json_t *out_value);

/* False if there is no such member, or `object` is none. Of equal keys the first counts. */
bool vlart_json_member(vlart_json_t object, const char *key, vlart_json_t *out_value);

/* The first element of an array, then the one after `element`; false at the end. */
bool vlart_json_first(vlart_json_t array, vlart_json_t *out_element);
bool vlart_json_next(vlart_json_t array, vlart_json_t *element);

/* False if the value has another type, or does not fit. */
bool vlart_json_string(vlart_json_t value, char *out, size_t capacity);
bool vlart_json_u64(vlart_json_t value, uint64_t *out_number);
bool vlart_json_hex32(vlart_json_t value, uint32_t *out_number); /* "0011aaff" */

#endif
