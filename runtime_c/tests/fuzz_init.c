/* What libFuzzer's runs begin with: the tables that stand for those which a file names. FUZZ_SAMPLES is the directory
   of write_samples.py. */
#include <stdio.h>
#include <stdlib.h>

#include "fuzz_open.h"
#include "fuzz_router.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);

static const uint8_t *load(const char *path, size_t *out_bytes) {
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
  (void)argv;
  size_t bytes;
  const uint8_t *table = load(FUZZ_SAMPLES "/word_piece.bin", &bytes);
  fuzz_stand_in(table, bytes);
  table = load(FUZZ_SAMPLES "/routing/table.bin", &bytes);
  fuzz_state_table(table, bytes);
  return 0;
}
