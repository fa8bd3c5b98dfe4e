/* Cameras of any kind and size, from buffers of exactly the bytes that they need: no byte beyond is read or written (run
   under AddressSanitizer), rows with room between them give what dense rows give, a crop gives what a frame of that part
   gives, and what does not fit is refused. Nothing is allocated in a frame. Values are compared with torchvision,
   OpenCV's formula and Pillow in tests/runtime/test_camera.py. Usage: test_camera */
#include <stdbool.h>
#include <string.h>

#include "check.h"
#include "count_allocations.h"
#include "vlart/vlart_camera.h"

enum { ROUNDS = 3000, MOST = 41, PLAIN_KINDS = VLART_PIXELS_JPEG };

static _Thread_local vlart_diag_t diag = {.struct_size = sizeof(vlart_diag_t)};
static uint64_t dice_state = 88172645463325252u;

static uint32_t dice(uint32_t below) {
  dice_state ^= dice_state << 13;
  dice_state ^= dice_state >> 7;
  dice_state ^= dice_state << 17;
  return (uint32_t)((dice_state >> 11) % below);
}

typedef struct {
  vlart_camera_t *camera;
  void *arena;
} opened_t;

static opened_t open_camera(const vlart_camera_options_t *options) {
  opened_t o = {0};
  size_t bytes = 0;
  CHECK_STATUS(vlart_camera_required_bytes(options, &diag, &bytes), OK);
  o.arena = test_take(bytes);
  CHECK_STATUS(vlart_camera_init(options, o.arena, bytes - 64, &diag, &o.camera), OUT_OF_MEMORY);
  CHECK(o.camera == NULL);
  CHECK_STATUS(vlart_camera_init(options, o.arena, bytes, &diag, &o.camera), OK);
  return o;
}

static void close_camera(opened_t *o) {
  vlart_camera_close(o->camera);
  test_give(o->arena);
}

static size_t planes_of(uint32_t pixels) {
  return pixels == VLART_PIXELS_I420                                  ? 3
         : pixels >= VLART_PIXELS_NV12 && pixels <= VLART_PIXELS_NV21 ? 2
                                                                      : 1;
}

/* Bytes of a row of a plane, by the documents of the formats and not by the code that is tested. */
static size_t row_of(const vlart_camera_options_t *o, size_t plane) {
  size_t width = o->width, half = (width + 1) / 2;
  switch (o->pixels) {
    case VLART_PIXELS_RGB8:
    case VLART_PIXELS_BGR8: return 3 * width;
    case VLART_PIXELS_RGBA8:
    case VLART_PIXELS_BGRA8: return 4 * width;
    case VLART_PIXELS_YUYV:
    case VLART_PIXELS_UYVY: return 4 * half;
    case VLART_PIXELS_NV12:
    case VLART_PIXELS_NV21: return plane == 0 ? width : 2 * half;
    case VLART_PIXELS_I420: return plane == 0 ? width : half;
    case VLART_PIXELS_AS_IS: return width * o->channels;
    default: return width;
  }
}

static vlart_camera_options_t any_options(void) {
  vlart_camera_options_t o = {.struct_size = sizeof o};
  o.pixels = dice(PLAIN_KINDS + 1);
  o.pixels = o.pixels == VLART_PIXELS_JPEG ? VLART_PIXELS_AS_IS : o.pixels;
  o.channels = o.pixels == VLART_PIXELS_AS_IS ? 1 + dice(4) : 0;
  o.colours = dice(4);
  o.width = 1 + dice(MOST);
  o.height = 1 + dice(MOST);
  if (dice(2) == 0) {
    o.crop_x = dice(o.width);
    o.crop_y = dice(o.height);
    o.crop_width = 1 + dice(o.width - o.crop_x);
    o.crop_height = 1 + dice(o.height - o.crop_y);
  }
  o.resize = dice(6);
  o.fit = o.resize == VLART_RESIZE_NONE ? VLART_FIT_STRETCH : dice(2);
  bool same = o.resize == VLART_RESIZE_NONE;
  o.out_width = same ? (o.crop_width ? o.crop_width : o.width) : 1 + dice(MOST);
  o.out_height = same ? (o.crop_height ? o.crop_height : o.height) : 1 + dice(MOST);
  return o;
}

static vlart_frame_t dense_frame(const vlart_camera_options_t *o) {
  vlart_frame_t frame = {.struct_size = sizeof frame};
  for (size_t p = 0; p < planes_of(o->pixels); p++) {
    size_t rows = p == 0 ? o->height : (o->height + 1) / 2;
    frame.bytes[p] = rows * row_of(o, p);
    uint8_t *bytes = test_take(frame.bytes[p]);
    for (size_t i = 0; i < frame.bytes[p]; i++) {
      bytes[i] = (uint8_t)dice(256);
    }
    frame.planes[p] = bytes;
  }
  return frame;
}

/* The same rows with room between them, which ends with the last row. */
static vlart_frame_t spread_frame(const vlart_camera_options_t *o, const vlart_frame_t *dense) {
  vlart_frame_t frame = {.struct_size = sizeof frame};
  for (size_t p = 0; p < planes_of(o->pixels); p++) {
    size_t row = row_of(o, p), rows = dense->bytes[p] / row;
    frame.strides[p] = row + 1 + dice(9);
    frame.bytes[p] = (rows - 1) * frame.strides[p] + row;
    uint8_t *bytes = test_take(frame.bytes[p]);
    memset(bytes, 0xee, frame.bytes[p]);
    for (size_t y = 0; y < rows; y++) {
      memcpy(bytes + y * frame.strides[p], (const uint8_t *)dense->planes[p] + y * row, row);
    }
    frame.planes[p] = bytes;
  }
  return frame;
}

static void give_frame(const vlart_camera_options_t *o, vlart_frame_t *frame) {
  for (size_t p = 0; p < planes_of(o->pixels); p++) {
    test_give((void *)(uintptr_t)frame->planes[p]);
  }
}

static uint8_t *converted(vlart_camera_t *camera, const vlart_frame_t *frame, size_t bytes) {
  uint8_t *out = test_take(bytes);
  uint64_t before = own_allocations;
  CHECK_STATUS(vlart_camera_convert(camera, frame, out, bytes, &diag), OK);
  CHECK(own_allocations == before);
  return out;
}

static size_t out_bytes(const vlart_camera_options_t *o) {
  size_t channels = o->pixels == VLART_PIXELS_AS_IS ? o->channels : 3;
  return channels * o->out_width * o->out_height;
}

static void test_any(void) {
  for (int round = 0; round < ROUNDS; round++) {
    vlart_camera_options_t o = any_options();
    opened_t camera = open_camera(&o);
    vlart_frame_t dense = dense_frame(&o), spread = spread_frame(&o, &dense);
    uint8_t *a = converted(camera.camera, &dense, out_bytes(&o));
    uint8_t *b = converted(camera.camera, &spread, out_bytes(&o));
    CHECK(memcmp(a, b, out_bytes(&o)) == 0);
    size_t plane = dice((uint32_t)planes_of(o.pixels));
    dense.bytes[plane]--;
    CHECK_STATUS(vlart_camera_convert(camera.camera, &dense, a, out_bytes(&o), &diag), WRONG_SHAPE);
    dense.bytes[plane]++;
    spread.strides[plane] = row_of(&o, plane) - 1;
    if (spread.strides[plane] > 0) {
      CHECK_STATUS(vlart_camera_convert(camera.camera, &spread, a, out_bytes(&o), &diag),
                   BAD_ARGUMENT);
    }
    spread.strides[plane] = SIZE_MAX;
    if (dense.bytes[plane] > row_of(&o, plane)) {
      CHECK_STATUS(vlart_camera_convert(camera.camera, &spread, a, out_bytes(&o), &diag),
                   WRONG_SHAPE);
    }
    give_frame(&o, &dense);
    give_frame(&o, &spread);
    test_give(a);
    test_give(b);
    close_camera(&camera);
  }
}

/* Of pixels that do not share a chroma: RGB. */
static void test_crop(void) {
  for (int round = 0; round < ROUNDS / 10; round++) {
    vlart_camera_options_t o = any_options();
    o.pixels = VLART_PIXELS_RGB8;
    o.channels = 0;
    opened_t whole = open_camera(&o);
    vlart_camera_options_t part = o;
    part.width = o.crop_width ? o.crop_width : o.width;
    part.height = o.crop_height ? o.crop_height : o.height;
    part.crop_x = part.crop_y = part.crop_width = part.crop_height = 0;
    opened_t alone = open_camera(&part);
    vlart_frame_t frame = dense_frame(&o);
    vlart_frame_t inside = frame;
    size_t begin = 3 * ((size_t)o.crop_y * o.width + o.crop_x);
    inside.planes[0] = (const uint8_t *)frame.planes[0] + begin;
    inside.strides[0] = 3 * (size_t)o.width;
    inside.bytes[0] = frame.bytes[0] - begin;
    uint8_t *a = converted(whole.camera, &frame, out_bytes(&o));
    uint8_t *b = converted(alone.camera, &inside, out_bytes(&o));
    CHECK(memcmp(a, b, out_bytes(&o)) == 0);
    give_frame(&o, &frame);
    test_give(a);
    test_give(b);
    close_camera(&whole);
    close_camera(&alone);
  }
}

typedef struct {
  const char *why;
  vlart_camera_options_t options;
} refused_t;

#define SIZES .struct_size = sizeof(vlart_camera_options_t), .width = 8, .height = 6

static const refused_t REFUSED[] = {
    {"a size of 0", {SIZES, .out_width = 8}},
    {"beyond the largest", {SIZES, .out_width = 16385, .out_height = 6, .resize = 1}},
    {"other sizes and no resize", {SIZES, .out_width = 8, .out_height = 5}},
    {"padding without one", {SIZES, .out_width = 8, .out_height = 6, .fit = 1}},
    {"a crop beyond the frame",
     {SIZES, .crop_x = 1, .crop_width = 8, .crop_height = 6, .out_width = 8, .out_height = 6}},
    {"a crop that wraps",
     {SIZES, .crop_x = UINT32_MAX, .crop_width = 2, .crop_height = 6, .out_width = 2,
      .out_height = 6}},
    {"a crop without a height", {SIZES, .crop_width = 8, .out_width = 8, .out_height = 6}},
    {"unknown pixels", {SIZES, .pixels = 12, .out_width = 8, .out_height = 6}},
    {"an unknown resize", {SIZES, .resize = 6, .out_width = 8, .out_height = 6}},
    {"channels of RGB", {SIZES, .channels = 3, .out_width = 8, .out_height = 6}},
    {"no channels as they are", {SIZES, .pixels = 11, .out_width = 8, .out_height = 6}},
    {"five channels", {SIZES, .pixels = 11, .channels = 5, .out_width = 8, .out_height = 6}},
};

static void test_refused(void) {
  size_t bytes = 0;
  CHECK_STATUS(vlart_camera_required_bytes(NULL, &diag, &bytes), BAD_ARGUMENT);
  for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
    vlart_status_t status = vlart_camera_required_bytes(&REFUSED[i].options, &diag, &bytes);
    if (status != VLART_STATUS_BAD_ARGUMENT) {
      fprintf(stderr, "%s is taken\n", REFUSED[i].why);
      exit(1);
    }
  }
  vlart_camera_options_t o = {SIZES, .out_width = 8, .out_height = 6};
  opened_t camera = open_camera(&o);
  uint8_t frame_bytes[144] = {0}, out[145];
  vlart_frame_t frame = {sizeof frame, {frame_bytes}, {0}, {sizeof frame_bytes}};
  CHECK_STATUS(vlart_camera_convert(camera.camera, &frame, out, 145, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_camera_convert(camera.camera, &frame, NULL, 144, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_camera_convert(camera.camera, NULL, out, 144, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_camera_convert(camera.camera, &frame, out, 144, &diag), OK);
  frame.planes[0] = NULL;
  CHECK_STATUS(vlart_camera_convert(camera.camera, &frame, out, 144, &diag), BAD_ARGUMENT);
  frame.struct_size = 0;
  CHECK_STATUS(vlart_camera_convert(camera.camera, &frame, out, 144, &diag), BAD_ARGUMENT);
  close_camera(&camera);
  vlart_camera_close(NULL);
  o.pixels = VLART_PIXELS_JPEG;
  o.jpeg_library = "/nowhere/libturbojpeg.so.0";
  CHECK_STATUS(vlart_camera_required_bytes(&o, &diag, &bytes), OK);
  void *arena = test_take(bytes);
  CHECK_STATUS(vlart_camera_init(&o, arena, bytes, &diag, &camera.camera), NO_BACKEND);
  CHECK(strstr(diag.where, "/nowhere") != NULL && strstr(diag.fix, "libturbojpeg") != NULL);
  test_give(arena);
}

int main(void) {
  test_refused();
  test_any();
  test_crop();
  printf("test_camera: passed\n");
  return 0;
}
