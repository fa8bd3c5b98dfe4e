/* What a Jetson runs at: a latency without its clocks says little. Paths are those of L4T 36 as
   documented; not run on a board. What cannot be read is left out. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "build.h"

/* A file with one number; false without it. */
static bool read_number(const char *root, const char *path, uint64_t *out_number) {
  char text[64];
  if (!vlart_trt_read_text(root, path, text, sizeof text) || text[0] < '0' || text[0] > '9') {
    return false;
  }
  *out_number = strtoull(text, NULL, 10);
  return true;
}

static void print_mhz(FILE *file, const char *root, const char *path, const char *key,
                      uint64_t hz_per_unit, const char **between) {
  uint64_t number;
  if (read_number(root, path, &number)) {
    fprintf(file, "%s\"%s\": %llu", *between, key,
            (unsigned long long)(number * hz_per_unit / 1000000));
    *between = ", ";
  }
}

/* The GPU's clock has another name in every L4T: 17000000.gpu, 17000000.ga10b. */
static bool find_gpu(const char *root, char *out, size_t capacity) {
  char path[512];
  snprintf(path, sizeof path, "%.255s/sys/class/devfreq", root);
  DIR *dir = opendir(path);
  bool found = false;
  for (struct dirent *entry; dir != NULL && !found && (entry = readdir(dir)) != NULL;) {
    found = strstr(entry->d_name, ".gpu") != NULL || strstr(entry->d_name, ".ga10b") != NULL;
    if (found) {
      snprintf(out, capacity, "/sys/class/devfreq/%.200s", entry->d_name);
    }
  }
  if (dir != NULL) {
    closedir(dir);
  }
  return found;
}

/* "pmode:0002 ..." of nvpmodel; its name stands in nvpmodel's own configuration. */
static void print_power_mode(FILE *file, const char *root, const char **between) {
  char text[128];
  unsigned mode;
  if (vlart_trt_read_text(root, "/var/lib/nvpmodel/status", text, sizeof text) &&
      sscanf(text, "pmode:%4u", &mode) == 1) {
    fprintf(file, "%s\"power_mode\": %u", *between, mode);
    *between = ", ";
  }
}

void build_print_clocks(FILE *file, const char *root) {
  const char *between = "";
  char gpu[256], path[300];
  print_power_mode(file, root, &between);
  if (find_gpu(root, gpu, sizeof gpu)) {
    snprintf(path, sizeof path, "%s/cur_freq", gpu);
    print_mhz(file, root, path, "gpu_mhz", 1, &between);
    snprintf(path, sizeof path, "%s/max_freq", gpu);
    print_mhz(file, root, path, "gpu_max_mhz", 1, &between);
  }
  print_mhz(file, root, "/sys/kernel/debug/bpmp/debug/clk/emc/rate", "emc_mhz", 1, &between);
  print_mhz(file, root, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "cpu_mhz", 1000,
            &between);
  print_mhz(file, root, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", "cpu_max_mhz",
            1000, &between);
}
