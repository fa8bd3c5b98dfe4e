#include "camera/jpeg.h"

#include <dlfcn.h>
#include <string.h>

#include "base/diag.h"

#define DEFAULT_LIBRARY "libturbojpeg.so.0"

/* Of turbojpeg.h, where they are part of its ABI since version 1. */
enum { PIXELS_RGB = 0, LIMIT_SCANS = 32768 };

static vlart_status_t no_library(const char *path, const char *why, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_NO_BACKEND, "libturbojpeg cannot be loaded",
             "apt install libturbojpeg (Debian: libturbojpeg0), or have the camera send another "
             "format");
  vlart_where(diag, "%s", path);
  vlart_why(diag, "%s", why != NULL ? why : "the loader gives no reason");
  return VLART_STATUS_NO_BACKEND;
}

static void *symbol(const vlart_jpeg_t *jpeg, const char *name, bool *complete) {
  void *found = dlsym(jpeg->library, name);
  *complete = *complete && found != NULL;
  return found;
}

vlart_status_t vlart_jpeg_open(vlart_jpeg_t *jpeg, const char *path, vlart_diag_t *diag) {
  path = path != NULL ? path : DEFAULT_LIBRARY;
  *jpeg = (vlart_jpeg_t){.library = dlopen(path, RTLD_NOW | RTLD_LOCAL)};
  if (jpeg->library == NULL) {
    return no_library(path, dlerror(), diag);
  }
  bool complete = true;
  void *begin = symbol(jpeg, "tjInitDecompress", &complete);
  void *header = symbol(jpeg, "tjDecompressHeader3", &complete);
  void *decompress = symbol(jpeg, "tjDecompress2", &complete);
  void *error = symbol(jpeg, "tjGetErrorStr2", &complete);
  void *destroy = symbol(jpeg, "tjDestroy", &complete);
  if (!complete) {
    vlart_jpeg_close(jpeg);
    return no_library(path, "it is not libturbojpeg, or older than version 2", diag);
  }
  memcpy(&jpeg->make_decoder, &begin, sizeof begin);
  memcpy(&jpeg->read_header, &header, sizeof header);
  memcpy(&jpeg->decompress, &decompress, sizeof decompress);
  memcpy(&jpeg->error, &error, sizeof error);
  memcpy(&jpeg->destroy, &destroy, sizeof destroy);
  jpeg->decoder = jpeg->make_decoder();
  if (jpeg->decoder == NULL) {
    vlart_jpeg_close(jpeg);
    return no_library(path, "it makes no decoder", diag);
  }
  return VLART_STATUS_OK;
}

void vlart_jpeg_close(vlart_jpeg_t *jpeg) {
  if (jpeg->decoder != NULL) {
    jpeg->destroy(jpeg->decoder);
  }
  if (jpeg->library != NULL) {
    dlclose(jpeg->library);
  }
  *jpeg = (vlart_jpeg_t){0};
}

/* The library's decoder goes on with what it had read of a damaged frame's tables: the next one gets another. */
static void forget(vlart_jpeg_t *jpeg) {
  jpeg->destroy(jpeg->decoder);
  jpeg->decoder = NULL;
}

static vlart_status_t damaged(vlart_jpeg_t *jpeg, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_CORRUPT, "the JPEG cannot be decoded",
             "drop the frame; look at the camera's cable if it happens often");
  vlart_where(diag, "frame");
  vlart_why(diag, "%s", jpeg->error(jpeg->decoder));
  forget(jpeg);
  return VLART_STATUS_CORRUPT;
}

/* Bytes between two markers change no pixel, and many cameras write some. Whatever else the library warns of, it fills
   what it could not read with grey. */
static bool is_harmless(const char *warning) {
  return strstr(warning, "extraneous bytes before marker") != NULL;
}

vlart_status_t vlart_jpeg_decode(vlart_jpeg_t *jpeg, const void *data, size_t bytes, uint32_t width,
                                 uint32_t height, uint8_t *rgb, vlart_diag_t *diag) {
  if (jpeg->decoder == NULL) {
    jpeg->decoder = jpeg->make_decoder();
  }
  if (jpeg->decoder == NULL) {
    vlart_fail(diag, VLART_STATUS_OUT_OF_MEMORY, "libturbojpeg makes no decoder", "free memory");
    vlart_where(diag, "frame");
    return VLART_STATUS_OUT_OF_MEMORY;
  }
  int found_width = 0, found_height = 0, sampling = 0, colours = 0;
  if (jpeg->read_header(jpeg->decoder, data, bytes, &found_width, &found_height, &sampling,
                        &colours) != 0) {
    return damaged(jpeg, diag);
  }
  if (found_width != (int)width || found_height != (int)height) {
    vlart_fail(diag, VLART_STATUS_WRONG_SHAPE, "the frame has another size", NULL);
    vlart_where(diag, "frame");
    vlart_why(diag, "the JPEG has %u x %u pixels, the camera %u x %u", (unsigned)found_width,
              (unsigned)found_height, width, height);
    vlart_fix(diag, "make the camera with the size that it sends");
    forget(jpeg);
    return VLART_STATUS_WRONG_SHAPE;
  }
  if (jpeg->decompress(jpeg->decoder, data, bytes, rgb, (int)width, (int)(3 * width), (int)height,
                       PIXELS_RGB, LIMIT_SCANS) != 0 &&
      !is_harmless(jpeg->error(jpeg->decoder))) {
    return damaged(jpeg, diag);
  }
  return VLART_STATUS_OK;
}
