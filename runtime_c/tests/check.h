/* The whole test framework: a failed check names its line and ends the program. */
#ifndef VLART_CHECK_H
#define VLART_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)

#define CHECK_STATUS(call, expected)                                                              \
  do {                                                                                            \
    vlart_status_t check_got = (call);                                                            \
    if (check_got != VLART_STATUS_##expected) {                                                   \
      fprintf(stderr, "%s:%d: %s gives %s instead of " #expected "\n", __FILE__, __LINE__, #call, \
              vlart_status_name(check_got));                                                      \
      exit(1);                                                                                    \
    }                                                                                             \
  } while (0)

#endif
