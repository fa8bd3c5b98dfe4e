/* vlart-run --profile: the times as `vlacompile profile` keeps them (vlacompile/profile/measure.py reads the file),
   with what the machine says of itself before, during and after. */
#include <errno.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/diag.h"
#include "run.h"

enum { VERSION = 1 };

static void write_machine(FILE *file) {
  char cpu[256] = "unknown";
  struct utsname name;
  if (!run_read_line("/proc/device-tree/model", cpu, sizeof cpu)) {
    tool_find_row("/proc/cpuinfo", "model name", cpu, sizeof cpu);
  }
  bool known = uname(&name) == 0;
  long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
  fputs("\"machine\": {\"cpu\": ", file);
  run_json_string(file, cpu);
  fprintf(file,
          ", \"cores\": %ld, \"memory_gb\": %.1f, \"system\": ", sysconf(_SC_NPROCESSORS_ONLN),
          (double)pages * (double)page / 1e9);
  run_json_string(file, known ? name.sysname : "unknown");
  fputs(", \"architecture\": ", file);
  run_json_string(file, known ? name.machine : "unknown");
  fputs(", \"versions\": {}},\n", file);
}

static void write_series(FILE *file, const char *prefix, const char *name,
                         const run_samples_t *samples, const char **comma) {
  char whole[512];
  if (samples->count == 0) {
    return;
  }
  snprintf(whole, sizeof whole, "%s%s", prefix, name);
  fputs(*comma, file);
  run_json_string(file, whole);
  fputs(": [", file);
  for (size_t i = 0; i < samples->count; i++) {
    fprintf(file, "%s%.3f", i > 0 ? ", " : "", samples->ms[i] * 1e3);
  }
  putc(']', file);
  *comma = ",\n ";
}

static void write_document(const run_t *run, FILE *file) {
  const vlart_plan_t *plan = &run->bundle->plan;
  const char *comma = "\n ";
  fprintf(file, "{\"version\": %d, \"bundle\": ", VERSION);
  run_json_string(file, run->info.name);
  fputs(", \"files\": [", file);
  for (uint32_t i = 0; i < plan->file_count; i++) {
    fprintf(file, "%s%u", i > 0 ? ", " : "", vlart_plan_file(plan, i)->crc32);
  }
  fputs("], \"target\": ", file);
  run_json_string(file, run->info.target);
  fputs(",\n", file);
  write_machine(file);
  fprintf(file, "\"threads\": %u, \"warm_up\": %u, \"replans\": %zu, \"unchanged\": [],\n",
          run->options->threads, run->options->warm_up * run->frames.frame_count,
          run->same.count + run->other.count);
  fprintf(file, "\"before\": %s,\n\"after\": %s,\n\"during\": [", run->before, run->after);
  for (uint32_t i = 0; i < run->during_count; i++) {
    fprintf(file, "%s%s", i > 0 ? ",\n " : "", run->during[i]);
  }
  fputs("],\n\"series\": {", file);
  write_series(file, "", "same", &run->same, &comma);
  write_series(file, "", "new", &run->other, &comma);
  write_series(file, "", "write", &run->writes, &comma);
  write_series(file, "", "pop", &run->pops, &comma);
  for (uint32_t i = 0; i < run->info.stage_count; i++) {
    vlart_stage_info_t stage = {.struct_size = sizeof stage};
    vlart_bundle_stage(run->bundle, i, &stage);
    write_series(file, "stage ", stage.name, &run->stages[i], &comma);
  }
  fputs("}}\n", file);
}

vlart_status_t run_write_profile(const run_t *run, vlart_diag_t *diag) {
  const char *path = run->options->profile;
  FILE *file = fopen(path, "w");
  bool written = file != NULL;
  if (written) {
    write_document(run, file);
    written = ferror(file) == 0;
    written = fclose(file) == 0 && written;
  }
  if (!written) {
    vlart_fail(diag, VLART_STATUS_IO, "the profile cannot be written", "choose another file");
    vlart_where(diag, "%s", path);
    vlart_why(diag, "%s", strerror(errno));
    return VLART_STATUS_IO;
  }
  return VLART_STATUS_OK;
}
