
#include "base/diag.h"

#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include "base/utf8.h"

typedef struct {
  char *out;
  size_t capacity; /* with room for the NUL */
  size_t used;
} text_t;

static void put_char(text_t *text, char c) {
  if (text->used + 1 < text->capacity) {
    text->out[text->used++] = c;
  }
}

static void put_hidden(text_t *text, unsigned char c) {
  put_char(text, '\\');
  put_char(text, 'x');
  put_char(text, "0123456789abcdef"[c >> 4]);
  put_char(text, "0123456789abcdef"[c & 15]);
}

/* What a terminal would act on, and what is not UTF-8, is shown instead: names and an engine's messages come
   from files that may be anything. */
static void put_string(text_t *text, const char *string) {
  const uint8_t *s = (const uint8_t *)(string == NULL ? "(none)" : string);
  size_t count = strlen((const char *)s);
  for (size_t at = 0; at < count;) {
    size_t length = vlart_text_point_length(s + at, count - at);
    if (s[at] == '\n' || s[at] == '\t') {
      put_char(text, ' ');
      at++;
    } else if (length > 0 && vlart_text_is_line(s + at, length)) {
      for (size_t end = at + length; at < end; at++) {
        put_char(text, (char)s[at]);
      }
    } else {
      put_hidden(text, s[at++]);
    }
  }
}

/* A line that was cut ends with a whole code point. */
static void end_text(text_t *text) {
  text->out[vlart_text_fault((const uint8_t *)text->out, text->used)] = '\0';
}

static void put_unsigned(text_t *text, unsigned long long number, unsigned base, int width) {
  char digits[24];
  int count = 0;
  do {
    digits[count++] = "0123456789abcdef"[number % base];
    number /= base;
  } while (number != 0);
  for (; width > count; width--) {
    put_char(text, '0');
  }
  while (count > 0) {
    put_char(text, digits[--count]);
  }
}

/* Six significant digits in the form of %g; the last one may be off by one. */
static void put_double(text_t *text, double number) {
  if (number != number) {
    put_string(text, "nan");
    return;
  }
  if (number < 0) {
    put_char(text, '-');
    number = -number;
  }
  if (number > 1.7976931348623157e308) {
    put_string(text, "inf");
    return;
  }
  int exponent = 0;
  for (; number >= 10; exponent++) {
    number /= 10;
  }
  for (; number > 0 && number < 1; exponent--) {
    number *= 10;
  }
  unsigned digits = (unsigned)(number * 100000 + 0.5);
  if (digits >= 1000000) {
    digits /= 10;
    exponent++;
  }
  char digit[6];
  for (int i = 5; i >= 0; i--, digits /= 10) {
    digit[i] = (char)('0' + digits % 10);
  }
  int last = 5;
  while (last > 0 && digit[last] == '0') {
    last--;
  }
  bool scientific = exponent < -4 || exponent > 5;
  int point = scientific ? 0 : exponent; /* index of the digit before the point */
  if (point < 0) {
    put_string(text, "0.");
  }
  for (int i = point < 0 ? point + 1 : 0; i <= last || i <= point; i++) {
    put_char(text, i < 0 ? '0' : digit[i]);
    if (i == point && i < last) {
      put_char(text, '.');
    }
  }
  if (scientific) {
    put_char(text, 'e');
    put_char(text, exponent < 0 ? '-' : '+');
    put_unsigned(text, (unsigned)(exponent < 0 ? -exponent : exponent), 10, 2);
  }
}

static void format_text(char *out, size_t capacity, const char *format, va_list args) {
  text_t text = {out, capacity, 0};
  for (const char *f = format; *f != '\0'; f++) {
    if (*f != '%') {
      put_char(&text, *f);
    } else if (f[1] == 's') {
      put_string(&text, va_arg(args, const char *));
      f += 1;
    } else if (f[1] == 'u') {
      put_unsigned(&text, va_arg(args, unsigned), 10, 0);
      f += 1;
    } else if (f[1] == 'g') {
      put_double(&text, va_arg(args, double));
      f += 1;
    } else if (strncmp(f, "%llu", 4) == 0) {
      put_unsigned(&text, va_arg(args, unsigned long long), 10, 0);
      f += 3;
    } else if (strncmp(f, "%zu", 3) == 0) {
      put_unsigned(&text, va_arg(args, size_t), 10, 0);
      f += 2;
    } else if (strncmp(f, "%08x", 4) == 0) {
      put_unsigned(&text, va_arg(args, unsigned), 16, 8);
      f += 3;
    } else {
      put_char(&text, *f);
    }
  }
  end_text(&text);
}

static bool usable(const vlart_diag_t *diag) {
  return diag != NULL && diag->struct_size >= sizeof(vlart_diag_t);
}

void vlart_show(char *out, size_t capacity, const char *line) {
  text_t text = {out, capacity, 0};
  put_string(&text, line);
  end_text(&text);
}

vlart_status_t vlart_fail(vlart_diag_t *diag, vlart_status_t status, const char *what,
                          const char *fix) {
  if (usable(diag)) {
    diag->status = status;
    vlart_show(diag->what, sizeof diag->what, what);
    diag->where[0] = '\0';
    diag->why[0] = '\0';
    vlart_show(diag->fix, sizeof diag->fix, fix != NULL ? fix : vlart_status_help(status));
  }
  return status;
}

void vlart_where(vlart_diag_t *diag, const char *format, ...) {
  if (usable(diag)) {
    va_list args;
    va_start(args, format);
    format_text(diag->where, sizeof diag->where, format, args);
    va_end(args);
  }
}

void vlart_why(vlart_diag_t *diag, const char *format, ...) {
  if (usable(diag)) {
    va_list args;
    va_start(args, format);
    format_text(diag->why, sizeof diag->why, format, args);
    va_end(args);
  }
}

void vlart_fix(vlart_diag_t *diag, const char *fix) {
  if (usable(diag)) {
    vlart_show(diag->fix, sizeof diag->fix, fix);
  }
}

vlart_status_t vlart_corrupt(vlart_diag_t *diag, const char *file, const char *section,
                             uint32_t index, const char *why_format, ...) {
  vlart_fail(diag, VLART_STATUS_CORRUPT, "the bundle is damaged or was written wrongly",
             "copy the bundle again; if that does not help, build it again");
  vlart_where(diag, "%s, %s[%u]", file, section, index);
  if (usable(diag)) {
    va_list args;
    va_start(args, why_format);
    format_text(diag->why, sizeof diag->why, why_format, args);
    va_end(args);
  }
  return VLART_STATUS_CORRUPT;
}

vlart_status_t vlart_arena_too_small(vlart_diag_t *diag, const char *call, size_t needed,
                                     size_t given) {
  vlart_fail(diag, VLART_STATUS_OUT_OF_MEMORY, "the arena is too small", NULL);
  vlart_where(diag, "%s", call);
  if (needed == SIZE_MAX) {
    vlart_why(diag, "the plan asks for more than an address space; %zu bytes were given", given);
  } else {
    vlart_why(diag, "%zu bytes are needed, %zu were given", needed, given);
  }
  return VLART_STATUS_OUT_OF_MEMORY;
}

vlart_status_t vlart_bad_argument(vlart_diag_t *diag, const char *call, const char *why) {
  vlart_fail(diag, VLART_STATUS_BAD_ARGUMENT, "the call is wrong",
             "correct the call; vlart.h says what it takes");
  vlart_where(diag, "%s", call);
  vlart_why(diag, "%s", why);
  return VLART_STATUS_BAD_ARGUMENT;
}
