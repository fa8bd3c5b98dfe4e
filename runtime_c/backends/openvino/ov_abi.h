/* The part of OpenVINO's C interface that this backend calls, declared by name.

   Executed against 2026.4.1 on x86-64. The numbers of its element types are not the same in all
   versions (one at the head of the list left with 2025), so an older library is refused, and a
   tensor's size is compared with the plan's. */
#ifndef VLART_OV_ABI_H
#define VLART_OV_ABI_H

#include <stddef.h>
#include <stdint.h>

#define OV_OLDEST_YEAR 2026

typedef struct OvCore OvCore;
typedef struct OvModel OvModel;
typedef struct OvCompiledModel OvCompiledModel;
typedef struct OvRequest OvRequest;
typedef struct OvTensor OvTensor;
typedef struct OvPort OvPort;

typedef struct {
  int64_t rank;
  int64_t *dims;
} OvShape;

typedef struct {
  const char *build; /* "2026.4.1-22161-..." */
  const char *description;
} OvVersion;

enum {
  OV_BOOLEAN = 1,
  OV_BF16 = 2,
  OV_F16 = 3,
  OV_F32 = 4,
  OV_F64 = 5,
  OV_I8 = 7,
  OV_I32 = 9,
  OV_I64 = 10,
  OV_U8 = 16
};

/* OV(name, result, parameters): the functions. A status is 0 or a reason that last_error has in words. */
#define OV_FUNCTIONS(OV)                                                                           \
  OV(get_openvino_version, int, (OvVersion *))                                                     \
  OV(version_free, void, (OvVersion *))                                                            \
  OV(get_last_err_msg, const char *, (void))                                                       \
  OV(free, void, (const char *))                                                                   \
  OV(core_create, int, (OvCore **))                                                                \
  OV(core_free, void, (OvCore *))                                                                  \
  OV(core_read_model, int, (const OvCore *, const char *path, const char *weights, OvModel **))    \
  OV(model_free, void, (OvModel *))                                                                \
  OV(core_compile_model, int,                                                                      \
     (const OvCore *, const OvModel *, const char *device, size_t words, OvCompiledModel **, ...)) \
  OV(compiled_model_free, void, (OvCompiledModel *))                                               \
  OV(compiled_model_inputs_size, int, (const OvCompiledModel *, size_t *))                         \
  OV(compiled_model_outputs_size, int, (const OvCompiledModel *, size_t *))                        \
  OV(compiled_model_input_by_index, int, (const OvCompiledModel *, size_t, OvPort **))             \
  OV(compiled_model_output_by_index, int, (const OvCompiledModel *, size_t, OvPort **))            \
  OV(compiled_model_input_by_name, int, (const OvCompiledModel *, const char *, OvPort **))        \
  OV(compiled_model_output_by_name, int, (const OvCompiledModel *, const char *, OvPort **))       \
  OV(port_get_any_name, int, (const OvPort *, char **))                                            \
  OV(port_get_element_type, int, (const OvPort *, int *))                                          \
  OV(const_port_get_shape, int, (const OvPort *, OvShape *))                                       \
  OV(shape_free, int, (OvShape *))                                                                 \
  OV(output_const_port_free, void, (OvPort *))                                                     \
  OV(tensor_create_from_host_ptr, int, (int type, OvShape, void *data, OvTensor **))               \
  OV(tensor_get_byte_size, int, (const OvTensor *, size_t *))                                      \
  OV(tensor_free, void, (OvTensor *))                                                              \
  OV(compiled_model_create_infer_request, int, (const OvCompiledModel *, OvRequest **))            \
  OV(infer_request_set_input_tensor_by_index, int, (OvRequest *, size_t, const OvTensor *))        \
  OV(infer_request_set_output_tensor_by_index, int, (OvRequest *, size_t, const OvTensor *))       \
  OV(infer_request_infer, int, (OvRequest *))                                                      \
  OV(infer_request_free, void, (OvRequest *))

typedef struct {
#define OV_MEMBER(name, result, parameters) result(*name) parameters;
  OV_FUNCTIONS(OV_MEMBER)
#undef OV_MEMBER
} ov_api_t;

#endif
