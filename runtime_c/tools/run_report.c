/* What vlart-run prints: 80 columns for a person, one JSON object for a program. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "run.h"

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a;
  double y = *(const double *)b;
  return (x > y) - (x < y);
}

typedef struct {
  double median, min, p95, p99, max;
} summary_t;

/* The smallest sample that so many hundredths are not above; the samples are sorted. */
static double at_percent(const run_samples_t *samples, size_t percent) {
  size_t at = samples->count * percent / 100;
  return samples->ms[at < samples->count ? at : samples->count - 1];
}

/* Sorts the samples: they are printed once, at the end. */
static summary_t summarize(const run_samples_t *samples) {
  qsort(samples->ms, samples->count, sizeof *samples->ms, ascending);
  size_t middle = samples->count / 2;
  double upper = samples->ms[middle];
  double median = samples->count % 2 == 1 ? upper : (samples->ms[middle - 1] + upper) / 2;
  return (summary_t){median, samples->ms[0], at_percent(samples, 95), at_percent(samples, 99),
                     samples->ms[samples->count - 1]};
}

static void print_row(const char *name, uint32_t iterations, const run_samples_t *samples) {
  printf("%-24.24s", name);
  if (iterations > 0) {
    printf(" %5u", iterations);
  } else {
    printf(" %5s", "");
  }
  printf(" %6zu", samples->count);
  if (samples->count > 0) {
    summary_t summary = summarize(samples);
    printf(" %9.3f %9.3f %9.3f %9.3f\n", summary.median, summary.p95, summary.p99, summary.max);
  } else {
    printf(" %9s %9s %9s %9s\n", "-", "-", "-", "-");
  }
}

/* Iterations per completed run of a stage whose loop the data ends; 0: it is none, or did not run. */
static double mean_iterations(const run_t *run, uint32_t index) {
  vlart_stage_info_t stage = {.struct_size = sizeof stage};
  vlart_stage_stats_t stats = {.struct_size = sizeof stats};
  vlart_bundle_stage(run->bundle, index, &stage);
  vlart_session_stats(run->session, index, &stats);
  return stage.end == 0 || stats.runs == 0 ? 0 : (double)stats.iterations / (double)stats.runs;
}

static void print_times(const run_t *run) {
  printf("\n%-24s %5s %6s %9s %9s %9s %9s\n", "stage", "iter", "runs", "median ms", "p95 ms",
         "p99 ms", "max ms");
  for (uint32_t i = 0; i < run->info.stage_count; i++) {
    vlart_stage_info_t stage = {.struct_size = sizeof stage};
    vlart_bundle_stage(run->bundle, i, &stage);
    print_row(stage.name, stage.iterations, &run->stages[i]);
  }
  print_row("(inputs copied in)", 0, &run->writes);
  print_row("(whole step)", 0, &run->steps);
  for (uint32_t i = 0; i < run->info.stage_count; i++) {
    vlart_stage_info_t stage = {.struct_size = sizeof stage};
    vlart_bundle_stage(run->bundle, i, &stage);
    if (mean_iterations(run, i) > 0) {
      printf("%s: %.3g of at most %u iterations in the mean\n", stage.name, mean_iterations(run, i),
             stage.iterations);
    }
  }
}

static void print_actions(const run_t *run) {
  size_t dim = run->info.action_dim;
  if (run->info.action_value == VLART_NONE) {
    return;
  }
  printf("\nfirst action of each frame, %zu numbers\n", dim);
  for (uint32_t i = 0; i < run->frames.frame_count; i++) {
    const float *action = run->actions + (size_t)i * run->info.execute_steps * dim;
    printf("%-16.16s", vlart_string(&run->frames.file, vlart_frames_frame(&run->frames, i)->label));
    for (size_t d = 0; run->action_counts[i] > 0 && d < dim; d++) {
      if (d > 0 && d % 7 == 0) {
        printf("\n%-16s", "");
      }
      printf(" %8.4f", (double)action[d]);
    }
    printf(run->action_counts[i] > 0 ? "\n" : " none\n");
  }
}

static void print_verdicts(const run_t *run) {
  printf("\n%-20s %18s %18s %18s\n", "value (allowed)", "max_abs", "rel_l2", "cosine");
  for (uint32_t i = 0; i < run->verdict_count; i++) {
    const run_verdict_t *v = &run->verdicts[i];
    printf("%-20.20s %8.1e (%7.1e) %8.1e (%7.1e) %8.6f (%.5f)\n", v->name, v->max_abs,
           v->max_abs_allowed, v->rel_l2, v->rel_l2_allowed, v->cosine, v->cosine_allowed);
    if (v->failed > 0) {
      printf("  FAILED in %u of %u frames\n", v->failed, v->frames);
    }
  }
}

void run_print_text(const run_t *run) {
  vlart_session_totals_t totals = {.struct_size = sizeof totals};
  vlart_session_totals(run->session, &totals);
  printf("%s for %s, recipe %s: %u stages, %u frames x %u\n", run->info.name, run->info.target,
         run->info.recipe, run->info.stage_count, run->frames.frame_count, run->options->repeat);
  if (run->options->weight_cache != NULL) {
    const vlart_weight_cache_t *cache = &run->weight_cache;
    printf("weight cache: %u stages mapped, %u written, %u refused%s%s\n", cache->mapped,
           cache->written, cache->refused, cache->why[0] != '\0' ? ": " : "", cache->why);
  }
  if (run->options->stand_in) {
    puts("by ONNX Runtime: a stand-in, not the board");
  }
  if (run->options->self_test) {
    print_verdicts(run);
  } else {
    print_actions(run);
  }
  print_times(run);
  if (run->pops.count > 0) {
    printf("handing out one action takes %.0f ns (median)\n", summarize(&run->pops).median * 1e6);
  }
  printf("%llu stage runs, %llu skipped because nothing changed\n",
         (unsigned long long)totals.stages_run, (unsigned long long)totals.stages_skipped);
}

void run_json_string(FILE *file, const char *string) {
  const uint8_t *s = (const uint8_t *)string;
  size_t count = strlen(string);
  putc('"', file);
  for (size_t at = 0; at < count;) {
    size_t length = vlart_text_point_length(s + at, count - at);
    if (length == 0) { /* a path of the command line need not be UTF-8, JSON is */
      fputs("\\ufffd", file);
      at++;
      continue;
    }
    if (s[at] == '"' || s[at] == '\\') {
      putc('\\', file);
    }
    size_t end = at;
    uint32_t point = vlart_text_point(s, &end);
    if (!vlart_text_is_line(s + at, length)) {
      fprintf(file, "\\u%04x", (unsigned)point);
    } else {
      fwrite(s + at, 1, length, file);
    }
    at += length;
  }
  putc('"', file);
}

/* JSON has no infinity. */
static void print_json_number(const char *key, double number, const char *after) {
  if (isfinite(number)) {
    printf("\"%s\": %.9g%s", key, number, after);
  } else {
    printf("\"%s\": null%s", key, after);
  }
}

static void print_json_times(const run_samples_t *samples) {
  printf("\"runs\": %zu", samples->count);
  if (samples->count > 0) {
    summary_t summary = summarize(samples);
    printf(
        ", \"median_ms\": %.6f, \"min_ms\": %.6f, \"p95_ms\": %.6f, \"p99_ms\": %.6f, "
        "\"max_ms\": %.6f",
        summary.median, summary.min, summary.p95, summary.p99, summary.max);
  }
  putchar('}');
}

static void print_json_stages(const run_t *run) {
  printf(", \"stages\": [");
  for (uint32_t i = 0; i < run->info.stage_count; i++) {
    vlart_stage_info_t stage = {.struct_size = sizeof stage};
    vlart_bundle_stage(run->bundle, i, &stage);
    printf("%s{\"name\": ", i > 0 ? ", " : "");
    run_json_string(stdout, stage.name);
    printf(", \"iterations\": %u, ", stage.iterations);
    if (mean_iterations(run, i) > 0) {
      printf("\"mean_iterations\": %.6g, ", mean_iterations(run, i));
    }
    print_json_times(&run->stages[i]);
  }
  printf("], \"step\": {");
  print_json_times(&run->steps);
  printf(", \"write\": {");
  print_json_times(&run->writes);
  printf(", \"pop\": {");
  print_json_times(&run->pops);
}

static void print_json_verdicts(const run_t *run) {
  printf(", \"values\": [");
  for (uint32_t i = 0; i < run->verdict_count; i++) {
    const run_verdict_t *v = &run->verdicts[i];
    printf("%s{\"name\": ", i > 0 ? ", " : "");
    run_json_string(stdout, v->name);
    printf(", \"frames\": %u, \"failed\": %u, ", v->frames, v->failed);
    print_json_number("max_abs", v->max_abs, ", ");
    print_json_number("max_abs_allowed", v->max_abs_allowed, ", ");
    print_json_number("rel_l2", v->rel_l2, ", ");
    print_json_number("rel_l2_allowed", v->rel_l2_allowed, ", ");
    print_json_number("cosine", v->cosine, ", ");
    print_json_number("cosine_allowed", v->cosine_allowed, "}");
  }
  putchar(']');
}

static void print_json_actions(const run_t *run) {
  size_t dim = run->info.action_dim;
  printf(", \"frames\": [");
  for (uint32_t i = 0; i < run->frames.frame_count; i++) {
    printf("%s{\"label\": ", i > 0 ? ", " : "");
    run_json_string(stdout,
                    vlart_string(&run->frames.file, vlart_frames_frame(&run->frames, i)->label));
    printf(", \"actions\": [");
    const float *chunk = run->actions + (size_t)i * run->info.execute_steps * dim;
    for (uint32_t k = 0; k < run->action_counts[i]; k++) {
      printf("%s[", k > 0 ? ", " : "");
      for (size_t d = 0; d < dim; d++) {
        printf("%s%.9g", d > 0 ? ", " : "", (double)chunk[k * dim + d]);
      }
      putchar(']');
    }
    printf("]}");
  }
  putchar(']');
}

void run_print_json(const run_t *run, vlart_status_t status, const vlart_diag_t *diag) {
  printf("{\"status\": \"%s\", \"bundle\": ", vlart_status_name(status));
  run_json_string(stdout, run->options->bundle);
  printf(", \"stand_in\": %s", run->options->stand_in ? "true" : "false");
  if (run->options->weight_cache != NULL) {
    const vlart_weight_cache_t *cache = &run->weight_cache;
    printf(", \"weight_cache\": {\"mapped\": %u, \"written\": %u, \"refused\": %u, \"why\": ",
           cache->mapped, cache->written, cache->refused);
    run_json_string(stdout, cache->why);
    putchar('}');
  }
  if (status != VLART_STATUS_OK) {
    const char *const keys[] = {"what", "where", "why", "fix"};
    const char *const lines[] = {diag->what, diag->where, diag->why, diag->fix};
    for (int i = 0; i < 4; i++) {
      printf(", \"%s\": ", keys[i]);
      run_json_string(stdout, lines[i]);
    }
  }
  if (run->steps.count > 0) {
    print_json_stages(run);
    print_json_verdicts(run);
    print_json_actions(run);
  }
  puts("}");
}
