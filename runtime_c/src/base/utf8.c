#include "base/utf8.h"

size_t vlart_text_point_length(const uint8_t *text, size_t count) {
  uint8_t lead = count == 0 ? 0xFF : text[0];
  size_t length = lead < 0x80   ? 1
                  : lead < 0xC2 ? 0
                  : lead < 0xE0 ? 2
                  : lead < 0xF0 ? 3
                  : lead < 0xF5 ? 4
                                : 0;
  if (length == 0 || length > count) {
    return 0;
  }
  for (size_t i = 1; i < length; i++) {
    if ((text[i] & 0xC0) != 0x80) {
      return 0;
    }
  }
  size_t end = 0;
  uint32_t point = vlart_text_point(text, &end);
  bool good = vlart_text_point_bytes(point) == length && point <= 0x10FFFF &&
              (point < 0xD800 || point > 0xDFFF);
  return good ? length : 0;
}

size_t vlart_text_fault(const uint8_t *text, size_t count) {
  for (size_t at = 0; at < count;) {
    size_t length = vlart_text_point_length(text + at, count - at);
    if (length == 0) {
      return at;
    }
    at += length;
  }
  return count;
}

static bool is_acted_on(uint32_t point) {
  return point < 0x20 || (point >= 0x7F && point < 0xA0) || point == 0x61C || point == 0x200E ||
         point == 0x200F || (point >= 0x2028 && point <= 0x202E) ||
         (point >= 0x2066 && point <= 0x2069);
}

bool vlart_text_is_line(const uint8_t *text, size_t count) {
  if (vlart_text_fault(text, count) != count) {
    return false;
  }
  for (size_t at = 0; at < count;) {
    if (is_acted_on(vlart_text_point(text, &at))) {
      return false;
    }
  }
  return true;
}
