#include "lock_text.h"

#include <inttypes.h>

#include "plan_text.h"

enum { DIGEST_BYTES = 32 }; /* of SHA-256 */

static void print_string(FILE *out, const char *key, const vlart_engine_lock_t *lock,
                         uint32_t string) {
  fprintf(out, " %s=", key);
  vlart_print_quoted(out, vlart_engine_lock_string(lock, string));
}

/* What the board does not say is left out. */
static void print_known(FILE *out, const char *key, uint32_t number) {
  if (number != VLART_NONE) {
    fprintf(out, " %s=%" PRIu32, key, number);
  }
}

static void print_board(FILE *out, const vlart_engine_lock_t *lock) {
  const vlart_lock_record_t *r = lock->record;
  fputs("board", out);
  print_string(out, "model", lock, r->model);
  print_string(out, "jetpack", lock, r->jetpack);
  print_string(out, "l4t", lock, r->l4t);
  print_string(out, "tensorrt", lock, r->tensorrt);
  print_string(out, "cuda", lock, r->cuda);
  print_string(out, "gpu", lock, r->gpu);
  fprintf(out, " compute_capability=%" PRIu32 " multiprocessors=%" PRIu32 " memory=%" PRIu64 "\n",
          r->compute_capability, r->multiprocessors, r->memory_bytes);
  fputs("clocks", out);
  print_known(out, "power_mode", r->power_mode);
  print_known(out, "gpu_mhz", r->gpu_mhz);
  print_known(out, "gpu_max_mhz", r->gpu_max_mhz);
  print_known(out, "emc_mhz", r->emc_mhz);
  print_known(out, "cpu_mhz", r->cpu_mhz);
  print_known(out, "cpu_max_mhz", r->cpu_max_mhz);
  fputc('\n', out);
}

static void print_engine(FILE *out, const vlart_engine_lock_t *lock,
                         const vlart_engine_record_t *engine) {
  const uint8_t *digest = (const uint8_t *)engine->sha256;
  fputs("engine ", out);
  vlart_print_quoted(out, vlart_engine_lock_string(lock, engine->stage));
  print_string(out, "file", lock, engine->file);
  fprintf(out, " bytes=%" PRIu64 " crc32=%08" PRIx32 " stage_crc32=%08" PRIx32, engine->bytes,
          engine->crc32, engine->stage_crc32);
  fprintf(out,
          " weights_crc32=%08" PRIx32 " recipe_crc32=%08" PRIx32 " sha256=", engine->weights_crc32,
          engine->recipe_crc32);
  for (size_t i = 0; i < DIGEST_BYTES; i++) {
    fprintf(out, "%02x", digest[i]);
  }
  fprintf(out, " scratch=%" PRIu64 " build_s=%.1f build_peak=%" PRIu64, engine->scratch_bytes,
          engine->build_s, engine->build_peak_bytes);
  if (engine->runs > 0) {
    fprintf(out, " runs=%" PRIu64 " median_ms=%.3f p95_ms=%.3f", engine->runs, engine->median_ms,
            engine->p95_ms);
  }
  fputc('\n', out);
}

void vlart_lock_print(FILE *out, const vlart_engine_lock_t *lock) {
  const vlart_lock_record_t *r = lock->record;
  fprintf(out,
          "engines format %" PRIu32 ".%" PRIu32 " plan=%08" PRIx32 " golden=%s whole_tick=%s\n",
          lock->file.version_major, lock->file.version_minor, r->plan_crc32,
          vlart_proof_name(r->golden), vlart_proof_name(r->whole_tick));
  print_board(out, lock);
  for (uint32_t i = 0; i < lock->engine_count; i++) {
    print_engine(out, lock, vlart_engine_lock_engine(lock, i));
  }
}
