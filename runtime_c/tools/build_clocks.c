/* What a Jetson runs at: a latency without its clocks says little. Paths are those of L4T 36 as
   documented; not run on a board. What cannot be read is VLART_NONE. */
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

static uint32_t read_mhz(const char *root, const char *path, uint64_t hz_per_unit) {
  uint64_t number;
  return read_number(root, path, &number) ? (uint32_t)(number * hz_per_unit / 1000000) : VLART_NONE;
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
static uint32_t read_power_mode(const char *root) {
  char text[128];
  unsigned mode;
  return vlart_trt_read_text(root, "/var/lib/nvpmodel/status", text, sizeof text) &&
                 sscanf(text, "pmode:%4u", &mode) == 1
             ? mode
             : VLART_NONE;
}

void build_read_clocks(const char *root, vlart_lock_record_t *out_lock) {
  char gpu[256], path[300];
  out_lock->power_mode = read_power_mode(root);
  out_lock->gpu_mhz = out_lock->gpu_max_mhz = VLART_NONE;
  if (find_gpu(root, gpu, sizeof gpu)) {
    snprintf(path, sizeof path, "%s/cur_freq", gpu);
    out_lock->gpu_mhz = read_mhz(root, path, 1);
    snprintf(path, sizeof path, "%s/max_freq", gpu);
    out_lock->gpu_max_mhz = read_mhz(root, path, 1);
  }
  out_lock->emc_mhz = read_mhz(root, "/sys/kernel/debug/bpmp/debug/clk/emc/rate", 1);
  out_lock->cpu_mhz = read_mhz(root, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 1000);
  out_lock->cpu_max_mhz =
      read_mhz(root, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq", 1000);
}
