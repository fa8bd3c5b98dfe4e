/* The struct_size rule of every public struct. */

#include "base/struct_size.h"

#include <string.h>

#include "base/diag.h"

vlart_status_t vlart_copy_out(void *out, const void *full, size_t bytes) {
  return vlart_copy_out_since(out, full, bytes, bytes);
}

vlart_status_t vlart_copy_out_since(void *out, const void *full, size_t oldest, size_t bytes) {
  size_t given;
  if (out == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  memcpy(&given, out, sizeof given);
  if (given < oldest) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  memset(out, 0, given);
  memcpy(out, full, given < bytes ? given : bytes);
  memcpy(out, &given, sizeof given);
  return VLART_STATUS_OK;
}

vlart_status_t vlart_copy_in(void *options, size_t oldest, size_t bytes, const void *in,
                             const char *call, vlart_diag_t *diag) {
  memset(options, 0, bytes);
  if (in == NULL) {
    return VLART_STATUS_OK;
  }
  size_t given;
  memcpy(&given, in, sizeof given);
  if (given < oldest) {
    return vlart_bad_argument(diag, call, "struct_size of the options is too small or not set");
  }
  for (size_t i = bytes; i < given; i++) {
    if (((const uint8_t *)in)[i] != 0) {
      return vlart_bad_argument(diag, call, "an option is set that this library does not know");
    }
  }
  memcpy(options, in, given < bytes ? given : bytes);
  return VLART_STATUS_OK;
}
