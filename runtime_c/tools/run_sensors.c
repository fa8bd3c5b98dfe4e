/* What the machine says of itself: clocks, temperatures, power and throttling of a Jetson as NVIDIA's kernels lay
   them out in /sys, and the memory in use. The same files as vlacompile/profile/jetson_sensors.py reads; what is
   missing is left out. */
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

/* Above it are /sys and /proc: the root, or where a container has its host's. */
static bool find(const char *root, const char *pattern, glob_t *out_paths) {
  char whole[512];
  return snprintf(whole, sizeof whole, "%s%s", root, pattern) < (int)sizeof whole &&
         glob(whole, 0, NULL, out_paths) == 0;
}

/* The first line of a file without its line end; false where it cannot be read. */
bool run_read_line(const char *path, char *out, size_t bytes) {
  FILE *file = fopen(path, "r");
  if (file == NULL) {
    return false;
  }
  bool found = fgets(out, (int)bytes, file) != NULL;
  fclose(file);
  if (found) {
    out[strcspn(out, "\r\n")] = '\0';
  }
  return found;
}

static bool read_number(const char *path, double *out_number) {
  char text[64];
  char *end;
  if (!run_read_line(path, text, sizeof text)) {
    return false;
  }
  *out_number = strtod(text, &end);
  return end != text;
}

static void add_clock(FILE *file, const char *root, const char *key, const char *pattern,
                      double scale) {
  glob_t paths;
  double number = 0, most = 0;
  bool found = false;
  if (find(root, pattern, &paths)) {
    for (size_t i = 0; i < paths.gl_pathc; i++) {
      if (read_number(paths.gl_pathv[i], &number)) {
        most = !found || number > most ? number : most;
        found = true;
      }
    }
    globfree(&paths);
  }
  if (found) {
    fprintf(file, "\"%s\": %.6g, ", key, most * scale);
  }
}

/* Every thermal zone whose type ends so, in degrees. */
static void add_temperatures(FILE *file, const char *root) {
  static const char ending[] = "-thermal";
  glob_t paths;
  const char *comma = "";
  fputs("\"celsius\": {", file);
  if (find(root, "/sys/class/thermal/thermal_zone*", &paths)) {
    for (size_t i = 0; i < paths.gl_pathc; i++) {
      char path[512], name[128];
      double number;
      snprintf(path, sizeof path, "%s/type", paths.gl_pathv[i]);
      size_t length = run_read_line(path, name, sizeof name) ? strlen(name) : 0;
      snprintf(path, sizeof path, "%s/temp", paths.gl_pathv[i]);
      if (length >= sizeof ending && strcmp(name + length - (sizeof ending - 1), ending) == 0 &&
          read_number(path, &number)) {
        name[length - (sizeof ending - 1)] = '\0';
        fputs(comma, file);
        run_json_string(file, name);
        fprintf(file, ": %.6g", number / 1e3);
        comma = ", ";
      }
    }
    globfree(&paths);
  }
  fputs("}, ", file);
}

/* INA3221: inN_label is a rail's name, inN_input its mV, currN_input its mA. */
static void add_rails(FILE *file, const char *root) {
  glob_t paths;
  const char *comma = "";
  fputs("\"watts\": {", file);
  if (find(root, "/sys/class/hwmon/hwmon*/in[1-3]_label", &paths)) {
    for (size_t i = 0; i < paths.gl_pathc; i++) {
      char path[512], name[128];
      double volts, amperes;
      size_t folder = (size_t)(strrchr(paths.gl_pathv[i], '/') - paths.gl_pathv[i]);
      char rail = paths.gl_pathv[i][folder + 3];
      snprintf(path, sizeof path, "%.*s/in%c_input", (int)folder, paths.gl_pathv[i], rail);
      bool known = read_number(path, &volts);
      snprintf(path, sizeof path, "%.*s/curr%c_input", (int)folder, paths.gl_pathv[i], rail);
      if (known && read_number(path, &amperes) &&
          run_read_line(paths.gl_pathv[i], name, sizeof name)) {
        fputs(comma, file);
        run_json_string(file, name);
        fprintf(file, ": %.6g", volts * amperes / 1e6);
        comma = ", ";
      }
    }
    globfree(&paths);
  }
  fputs("}, ", file);
}

/* Over-current events since boot (hwmon), and the states of cooling devices that slow the machine down. */
static void add_throttling(FILE *file, const char *root) {
  glob_t paths;
  const char *comma = "";
  double number;
  fputs("\"throttled\": {", file);
  if (find(root, "/sys/class/hwmon/hwmon*/oc[0-9]_event_cnt", &paths)) {
    for (size_t i = 0; i < paths.gl_pathc; i++) {
      const char *name = strrchr(paths.gl_pathv[i], '/') + 1;
      if (read_number(paths.gl_pathv[i], &number) && number > 0) {
        fprintf(file, "%s\"over-current %c\": %.0f", comma, name[2], number);
        comma = ", ";
      }
    }
    globfree(&paths);
  }
  if (find(root, "/sys/class/thermal/cooling_device*", &paths)) {
    for (size_t i = 0; i < paths.gl_pathc; i++) {
      char path[512], kind[128];
      snprintf(path, sizeof path, "%s/type", paths.gl_pathv[i]);
      bool known = run_read_line(path, kind, sizeof kind) && strstr(kind, "fan") == NULL;
      snprintf(path, sizeof path, "%s/cur_state", paths.gl_pathv[i]);
      if (known && read_number(path, &number) && number > 0) {
        fputs(comma, file);
        run_json_string(file, kind);
        fprintf(file, ": %.0f", number);
        comma = ", ";
      }
    }
    globfree(&paths);
  }
  fputs("}", file);
}

static void add_memory(FILE *file, const char *root) {
  char path[512], total[64], available[64];
  snprintf(path, sizeof path, "%s/proc/meminfo", root);
  if (tool_find_row(path, "MemTotal", total, sizeof total) &&
      tool_find_row(path, "MemAvailable", available, sizeof available)) {
    fprintf(file, ", \"memory_mb\": %.6g",
            (strtod(total, NULL) - strtod(available, NULL)) * 1024 / 1e6);
  }
}

void run_read_sensors(const char *root, char *out, size_t bytes) {
  FILE *file = fmemopen(out, bytes, "w");
  if (file == NULL) {
    snprintf(out, bytes, "{}");
    return;
  }
  putc('{', file);
  add_clock(file, root, "gpu_mhz", "/sys/class/devfreq/17000000.g*/cur_freq", 1e-6);
  add_clock(file, root, "emc_mhz", "/sys/kernel/debug/bpmp/debug/clk/emc/rate", 1e-6);
  add_clock(file, root, "cpu_mhz", "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq",
            1e-3);
  add_temperatures(file, root);
  add_rails(file, root);
  add_throttling(file, root);
  add_memory(file, root);
  putc('}', file);
  bool whole = fflush(file) == 0 && ftell(file) < (long)bytes - 1;
  fclose(file);
  if (!whole) {
    snprintf(out, bytes, "{}");
  }
}

/* As many as there is room for: then every other one is forgotten, and they come half as often. */
void run_read_during(run_t *run, double now_ms) {
  if (now_ms < run->next_reading_ms) {
    return;
  }
  if (run->during_count == RUN_READINGS) {
    run->during_count /= 2;
    for (uint32_t i = 0; i < run->during_count; i++) {
      memcpy(run->during[i], run->during[(size_t)2 * i], sizeof run->during[i]);
    }
    run->reading_every_ms *= 2;
  }
  run_read_sensors(run->options->sensors, run->during[run->during_count], sizeof run->during[0]);
  run->during_count++;
  run->next_reading_ms = now_ms + run->reading_every_ms;
}
