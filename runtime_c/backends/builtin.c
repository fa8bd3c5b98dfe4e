/* The engines of this build. A new backend adds its vtable here and its files to the Makefile. */
#include "builtin.h"

static const vlart_backend_t *const builtin[] = {
    &vlart_backend_onnxruntime, &vlart_backend_openvino, &vlart_backend_tensorrt,
    &vlart_backend_tvm,         &vlart_backend_tvm_cuda, &vlart_backend_library};

const vlart_backend_t *const *vlart_builtin_backends(size_t *out_count) {
  *out_count = sizeof builtin / sizeof builtin[0];
  return builtin;
}
