/* What libFuzzer's runs begin with: the tables that stand for those which a file names, of `samples/` beside the
   program. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_open.h"
#include "fuzz_router.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);

static const uint8_t *load(const char *program, const char *name, size_t *out_bytes) {
  char path[4096];
  const char *slash = strrchr(program, '/');
  int length = slash == NULL ? 0 : (int)(slash - program) + 1;
  snprintf(path, sizeof path, "%.*ssamples/%s", length, program, name);
  FILE *file = fopen(path, "rb");
  uint8_t *data = malloc(1 << 20);
  if (file == NULL || data == NULL) {
    perror(path);
    exit(1);
  }
  *out_bytes = fread(data, 1, 1 << 20, file);
  fclose(file);
  return data;
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  size_t bytes;
  const uint8_t *table = load((*argv)[0], "word_piece.bin", &bytes);
  fuzz_stand_in(table, bytes);
  table = load((*argv)[0], "routing/table.bin", &bytes);
  fuzz_state_table(table, bytes);
  return 0;
}
