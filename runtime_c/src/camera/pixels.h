/* Rows of RGB out of a frame as cameras give it. */
#ifndef VLART_PIXELS_H
#define VLART_PIXELS_H

#include <stddef.h>
#include <stdint.h>

#include "vlart/vlart_camera.h"

/* A frame whose planes were found to be long enough. */
typedef struct {
  uint32_t pixels;   /* VLART_PIXELS_..., not JPEG */
  uint32_t colours;  /* VLART_COLOURS_... */
  uint32_t channels; /* that come out of it */
  const uint8_t *planes[VLART_MAX_PLANES];
  size_t strides[VLART_MAX_PLANES];
} vlart_pixel_source_t;

uint32_t vlart_pixels_planes(uint32_t pixels);

/* Of a plane of a frame of this size: bytes of a row, and rows. */
size_t vlart_pixels_row_bytes(const vlart_pixel_source_t *source, uint32_t plane, uint32_t width);
uint32_t vlart_pixels_rows(uint32_t plane, uint32_t height);

/* [tick] `count` pixels from column x of row y on: in `room`, or where they lie. */
const uint8_t *vlart_pixels_row(const vlart_pixel_source_t *source, uint32_t y, uint32_t x,
                                uint32_t count, uint8_t *room);

#endif
