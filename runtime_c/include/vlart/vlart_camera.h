/* Part of vlart.h: a camera's frame as the policy wants it, u8 [height,width,channels], mostly RGB.

   Cameras give other orders of bytes, other sizes, padded rows, or JPEG; policies were trained behind one particular way
   of resizing. A vlart_camera_t is one such way: it reads the frame once, where it lies (any memory that the processor
   can read: a driver's mapped buffer, pinned or unified memory), and writes the result once, to where
   vlart_session_write or vlart_tensor_t takes it from. Resizing gives the bytes that torchvision's resize gives of a
   byte image (`antialias=True`), and JPEG what libjpeg-turbo gives. Phases, ownership and structs are as in vlart.h;
   cameras of several threads do not know each other. */
#ifndef VLART_CAMERA_H
#define VLART_CAMERA_H

#include "vlart/vlart.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VLART_MAX_CAMERA_SIDE 16384u /* pixels, of a frame and of what is made of it */
#define VLART_MAX_PLANES 3u

typedef struct vlart_camera vlart_camera_t; /* opaque, lives in a caller's arena */

/* How a frame's bytes stand. Planes in this order: one; for NV12 and NV21 luma, then both chromas; for I420 Y, U, V. */
enum {
  VLART_PIXELS_RGB8 = 0,
  VLART_PIXELS_BGR8 = 1,
  VLART_PIXELS_RGBA8 = 2,
  VLART_PIXELS_BGRA8 = 3,
  VLART_PIXELS_GRAY8 = 4,
  VLART_PIXELS_YUYV = 5,
  VLART_PIXELS_UYVY = 6,
  VLART_PIXELS_NV12 = 7,
  VLART_PIXELS_NV21 = 8,
  VLART_PIXELS_I420 = 9,
  VLART_PIXELS_JPEG = 10, /* also a camera's MJPEG; needs libturbojpeg */
  VLART_PIXELS_AS_IS = 11 /* `channels` bytes per pixel that are resized and nothing else */
};

/* What luma and chroma mean; of no account for the others. */
enum {
  VLART_COLOURS_BT601 = 0, /* luma 16..235: most cameras */
  VLART_COLOURS_BT601_FULL = 1,
  VLART_COLOURS_BT709 = 2, /* HD cameras that say so */
  VLART_COLOURS_BT709_FULL = 3
};

/* torchvision's interpolation modes, BILINEAR and BICUBIC antialiased. BILINEAR_PLAIN is not: torch's interpolate without
   `antialias`. NONE: sizes must be equal. */
enum {
  VLART_RESIZE_NONE = 0,
  VLART_RESIZE_BILINEAR = 1,
  VLART_RESIZE_BICUBIC = 2,
  VLART_RESIZE_NEAREST = 3,
  VLART_RESIZE_NEAREST_EXACT = 4,
  VLART_RESIZE_BILINEAR_PLAIN = 5
};

/* PAD keeps the proportions; black on both sides fills the rest. */
enum { VLART_FIT_STRETCH = 0, VLART_FIT_PAD = 1 };

typedef struct {
  size_t struct_size;
  uint32_t pixels;  /* VLART_PIXELS_... */
  uint32_t colours; /* VLART_COLOURS_... */
  uint32_t width;   /* of the camera's frames, pixels */
  uint32_t height;
  uint32_t crop_x; /* the part that is looked at, before it is resized */
  uint32_t crop_y;
  uint32_t crop_width; /* 0, and the height too: all that is right of and below crop_x, crop_y */
  uint32_t crop_height;
  uint32_t resize;    /* VLART_RESIZE_... */
  uint32_t fit;       /* VLART_FIT_... */
  uint32_t out_width; /* of the policy's source, pixels */
  uint32_t out_height;
  uint32_t channels; /* of AS_IS, 1 to 4; 0 otherwise: three come out */
  uint32_t reserved;
  const char *jpeg_library; /* path of libturbojpeg.so.0; NULL: the loader's */
} vlart_camera_options_t;

/* One frame. strides: bytes from a row to the next one; 0: the rows are dense. bytes: of each plane, which may be longer
   than its rows; of a JPEG the length of the file. */
typedef struct {
  size_t struct_size;
  const void *planes[VLART_MAX_PLANES];
  size_t strides[VLART_MAX_PLANES];
  size_t bytes[VLART_MAX_PLANES];
} vlart_frame_t;

/* [init] Bytes of arena that vlart_camera_init needs. */
VLART_API vlart_status_t vlart_camera_required_bytes(const vlart_camera_options_t *options,
                                                     vlart_diag_t *diag, size_t *out_bytes);

/* [init] Computes the weights of every row and column; for JPEG loads the library (BACKEND_MISSING without it). */
VLART_API vlart_status_t vlart_camera_init(const vlart_camera_options_t *options, void *arena,
                                           size_t arena_bytes, vlart_diag_t *diag,
                                           vlart_camera_t **out_camera);

/* [tick] `out`: exactly out_height * out_width * channels bytes. A frame that is too short for the camera's size, or a JPEG that
   is damaged or of another size, gives WRONG_SHAPE or CORRUPT, and `out` is not to be used. libturbojpeg allocates inside
   itself; nothing else here does. The camera's thread. */
VLART_API vlart_status_t vlart_camera_convert(vlart_camera_t *camera, const vlart_frame_t *frame,
                                              uint8_t *out, size_t out_bytes, vlart_diag_t *diag);

/* Releases the library. NULL is allowed. */
VLART_API void vlart_camera_close(vlart_camera_t *camera);

#ifdef __cplusplus
}
#endif

#endif
