/* The engines of this build. A new backend adds its vtable here and its files to the Makefile. */
#include "backend.h"

extern const vlart_backend_t vlart_backend_onnxruntime;

static const vlart_backend_t *const builtin[] = {&vlart_backend_onnxruntime};

const vlart_backend_t *const *vlart_builtin_backends(size_t *out_count) {
  *out_count = sizeof builtin / sizeof builtin[0];
  return builtin;
}
