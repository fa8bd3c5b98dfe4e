/* The target of fuzz_open.c without libFuzzer: fuzz_open [-t TABLE] [-r TABLE] [--sweep] [-n COUNT] [-s SEED] FILE...
     --sweep   every truncation, every bit, every aligned 32- and 64-bit word set to 0, 1, +1, -1,
               the largest and the largest signed number, each as it is and with right checksums
     --damage  every bit of every section, as it is and with right checksums, and every truncation: how many of them
               are refused, in one line per section
     -t TABLE  a tokenizer's table, which stands for every one that a plan names
     -r TABLE  a routing table, to which the states of routers belong
     -n COUNT  random mutants of the files, with right checksums */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_open.h"
#include "fuzz_router.h"
#include "null_backend.h"
#include "vlart/vlart_layout.h"

static void sweep_words(uint8_t *data, size_t bytes) {
  for (size_t at = 0; at + 4 <= bytes; at += 4) {
    for (size_t width = 4; width <= 8 && at % width == 0 && at + width <= bytes; width += 4) {
      uint64_t old = 0;
      memcpy(&old, data + at, width);
      uint64_t largest = width == 4 ? UINT32_MAX : UINT64_MAX;
      const uint64_t words[] = {0, 1, old + 1, old - 1, largest, largest >> 1};
      for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        memcpy(data + at, &words[i], width);
        LLVMFuzzerTestOneInput(data, bytes);
      }
      memcpy(data + at, &old, width);
    }
  }
}

static void sweep(uint8_t *data, size_t bytes) {
  for (size_t length = 0; length < bytes; length++) {
    LLVMFuzzerTestOneInput(data, length);
  }
  for (size_t bit = 0; bit < bytes * 8; bit++) {
    data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    LLVMFuzzerTestOneInput(data, bytes);
    data[bit / 8] ^= (uint8_t)(1u << bit % 8);
  }
  sweep_words(data, bytes);
}

/* Whether no reader accepts the file. */
static bool is_refused(uint8_t *data, size_t bytes) {
  uint8_t *copy = malloc(bytes + 1); /* of exactly that size, but for the empty file */
  memcpy(copy, data, bytes);
  uint64_t before = fuzz_counts.accepted;
  fuzz_read(copy, bytes);
  free(copy);
  return fuzz_counts.accepted == before;
}

static void damage_bits(const char *name, uint8_t *data, size_t bytes, size_t from, size_t to) {
  unsigned long long flips = 0, refused = 0, sealed_refused = 0;
  uint8_t *copy = malloc(bytes);
  for (size_t bit = from * 8; bit < to * 8; bit++) {
    memcpy(copy, data, bytes);
    copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
    flips++;
    refused += is_refused(copy, bytes);
    fuzz_seal(copy, bytes);
    sealed_refused += is_refused(copy, bytes);
  }
  free(copy);
  printf("%s bytes %zu flips %llu refused %llu sealed_refused %llu\n", name, to - from, flips,
         refused, sealed_refused);
}

static void damage(uint8_t *data, size_t bytes) {
  vlart_header_record_t header;
  unsigned long long refused = 0;
  for (size_t length = 0; length < bytes; length++) {
    refused += is_refused(data, length);
  }
  printf("truncations bytes %zu flips %zu refused %llu sealed_refused 0\n", bytes, bytes, refused);
  memcpy(&header, data, sizeof header);
  size_t table = sizeof header + header.section_count * sizeof(vlart_section_record_t);
  damage_bits("header", data, bytes, 0, sizeof header);
  damage_bits("table", data, bytes, sizeof header, table);
  for (uint32_t i = 0; i < header.section_count; i++) {
    char name[16];
    vlart_section_record_t section;
    memcpy(&section, data + sizeof header + i * sizeof section, sizeof section);
    snprintf(name, sizeof name, "%u", section.id);
    damage_bits(name, data, bytes, (size_t)section.offset,
                (size_t)(section.offset + section.bytes));
  }
}

static uint64_t next_random(uint64_t *state) { /* xorshift64* */
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 2685821657736338717ull;
}

/* One to four changes: a small number into a word, a word from elsewhere, a byte, a cut. */
static void mutate(const uint8_t *data, size_t bytes, uint64_t *state) {
  uint8_t *copy = malloc(bytes);
  memcpy(copy, data, bytes);
  size_t length = bytes;
  for (uint64_t changes = 1 + next_random(state) % 4; changes > 0; changes--) {
    size_t at = next_random(state) % (bytes / 4) * 4;
    size_t from = next_random(state) % (bytes / 4) * 4;
    uint32_t word = (uint32_t)(next_random(state) % 20);
    switch (next_random(state) % 8) {
      case 0: copy[next_random(state) % bytes] = (uint8_t)next_random(state); break;
      case 1: memcpy(copy + at, data + from, 4); break;
      case 2: length = next_random(state) % 50 == 0 ? at : length; break;
      default: memcpy(copy + at, &word, 4); break;
    }
  }
  fuzz_seal(copy, length);
  fuzz_read(copy, length);
  free(copy);
}

static uint8_t *load(const char *path, size_t *out_bytes) {
  FILE *file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
    perror(path);
    exit(1);
  }
  *out_bytes = (size_t)ftell(file);
  rewind(file);
  uint8_t *data = malloc(*out_bytes);
  if (fread(data, 1, *out_bytes, file) != *out_bytes) {
    perror(path);
    exit(1);
  }
  fclose(file);
  return data;
}

int main(int argc, char **argv) {
  bool sweeping = false, damaging = false;
  uint64_t count = 0;
  uint64_t state = 1;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--sweep") == 0) {
      sweeping = true;
    } else if (strcmp(argv[i], "--damage") == 0) {
      damaging = true;
    } else if (strcmp(argv[i], "-n") == 0 && i + 1 < argc) {
      count = strtoull(argv[++i], NULL, 10);
    } else if (strcmp(argv[i], "-t") == 0 && i + 1 < argc) {
      size_t bytes = 0;
      const uint8_t *table = load(argv[++i], &bytes);
      fuzz_stand_in(table, bytes);
    } else if (strcmp(argv[i], "-r") == 0 && i + 1 < argc) {
      size_t bytes = 0;
      const uint8_t *table = load(argv[++i], &bytes);
      fuzz_state_table(table, bytes);
    } else if (strcmp(argv[i], "-s") == 0 && i + 1 < argc) {
      state = strtoull(argv[++i], NULL, 10) | 1;
    } else {
      size_t bytes = 0;
      uint8_t *data = load(argv[i], &bytes);
      fuzz_read(data, bytes);
      if (fuzz_counts.accepted == 0) {
        fprintf(stderr, "%s: the undamaged file is refused\n", argv[i]);
        return 1;
      }
      if (damaging) {
        damage(data, bytes);
      }
      if (sweeping) {
        sweep(data, bytes);
      }
      for (uint64_t n = 0; n < count; n++) {
        mutate(data, bytes, &state);
      }
      free(data);
    }
  }
  printf("%llu files read, %llu accepted, %llu sessions stepped\n",
         (unsigned long long)fuzz_counts.executed, (unsigned long long)fuzz_counts.accepted,
         (unsigned long long)fuzz_counts.stepped);
  return fuzz_counts.bytes_used == 0 && null_control.bytes_read == 0 && fuzz_counts.stepped == 0;
}
