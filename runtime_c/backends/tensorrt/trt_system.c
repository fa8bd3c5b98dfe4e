/* The files are those of NVIDIA's L4T as documented; not run on a board. */
#include "trt_system.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool vlart_trt_read_text(const char *root, const char *path, char *out, size_t capacity) {
  char full[1024];
  out[0] = '\0';
  int length = snprintf(full, sizeof full, "%s%s", root, path);
  if (length < 0 || (size_t)length >= sizeof full) {
    return false;
  }
  int fd = open(full, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return false;
  }
  ssize_t got = read(fd, out, capacity - 1);
  close(fd);
  for (ssize_t i = 0; i < got; i++) {
    bool plain = (out[i] >= ' ' && out[i] <= '~') || out[i] == '\n';
    out[i] = out[i] == '\0' ? ' ' : plain ? out[i] : '?';
  }
  out[got > 0 ? got : 0] = '\0';
  return got >= 0;
}

bool vlart_trt_within(const char *part, const char *whole) {
  size_t length = strlen(part);
  return strncmp(part, whole, length) == 0 && (whole[length] == '\0' || whole[length] == '.');
}

/* JetPack by L4T, the first revision of each: NVIDIA's JetPack archive. 36.4.7 is an update of 6.2. */
static const struct {
  unsigned major, minor, patch;
  const char *jetpack;
} RELEASES[] = {{36, 3, 0, "6.0"},   {36, 4, 0, "6.1"},   {36, 4, 3, "6.2"},
                {36, 4, 4, "6.2.1"}, {36, 5, 0, "6.2.2"}, {39, 2, 0, "7.2"}};

bool vlart_trt_jetpack(const char *line, vlart_trt_system_t *out_system) {
  unsigned major, minor, patch = 0;
  int read = sscanf(line, "# R%3u (release), REVISION: %3u.%3u", &major, &minor, &patch);
  if (read < 2) {
    return false;
  }
  snprintf(out_system->l4t, sizeof out_system->l4t, "%u.%u.%u", major, minor, patch);
  for (size_t i = sizeof RELEASES / sizeof *RELEASES; i > 0; i--) {
    if (RELEASES[i - 1].major == major &&
        (minor > RELEASES[i - 1].minor ||
         (minor == RELEASES[i - 1].minor && patch >= RELEASES[i - 1].patch))) {
      snprintf(out_system->jetpack, sizeof out_system->jetpack, "%s", RELEASES[i - 1].jetpack);
      return true;
    }
  }
  return false;
}

/* Modules by the numbers in the device tree and in nvpmodel's files, which name them alike. */
static const struct {
  const char *module, *board;
} MODULES[] = {{"p3767-0000", "orin-nx-16gb"},  {"p3767-0001", "orin-nx-8gb"},
               {"p3767-0003", "orin-nano-8gb"}, {"p3767-0004", "orin-nano-4gb"},
               {"p3767-0005", "orin-nano-8gb"}, {"p3701-0004", "agx-orin-32gb"},
               {"p3701-0005", "agx-orin-64gb"}, {"p3834-0008", "jetson-thor"}};

void vlart_trt_system_read(const char *root, vlart_trt_system_t *out_system) {
  char text[512];
  *out_system = (vlart_trt_system_t){VLART_TRT_UNKNOWN, VLART_TRT_UNKNOWN, VLART_TRT_UNKNOWN,
                                     VLART_TRT_UNKNOWN};
  if (vlart_trt_read_text(root, "/proc/device-tree/model", text, sizeof text)) {
    size_t length = strcspn(text, "\n");
    while (length > 0 && text[length - 1] == ' ') {
      length--;
    }
    if (length > 0) {
      snprintf(out_system->model, sizeof out_system->model, "%.*s",
               length > 120 ? 120 : (int)length, text);
    }
  }
  if (vlart_trt_read_text(root, "/proc/device-tree/compatible", text, sizeof text)) {
    for (size_t i = 0; i < sizeof MODULES / sizeof *MODULES; i++) {
      if (strstr(text, MODULES[i].module) != NULL) {
        snprintf(out_system->board, sizeof out_system->board, "%s", MODULES[i].board);
      }
    }
  }
  if (vlart_trt_read_text(root, "/etc/nv_tegra_release", text, sizeof text)) {
    (void)vlart_trt_jetpack(text, out_system); /* what it does not say stays unknown */
  }
}
