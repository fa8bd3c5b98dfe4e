#include "camera/pixels.h"

#include <string.h>

/* What luma and chroma add to red, green and blue, times 2^16, rounded. */
typedef struct {
  int32_t black; /* luma of black */
  int32_t luma;
  int32_t red_v, green_u, green_v, blue_u;
} colours_t;

static const colours_t COLOURS[] = {
    [VLART_COLOURS_BT601] = {16, 76309, 104597, -25675, -53279, 132201},
    [VLART_COLOURS_BT601_FULL] = {0, 65536, 91881, -22553, -46802, 116130},
    [VLART_COLOURS_BT709] = {16, 76309, 117489, -13975, -34925, 138438},
    [VLART_COLOURS_BT709_FULL] = {0, 65536, 103206, -12277, -30679, 121609},
};

uint32_t vlart_pixels_planes(uint32_t pixels) {
  switch (pixels) {
    case VLART_PIXELS_NV12:
    case VLART_PIXELS_NV21: return 2;
    case VLART_PIXELS_I420: return 3;
    default: return 1;
  }
}

size_t vlart_pixels_row_bytes(const vlart_pixel_source_t *source, uint32_t plane, uint32_t width) {
  size_t chroma = ((size_t)width + 1) / 2;
  switch (source->pixels) {
    case VLART_PIXELS_RGBA8:
    case VLART_PIXELS_BGRA8: return 4 * (size_t)width;
    case VLART_PIXELS_GRAY8: return width;
    case VLART_PIXELS_YUYV:
    case VLART_PIXELS_UYVY: return 4 * chroma;
    case VLART_PIXELS_NV12:
    case VLART_PIXELS_NV21: return plane == 0 ? width : 2 * chroma;
    case VLART_PIXELS_I420: return plane == 0 ? width : chroma;
    default: return source->channels * (size_t)width;
  }
}

uint32_t vlart_pixels_rows(uint32_t plane, uint32_t height) {
  return plane == 0 ? height : (height + 1) / 2;
}

/* Where luma and chroma of a row stand: luma of each pixel `step` bytes apart, chroma of each two `pair` bytes. */
typedef struct {
  const uint8_t *luma, *u, *v;
  uint32_t step, pair;
} lumachroma_t;

/* A block of pixels at a time, in loops of a constant length without branches: compilers make vectors of them. */
#define BLOCK 64u

typedef struct {
  uint8_t luma[BLOCK], u[BLOCK], v[BLOCK];
  uint8_t red[BLOCK], green[BLOCK], blue[BLOCK];
} block_t;

static int32_t limited(int32_t value) {
  value = (value + (1 << 15)) >> 16;
  value = value < 0 ? 0 : value;
  return value > 255 ? 255 : value;
}

static void convert_block(const colours_t *c, block_t *block) {
  const colours_t k = *c;
  for (uint32_t i = 0; i < BLOCK; i++) {
    int32_t luma = block->luma[i] - k.black;
    luma = k.luma * (luma < 0 ? 0 : luma); /* blacker than black is black, as OpenCV has it */
    int32_t u = block->u[i] - 128, v = block->v[i] - 128;
    block->red[i] = (uint8_t)limited(luma + k.red_v * v);
    block->green[i] = (uint8_t)limited(luma + k.green_u * u + k.green_v * v);
    block->blue[i] = (uint8_t)limited(luma + k.blue_u * u);
  }
}

static void gather(lumachroma_t row, uint32_t x, uint32_t count, block_t *block) {
  if (row.step == 1) {
    memcpy(block->luma, row.luma + x, count);
  } else {
    for (uint32_t i = 0; i < count; i++) {
      block->luma[i] = row.luma[row.step * (size_t)(x + i)];
    }
  }
  for (uint32_t i = 0; i < count; i++) {
    size_t pair = row.pair * (size_t)((x + i) / 2);
    block->u[i] = row.u[pair];
    block->v[i] = row.v[pair];
  }
}

static void coloured(const vlart_pixel_source_t *s, lumachroma_t row, uint32_t x, uint32_t count,
                     uint8_t *rgb) {
  block_t block = {0};
  for (uint32_t begin = 0; begin < count; begin += BLOCK) {
    uint32_t many = count - begin < BLOCK ? count - begin : BLOCK;
    gather(row, x + begin, many, &block);
    convert_block(&COLOURS[s->colours], &block);
    for (uint32_t i = 0; i < many; i++) {
      uint8_t *out = rgb + 3 * (size_t)(begin + i);
      out[0] = block.red[i];
      out[1] = block.green[i];
      out[2] = block.blue[i];
    }
  }
}

/* Red, green and blue at these places of pixels of `step` bytes. */
static void plain(const uint8_t *row, uint32_t step, uint32_t red, uint32_t green, uint32_t blue,
                  uint32_t x, uint32_t count, uint8_t *rgb) {
  const uint8_t *from = row + step * (size_t)x;
  for (uint32_t i = 0; i < count; i++) {
    rgb[3 * (size_t)i] = from[step * (size_t)i + red];
    rgb[3 * (size_t)i + 1] = from[step * (size_t)i + green];
    rgb[3 * (size_t)i + 2] = from[step * (size_t)i + blue];
  }
}

static lumachroma_t lumachroma(const vlart_pixel_source_t *s, uint32_t y) {
  const uint8_t *row = s->planes[0] + s->strides[0] * y;
  if (s->pixels == VLART_PIXELS_YUYV) {
    return (lumachroma_t){row, row + 1, row + 3, 2, 4};
  }
  if (s->pixels == VLART_PIXELS_UYVY) {
    return (lumachroma_t){row + 1, row, row + 2, 2, 4};
  }
  const uint8_t *chroma = s->planes[1] + s->strides[1] * (y / 2);
  switch (s->pixels) {
    case VLART_PIXELS_NV12: return (lumachroma_t){row, chroma, chroma + 1, 1, 2};
    case VLART_PIXELS_NV21: return (lumachroma_t){row, chroma + 1, chroma, 1, 2};
    default: return (lumachroma_t){row, chroma, s->planes[2] + s->strides[2] * (y / 2), 1, 1};
  }
}

const uint8_t *vlart_pixels_row(const vlart_pixel_source_t *s, uint32_t y, uint32_t x,
                                uint32_t count, uint8_t *room) {
  const uint8_t *row = s->planes[0] + s->strides[0] * y;
  switch (s->pixels) {
    case VLART_PIXELS_RGB8:
    case VLART_PIXELS_AS_IS: return row + s->channels * (size_t)x;
    case VLART_PIXELS_BGR8: plain(row, 3, 2, 1, 0, x, count, room); break;
    case VLART_PIXELS_RGBA8: plain(row, 4, 0, 1, 2, x, count, room); break;
    case VLART_PIXELS_BGRA8: plain(row, 4, 2, 1, 0, x, count, room); break;
    case VLART_PIXELS_GRAY8: plain(row, 1, 0, 0, 0, x, count, room); break;
    default: coloured(s, lumachroma(s, y), x, count, room); break;
  }
  return room;
}
