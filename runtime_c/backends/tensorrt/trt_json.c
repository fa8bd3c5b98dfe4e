#include "trt_json.h"

#include <string.h>

enum { DEEPEST = 16 };

static const char *skip_space(const char *p, const char *end) {
  while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r')) {
    p++;
  }
  return p;
}

/* The skip_ functions return the place behind what they read, or NULL where it is not that. */
static const char *skip_string(const char *p, const char *end) {
  if (p == end || *p != '"') {
    return NULL;
  }
  for (p++; p < end && *p != '"'; p++) {
    if (*p < ' ' || *p > '~') {
      return NULL;
    }
    if (*p == '\\') {
      p++;
      if (p == end || (*p != '"' && *p != '\\' && *p != '/')) {
        return NULL;
      }
    }
  }
  return p < end ? p + 1 : NULL;
}

/* A number, or true, false, null: what they are is looked at when they are used. */
static const char *skip_word(const char *p, const char *end) {
  const char *begin = p;
  while (p < end && ((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || *p == '-' ||
                     *p == '+' || *p == '.')) {
    p++;
  }
  return p > begin ? p : NULL;
}

static const char *skip_value(const char *p, const char *end, int depth);

static const char *skip_items(const char *p, const char *end, char close, int depth) {
  p = skip_space(p, end);
  if (p < end && *p == close) {
    return p + 1;
  }
  while (p != NULL && p < end) {
    if (close == '}') {
      p = skip_string(p, end);
      p = p == NULL ? NULL : skip_space(p, end);
      if (p == NULL || p == end || *p != ':') {
        return NULL;
      }
      p = skip_space(p + 1, end);
    }
    p = skip_value(p, end, depth + 1);
    p = p == NULL ? NULL : skip_space(p, end);
    if (p == NULL || p == end || (*p != ',' && *p != close)) {
      return NULL;
    }
    if (*p == close) {
      return p + 1;
    }
    p = skip_space(p + 1, end);
  }
  return NULL;
}

static const char *skip_value(const char *p, const char *end, int depth) {
  if (p == end || depth > DEEPEST) {
    return NULL;
  }
  if (*p == '{' || *p == '[') {
    return skip_items(p + 1, end, *p == '{' ? '}' : ']', depth);
  }
  return *p == '"' ? skip_string(p, end) : skip_word(p, end);
}

bool vlart_json_read(const char *data, size_t bytes, vlart_json_t *out_value) {
  const char *end = data + bytes;
  const char *begin = skip_space(data, end);
  const char *behind = skip_value(begin, end, 0);
  if (behind == NULL || skip_space(behind, end) != end) {
    return false;
  }
  *out_value = (vlart_json_t){begin, behind};
  return true;
}

bool vlart_json_member(vlart_json_t object, const char *key, vlart_json_t *out_value) {
  size_t length = strlen(key);
  if (object.at == object.end || *object.at != '{') {
    return false;
  }
  const char *p = skip_space(object.at + 1, object.end);
  while (p < object.end && *p == '"') {
    const char *name = p + 1;
    p = skip_string(p, object.end);
    bool found = (size_t)(p - 1 - name) == length && memcmp(name, key, length) == 0;
    const char *value = skip_space(skip_space(p, object.end) + 1, object.end);
    p = skip_value(value, object.end, 0);
    if (found) {
      *out_value = (vlart_json_t){value, p};
      return true;
    }
    p = skip_space(p, object.end);
    p = skip_space(p + 1, object.end); /* behind the comma, or the end */
  }
  return false;
}

static bool element_at(const char *p, vlart_json_t array, vlart_json_t *out_element) {
  p = skip_space(p, array.end);
  if (p >= array.end || *p == ']') {
    return false;
  }
  *out_element = (vlart_json_t){p, skip_value(p, array.end, 0)};
  return true;
}

bool vlart_json_first(vlart_json_t array, vlart_json_t *out_element) {
  return array.at < array.end && *array.at == '[' && element_at(array.at + 1, array, out_element);
}

bool vlart_json_next(vlart_json_t array, vlart_json_t *element) {
  const char *p = skip_space(element->end, array.end);
  return p < array.end && *p == ',' && element_at(p + 1, array, element);
}

bool vlart_json_string(vlart_json_t value, char *out, size_t capacity) {
  if (value.at == value.end || *value.at != '"' || capacity == 0) {
    return false;
  }
  size_t used = 0;
  for (const char *p = value.at + 1; p < value.end - 1; p++) {
    p += *p == '\\';
    if (used + 1 >= capacity) {
      return false;
    }
    out[used++] = *p;
  }
  out[used] = '\0';
  return true;
}

bool vlart_json_u64(vlart_json_t value, uint64_t *out_number) {
  uint64_t number = 0;
  for (const char *p = value.at; p < value.end; p++) {
    if (*p < '0' || *p > '9' || __builtin_mul_overflow(number, 10u, &number) ||
        __builtin_add_overflow(number, (uint64_t)(*p - '0'), &number)) {
      return false;
    }
  }
  *out_number = number;
  return value.at < value.end;
}

bool vlart_json_hex32(vlart_json_t value, uint32_t *out_number) {
  uint32_t number = 0;
  if (value.end - value.at != 10 || *value.at != '"') {
    return false;
  }
  for (const char *p = value.at + 1; p < value.end - 1; p++) {
    uint32_t digit = *p >= '0' && *p <= '9' ? (uint32_t)(*p - '0') : (uint32_t)(*p - 'a' + 10);
    if (!((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f'))) {
      return false;
    }
    number = number << 4 | digit;
  }
  *out_number = number;
  return true;
}
