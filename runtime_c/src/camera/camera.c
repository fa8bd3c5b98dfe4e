/* Options -> tables, and a frame through them. */
#include <string.h>

#include "base/arena.h"
#include "base/diag.h"
#include "base/struct_size.h"
#include "camera/jpeg.h"
#include "camera/pixels.h"
#include "camera/resample.h"

#define MOST_CHANNELS 4u

typedef struct {
  uint32_t width, height;
} extent_t;

struct vlart_camera {
  vlart_camera_options_t options;
  extent_t inside; /* of the picture in `out` */
  vlart_axis_t columns, rows;
  vlart_jpeg_t jpeg;
  uint8_t *decoded; /* [height, width, 3] of a JPEG */
  uint8_t *row;     /* [crop_width, channels] */
  uint8_t *between; /* [crop_height, inside.width, channels]: resized along rows */
};

/* The largest extent of a picture's proportions that fits, rounded down. */
static extent_t fitting(extent_t picture, extent_t most) {
  uint64_t high = (uint64_t)picture.height * most.width;
  uint64_t wide = (uint64_t)picture.width * most.height;
  if (high > wide) {
    uint32_t width = (uint32_t)(wide / picture.height);
    return (extent_t){width > 0 ? width : 1, most.height};
  }
  uint32_t height = (uint32_t)(high / picture.width);
  return (extent_t){most.width, height > 0 ? height : 1};
}

static bool is_side(uint32_t pixels) { return pixels > 0 && pixels <= VLART_MAX_CAMERA_SIDE; }

static vlart_status_t read_options(const vlart_camera_options_t *options, const char *call,
                                   vlart_diag_t *diag, vlart_camera_options_t *o) {
  if (options == NULL) {
    return vlart_bad_argument(diag, call, "there are no options: a camera has no default size");
  }
  vlart_status_t status = vlart_copy_in(o, sizeof *o, sizeof *o, options, call, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  if (o->pixels > VLART_PIXELS_AS_IS || o->colours > VLART_COLOURS_BT709_FULL ||
      o->resize > VLART_RESIZE_BILINEAR_PLAIN || o->fit > VLART_FIT_PAD) {
    return vlart_bad_argument(diag, call, "pixels, colours, resize or fit is not known");
  }
  if (o->pixels == VLART_PIXELS_AS_IS ? o->channels == 0 || o->channels > MOST_CHANNELS
                                      : o->channels != 0) {
    return vlart_bad_argument(diag, call, "channels are 1 to 4 of pixels as they are, 0 of others");
  }
  o->channels = o->pixels == VLART_PIXELS_AS_IS ? o->channels : 3;
  if (o->crop_width == 0 && o->crop_height == 0) {
    o->crop_width = o->crop_x < o->width ? o->width - o->crop_x : 0;
    o->crop_height = o->crop_y < o->height ? o->height - o->crop_y : 0;
  }
  if (!is_side(o->width) || !is_side(o->height) || !is_side(o->out_width) ||
      !is_side(o->out_height) || !is_side(o->crop_width) || !is_side(o->crop_height)) {
    return vlart_bad_argument(diag, call, "a width or height is 0, or above VLART_MAX_CAMERA_SIDE");
  }
  if (o->crop_x > o->width - o->crop_width || o->crop_width > o->width ||
      o->crop_y > o->height - o->crop_height || o->crop_height > o->height) {
    return vlart_bad_argument(diag, call, "the crop leaves the frame");
  }
  if (o->resize == VLART_RESIZE_NONE && o->fit == VLART_FIT_STRETCH &&
      (o->crop_width != o->out_width || o->crop_height != o->out_height)) {
    return vlart_bad_argument(diag, call, "the sizes differ, and how to resize was not said");
  }
  if (o->resize == VLART_RESIZE_NONE && o->fit == VLART_FIT_PAD) {
    return vlart_bad_argument(diag, call, "padding needs a way of resizing");
  }
  return VLART_STATUS_OK;
}

static vlart_camera_t *take_camera(const vlart_camera_options_t *o, vlart_arena_t *arena,
                                   double **out_scratch) {
  vlart_camera_t measured = {0};
  vlart_camera_t *camera = vlart_arena_take(arena, 1, sizeof *camera);
  vlart_camera_t *c = camera != NULL ? camera : &measured;
  extent_t crop = {o->crop_width, o->crop_height}, out = {o->out_width, o->out_height};
  c->options = *o;
  c->inside = o->fit == VLART_FIT_PAD ? fitting(crop, out) : out;
  vlart_axis_take(&c->columns, crop.width, c->inside.width, o->resize, arena);
  vlart_axis_take(&c->rows, crop.height, c->inside.height, o->resize, arena);
  c->decoded =
      vlart_arena_take(arena, o->pixels == VLART_PIXELS_JPEG ? (size_t)o->width * o->height : 0, 3);
  c->row = vlart_arena_take(arena, crop.width, o->channels);
  c->between = vlart_arena_take(arena, (size_t)crop.height * c->inside.width, o->channels);
  size_t wide = (size_t)c->columns.out * c->columns.taps, high = (size_t)c->rows.out * c->rows.taps;
  *out_scratch = vlart_arena_take(arena, wide > high ? wide : high, sizeof **out_scratch);
  return arena->full ? NULL : camera;
}

vlart_status_t vlart_camera_required_bytes(const vlart_camera_options_t *options,
                                           vlart_diag_t *diag, size_t *out_bytes) {
  const char *call = "vlart_camera_required_bytes";
  vlart_camera_options_t chosen = {0};
  if (out_bytes == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  vlart_status_t status = read_options(options, call, diag, &chosen);
  if (status == VLART_STATUS_OK) {
    vlart_arena_t arena;
    double *unused;
    vlart_arena_measure(&arena);
    take_camera(&chosen, &arena, &unused);
    *out_bytes = vlart_arena_required(&arena);
  }
  return status;
}

vlart_status_t vlart_camera_init(const vlart_camera_options_t *options, void *arena_base,
                                 size_t arena_bytes, vlart_diag_t *diag,
                                 vlart_camera_t **out_camera) {
  const char *call = "vlart_camera_init";
  vlart_camera_options_t chosen = {0};
  if (out_camera == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  *out_camera = NULL;
  vlart_status_t status = read_options(options, call, diag, &chosen);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_arena_t arena;
  double *scratch = NULL;
  vlart_arena_place(&arena, arena_base, arena_bytes);
  vlart_camera_t *camera = take_camera(&chosen, &arena, &scratch);
  if (camera == NULL) {
    vlart_arena_measure(&arena);
    take_camera(&chosen, &arena, &scratch);
    return vlart_arena_too_small(diag, call, vlart_arena_required(&arena), arena_bytes);
  }
  vlart_axis_fill(&camera->columns, chosen.resize, scratch);
  vlart_axis_fill(&camera->rows, chosen.resize, scratch);
  if (chosen.pixels == VLART_PIXELS_JPEG) {
    status = vlart_jpeg_open(&camera->jpeg, chosen.jpeg_library, diag);
  }
  *out_camera = status == VLART_STATUS_OK ? camera : NULL;
  return status;
}

static vlart_status_t too_short(uint32_t plane, size_t has, size_t needs, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_WRONG_SHAPE, "the frame is shorter than the camera's size", NULL);
  vlart_where(diag, "plane %u of the frame", plane);
  vlart_why(diag, "it has %zu bytes, and its rows take %zu", has, needs);
  vlart_fix(diag, "give all rows, and the stride that the driver says");
  return VLART_STATUS_WRONG_SHAPE;
}

static vlart_status_t read_frame(const vlart_camera_t *camera, const vlart_frame_t *frame,
                                 vlart_pixel_source_t *source, vlart_diag_t *diag) {
  const vlart_camera_options_t *o = &camera->options;
  const char *call = "vlart_camera_convert";
  *source = (vlart_pixel_source_t){o->pixels, o->colours, o->channels, {NULL}, {0}};
  for (uint32_t p = 0; p < vlart_pixels_planes(o->pixels); p++) {
    size_t row = vlart_pixels_row_bytes(source, p, o->width);
    size_t rows = vlart_pixels_rows(p, o->height);
    size_t stride = frame->strides[p] != 0 ? frame->strides[p] : row;
    if (frame->planes[p] == NULL) {
      return vlart_bad_argument(diag, call, "a plane is NULL");
    }
    if (stride < row) {
      return vlart_bad_argument(diag, call, "a stride is shorter than its row");
    }
    if (frame->bytes[p] < row || (rows > 1 && (frame->bytes[p] - row) / (rows - 1) < stride)) {
      return too_short(p, frame->bytes[p], row + (rows - 1) * row, diag);
    }
    source->planes[p] = frame->planes[p];
    source->strides[p] = stride;
  }
  return VLART_STATUS_OK;
}

static void convert(vlart_camera_t *camera, const vlart_pixel_source_t *source, uint8_t *out) {
  const vlart_camera_options_t *o = &camera->options;
  size_t wide = o->channels * (size_t)camera->inside.width;
  size_t stride = o->channels * (size_t)o->out_width;
  uint32_t top = (o->out_height - camera->inside.height) / 2;
  uint32_t left = (o->out_width - camera->inside.width) / 2;
  bool padded = wide != stride || camera->inside.height != o->out_height;
  if (padded) {
    memset(out, 0, stride * o->out_height);
  }
  for (uint32_t y = 0; y < o->crop_height; y++) {
    const uint8_t *row =
        vlart_pixels_row(source, o->crop_y + y, o->crop_x, o->crop_width, camera->row);
    vlart_axis_row(&camera->columns, row, o->channels, camera->between + y * wide);
  }
  for (uint32_t y = 0; y < camera->inside.height; y++) {
    vlart_axis_column(&camera->rows, y, camera->between, wide,
                      out + (top + y) * stride + o->channels * (size_t)left);
  }
}

vlart_status_t vlart_camera_convert(vlart_camera_t *camera, const vlart_frame_t *frame,
                                    uint8_t *out, size_t out_bytes, vlart_diag_t *diag) {
  const char *call = "vlart_camera_convert";
  if (camera == NULL || frame == NULL || out == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  if (frame->struct_size < sizeof *frame) {
    return vlart_bad_argument(diag, call, "struct_size of the frame is not set");
  }
  const vlart_camera_options_t *o = &camera->options;
  if (out_bytes != o->channels * (size_t)o->out_width * o->out_height) {
    return vlart_bad_argument(diag, call, "`out` has not out_height * out_width * channels bytes");
  }
  vlart_pixel_source_t source = {
      VLART_PIXELS_RGB8, 0, 3, {camera->decoded}, {3 * (size_t)o->width}};
  vlart_status_t status;
  if (o->pixels == VLART_PIXELS_JPEG) {
    status = frame->planes[0] == NULL
                 ? vlart_bad_argument(diag, call, "a plane is NULL")
                 : vlart_jpeg_decode(&camera->jpeg, frame->planes[0], frame->bytes[0], o->width,
                                     o->height, camera->decoded, diag);
  } else {
    status = read_frame(camera, frame, &source, diag);
  }
  if (status == VLART_STATUS_OK) {
    convert(camera, &source, out);
  }
  return status;
}

void vlart_camera_close(vlart_camera_t *camera) {
  if (camera != NULL) {
    vlart_jpeg_close(&camera->jpeg);
  }
}
