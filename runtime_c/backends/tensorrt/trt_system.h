/* What a Jetson says of itself in files: its model and its JetPack. */
#ifndef VLART_TRT_SYSTEM_H
#define VLART_TRT_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>

#define VLART_TRT_UNKNOWN "unknown"

typedef struct {
  char model[128];  /* "NVIDIA Jetson Orin Nano ...", or "unknown" */
  char l4t[32];     /* "36.4.3", or "unknown" */
  char jetpack[32]; /* "6.2", or "unknown" */
  char board[32];   /* as targets call it: "orin-nano-8gb", or "unknown" */
} vlart_trt_system_t;

/* [init] Reads them below `root` ("": this machine). */
void vlart_trt_system_read(const char *root, vlart_trt_system_t *out_system);

/* The JetPack of a release line of /etc/nv_tegra_release; false if it is not known. */
bool vlart_trt_jetpack(const char *release_line, vlart_trt_system_t *out_system);

/* Reads the beginning of a file below `root` into a string, with a space for every NUL and '?' for
   what is not ASCII; false if it cannot be opened. */
bool vlart_trt_read_text(const char *root, const char *path, char *out, size_t capacity);

/* Whether version `whole` is `part` or one of its releases: 10.3 has 10.3.0.30, 10.30 has not. */
bool vlart_trt_within(const char *part, const char *whole);

#endif
