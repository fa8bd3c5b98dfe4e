/* JPEG by libturbojpeg, loaded when a camera wants it; own declarations. */
#ifndef VLART_JPEG_H
#define VLART_JPEG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vlart/vlart_camera.h"

typedef struct {
  void *library;
  void *decoder; /* NULL after a frame that could not be decoded: it keeps tables of that one */
  void *(*make_decoder)(void);
  int (*read_header)(void *, const unsigned char *, unsigned long, int *, int *, int *, int *);
  int (*decompress)(void *, const unsigned char *, unsigned long, unsigned char *, int, int, int,
                    int, int);
  char *(*error)(void *);
  int (*destroy)(void *);
} vlart_jpeg_t;

/* [init] NO_BACKEND without the library. */
vlart_status_t vlart_jpeg_open(vlart_jpeg_t *jpeg, const char *path, vlart_diag_t *diag);
void vlart_jpeg_close(vlart_jpeg_t *jpeg);

/* [tick] A file of width * height pixels into dense RGB. */
vlart_status_t vlart_jpeg_decode(vlart_jpeg_t *jpeg, const void *data, size_t bytes, uint32_t width,
                                 uint32_t height, uint8_t *rgb, vlart_diag_t *diag);

#endif
