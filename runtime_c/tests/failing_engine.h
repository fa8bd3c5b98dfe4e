#ifndef FAILING_ENGINE_H
#define FAILING_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
  uint64_t calls;
  uint64_t at;           /* the call that fails; 0: none */
  bool lasting;          /* and all after it */
  int64_t live;          /* objects, names and errors that were made and not released */
  void (*instead)(void); /* NULL, or what is done at that call, which does not fail then */
} failing_engine_t;

/* Looked up by name, for the library is loaded at run time. */
__attribute__((visibility("default"))) failing_engine_t *failing_engine_state(void);
__attribute__((visibility("default"))) bool failing_engine_load(const char *path);

#endif
