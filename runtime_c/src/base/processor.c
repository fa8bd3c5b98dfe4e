#include "base/processor.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

/* XCR0, where the system lets programs read it. */
__attribute__((target("xsave"))) static uint64_t saved_registers(void) {
  return (uint64_t)_xgetbv(0);
}

/* Of leaf 1 without EBX, which names the core that asks; XCR0 says what the system saves of wide registers. */
void vlart_processor_describe(uint32_t out_words[VLART_PROCESSOR_WORDS]) {
  memset(out_words, 0, VLART_PROCESSOR_WORDS * sizeof *out_words);
  uint32_t core = 0;
  uint32_t *w = out_words;
  (void)__get_cpuid(0, &core, w, w + 1, w + 2); /* the maker */
  (void)__get_cpuid(1, w + 3, &core, w + 4, w + 5);
  (void)__get_cpuid_count(7, 0, w + 6, w + 7, w + 8, w + 9);
  (void)__get_cpuid_count(7, 1, w + 10, w + 11, w + 12, w + 13);
  if ((w[4] & bit_OSXSAVE) != 0) {
    uint64_t saved = saved_registers();
    memcpy(w + 14, &saved, sizeof saved);
  }
}

#elif defined(__aarch64__)
#include <stdio.h>
#include <sys/auxv.h>

void vlart_processor_describe(uint32_t out_words[VLART_PROCESSOR_WORDS]) {
  memset(out_words, 0, VLART_PROCESSOR_WORDS * sizeof *out_words);
  unsigned long features[] = {getauxval(AT_HWCAP), getauxval(AT_HWCAP2)};
  memcpy(out_words, features, sizeof features);
  FILE *file = fopen("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1", "re");
  unsigned long model = 0;
  if (file != NULL) {
    if (fscanf(file, "%lx", &model) == 1) {
      memcpy(out_words + 4, &model, sizeof model);
    }
    fclose(file);
  }
}

#else

void vlart_processor_describe(uint32_t out_words[VLART_PROCESSOR_WORDS]) {
  memset(out_words, 0, VLART_PROCESSOR_WORDS * sizeof *out_words);
}

#endif
