/* The tables of the engines that this build has; builtin.c lists them. */
#ifndef VLART_BUILTIN_H
#define VLART_BUILTIN_H

#include "bundle/backend.h"

extern const vlart_backend_t vlart_backend_library;
extern const vlart_backend_t vlart_backend_onnxruntime;
extern const vlart_backend_t vlart_backend_openvino;
extern const vlart_backend_t vlart_backend_tensorrt;
extern const vlart_backend_t vlart_backend_tvm;
extern const vlart_backend_t vlart_backend_tvm_cuda;

#endif
