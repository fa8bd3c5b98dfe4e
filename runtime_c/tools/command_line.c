#include "command_line.h"

#include <stdio.h>
#include <stdlib.h>

void *tool_allocate(size_t count, size_t bytes) {
  void *memory = calloc(count, bytes);
  if (memory == NULL) {
    fputs("out of memory\n", stderr);
    exit(1);
  }
  return memory;
}

bool tool_read_count(const char *text, uint32_t most, uint32_t *out_count) {
  char *end;
  unsigned long number = text == NULL ? 0 : strtoul(text, &end, 10);
  if (text == NULL || *text < '0' || *text > '9' || *end != '\0' || number > most) {
    return false;
  }
  *out_count = (uint32_t)number;
  return true;
}

int tool_print_failure(vlart_status_t status, const vlart_diag_t *diag) {
  fprintf(stderr, "what:  %s [%s]\nwhere: %s\nwhy:   %s\nfix:   %s\n", diag->what,
          vlart_status_name(status), diag->where, diag->why, diag->fix);
  return 1;
}
