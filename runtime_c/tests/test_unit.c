/* The parts that need no bundle: checksum, sort, arena, the text of diagnostics, struct sizes. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/crc32.h"
#include "base/diag.h"
#include "base/sort.h"
#include "base/struct_size.h"
#include "check.h"

static void test_crc32(void) {
  static vlart_crc32_table_t table;
  vlart_crc32_init(&table);
  CHECK(vlart_crc32(&table, 0, "123456789", 9) == 0xCBF43926u); /* the check value of CRC-32 */
  CHECK(vlart_crc32(&table, 0, "", 0) == 0);
  uint8_t bytes[600];
  uint32_t state = 1;
  for (size_t i = 0; i < sizeof bytes; i++) {
    state = state * 1664525u + 1013904223u;
    bytes[i] = (uint8_t)(state >> 24);
  }
  for (size_t begin = 0; begin < 20; begin++) { /* every length and alignment, from any CRC */
    for (size_t length = 0; begin + length <= sizeof bytes; length++) {
      CHECK(vlart_crc32(&table, state, bytes + begin, length) ==
            vlart_crc32_by_table(&table, state, bytes + begin, length));
    }
  }
  uint32_t whole = vlart_crc32(&table, 0, bytes, sizeof bytes);
  for (size_t cut = 0; cut <= sizeof bytes; cut++) {
    uint32_t crc = vlart_crc32(&table, 0, bytes, cut);
    CHECK(vlart_crc32(&table, crc, bytes + cut, sizeof bytes - cut) == whole);
  }
}

static bool less(const void *keys, uint32_t a, uint32_t b) {
  return ((const uint32_t *)keys)[a] < ((const uint32_t *)keys)[b];
}

static void test_sort(void) {
  uint32_t keys[64] = {0};
  uint32_t order[64] = {0};
  uint32_t state = 1;
  for (uint32_t count = 0; count <= 64; count++) {
    for (uint32_t i = 0; i < count; i++) {
      state = state * 1664525u + 1013904223u;
      keys[i] = state >> 28; /* with many equal ones */
      order[i] = i;
    }
    vlart_sort(order, count, less, keys);
    uint64_t seen = 0;
    for (uint32_t i = 0; i < count; i++) {
      CHECK(i == 0 || keys[order[i - 1]] <= keys[order[i]]);
      seen |= 1ull << order[i];
    }
    CHECK(count == 0 || seen == UINT64_MAX >> (64 - count));
  }
}

static void test_arena(void) {
  vlart_arena_t arena;
  vlart_arena_measure(&arena);
  CHECK(vlart_arena_take(&arena, 3, 5) == NULL);
  CHECK(vlart_arena_take(&arena, 1, 64) == NULL);
  size_t needed = vlart_arena_required(&arena);
  CHECK(needed == 128 + 63);
  CHECK(vlart_arena_take(&arena, SIZE_MAX, 2) == NULL && arena.full);
  CHECK(vlart_arena_required(&arena) == SIZE_MAX);
  for (size_t shift = 0; shift < 64; shift++) { /* what was measured fits at every alignment */
    uint8_t *block = malloc(needed + shift);
    CHECK(block != NULL);
    vlart_arena_place(&arena, block + shift, needed);
    uint8_t *first = vlart_arena_take(&arena, 3, 5);
    uint8_t *second = vlart_arena_take(&arena, 1, 64);
    CHECK(first != NULL && second == first + 64 && (uintptr_t)first % 64 == 0);
    free(block);
  }
  vlart_arena_place(&arena, NULL, 1000);
  CHECK(vlart_arena_take(&arena, 1, 1) == NULL && arena.full);
}

static void check_number(double number, const char *text) {
  vlart_diag_t diag = {.struct_size = sizeof diag};
  vlart_why(&diag, "%g", number);
  if (strcmp(diag.why, text) != 0) {
    fprintf(stderr, "%g is printed as %s instead of %s\n", number, diag.why, text);
    exit(1);
  }
}

static void test_diag(void) {
  vlart_diag_t diag = {.struct_size = sizeof diag};
  CHECK_STATUS(vlart_fail(&diag, VLART_STATUS_IO, "what", NULL), IO);
  CHECK(strcmp(diag.fix, vlart_status_help(VLART_STATUS_IO)) == 0);
  vlart_why(&diag, "%s %u %llu %zu %08x", "a", 0u, 18446744073709551615ull, (size_t)42, 0xBEEFu);
  CHECK(strcmp(diag.why, "a 0 18446744073709551615 42 0000beef") == 0);
  char longer[1000];
  memset(longer, 'x', sizeof longer - 1);
  longer[sizeof longer - 1] = '\0';
  vlart_why(&diag, "%s", longer);
  CHECK(strlen(diag.why) == sizeof diag.why - 1);
  vlart_why(NULL, "%s", longer); /* no diagnostic is wanted */
  diag.struct_size = 8;          /* a struct that is too small is left alone */
  CHECK_STATUS(vlart_fail(&diag, VLART_STATUS_CORRUPT, "new", NULL), CORRUPT);
  CHECK(strcmp(diag.what, "what") == 0);
  check_number(0, "0");
  check_number(1.5, "1.5");
  check_number(-0.25, "-0.25");
  check_number(0.001, "0.001");
  check_number(123456, "123456");
  check_number(1234567, "1.23457e+06");
  check_number(1e-7, "1e-07");
  check_number(99999.96, "100000");
  check_number(DBL_MAX, "1.79769e+308");
  check_number((double)NAN, "nan");
  check_number(-(double)INFINITY, "-inf");
}

static void test_statuses(void) {
  for (int i = 0; i <= VLART_STATUS_CHUNK_TOO_LATE; i++) {
    const char *help = vlart_status_help((vlart_status_t)i);
    CHECK(strcmp(vlart_status_name((vlart_status_t)i), "UNKNOWN") != 0);
    CHECK(help[strlen(help) - 1] == '.');
  }
  CHECK(strcmp(vlart_status_name((vlart_status_t)999), "UNKNOWN") == 0);
  CHECK(vlart_abi_version() >> 16 == VLART_ABI_MAJOR);
  CHECK(vlart_dtype_bytes(VLART_DTYPE_BF16) == 2 && vlart_dtype_bytes(8) == 0);
}

static void test_structs(void) {
  struct {
    vlart_open_options_t options;
    uint64_t added_later;
  } newer = {.options = {.struct_size = sizeof newer}};
  vlart_open_options_t options;
  CHECK_STATUS(vlart_copy_in(&options, sizeof options, sizeof options, &newer, "test", NULL), OK);
  newer.added_later = 1;
  CHECK_STATUS(vlart_copy_in(&options, sizeof options, sizeof options, &newer, "test", NULL),
               BAD_ARGUMENT);
  newer.options.struct_size = 0;
  CHECK_STATUS(vlart_copy_in(&options, sizeof options, sizeof options, &newer, "test", NULL),
               BAD_ARGUMENT);
  vlart_open_options_t older = {.struct_size = offsetof(vlart_open_options_t, reserved),
                                .skip_file_checksums = 1,
                                .reserved = 7};
  size_t oldest = offsetof(vlart_open_options_t, reserved);
  CHECK_STATUS(vlart_copy_in(&options, oldest, sizeof options, &older, "test", NULL), OK);
  CHECK(options.skip_file_checksums == 1 && options.reserved == 0);
  older.struct_size--;
  CHECK_STATUS(vlart_copy_in(&options, oldest, sizeof options, &older, "test", NULL), BAD_ARGUMENT);
  vlart_queue_info_t info = {.struct_size = sizeof info - 1};
  CHECK_STATUS(vlart_copy_out(&info, &info, sizeof info), BAD_ARGUMENT);
  CHECK_STATUS(vlart_copy_out(NULL, &info, sizeof info), BAD_ARGUMENT);
}

int main(void) {
  test_crc32();
  test_sort();
  test_arena();
  test_diag();
  test_statuses();
  test_structs();
  puts("test_unit: passed");
  return 0;
}
