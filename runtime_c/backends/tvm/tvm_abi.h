/* The part of tvm-ffi's C ABI that this backend calls, declared by layout.

   libtvm_ffi exports plain C functions; a value is sixteen bytes, an object a counted header with
   its content behind it. libtvm_runtime registers the functions that load a compiled stage, which
   are found by name. These declarations were executed against tvm-ffi 0.1.14 and TVM 0.27 on
   x86-64 and aarch64, for GPUs on a double of CUDA's libraries; tensors are DLPack's. */
#ifndef VLART_TVM_ABI_H
#define VLART_TVM_ABI_H

#include <stddef.h>
#include <stdint.h>

/* Type of a value. */
enum {
  TVM_NONE = 0,
  TVM_INT = 1,
  TVM_BOOL = 2,
  TVM_POINTER = 4, /* an address, not owned */
  TVM_ELEMENT = 5, /* element type */
  TVM_DEVICE = 6,
  TVM_STRING = 8,   /* const char *, not owned */
  TVM_OBJECTS = 64, /* from here on the value is an object, and one reference to it */
  TVM_FUNCTION = 68,
  TVM_SHAPE = 69,
  TVM_TENSOR = 70,
  TVM_ARRAY = 71,
  TVM_MODULE = 73,
};

typedef struct {
  uint8_t kind; /* 0 signed, 1 unsigned, 2 floating point, 6 boolean */
  uint8_t bits;
  uint16_t lanes;
} tvm_element_t;

typedef struct {
  int32_t type;
  int32_t id;
} tvm_device_t;

typedef struct {
  int32_t type;
  uint32_t zero;
  union {
    int64_t integer;
    const char *string;
    const void *pointer;
    void *object;
    tvm_element_t element;
    tvm_device_t device;
  } as;
} tvm_value_t;

typedef struct {
  const char *data;
  size_t bytes;
} tvm_text_t;

typedef struct {
  uint64_t references;
  int32_t type;
  uint32_t padding;
  void (*deleter)(void *self, int flags);
} tvm_object_t;

typedef struct {
  tvm_object_t header;
  tvm_text_t kind;
  tvm_text_t message;
} tvm_error_t;

enum { TVM_CPU = 1, TVM_CUDA = 2 };
enum { TVM_POOLED = 2 }; /* how a stage allocates */

typedef struct {
  void *data;
  tvm_device_t device;
  int32_t rank;
  tvm_element_t element;
  int64_t *dims;
  int64_t *strides; /* NULL: dense */
  uint64_t offset;
} tvm_tensor_t;

typedef struct {
  tvm_object_t header;
  tvm_tensor_t tensor;
} tvm_tensor_object_t;

typedef struct tvm_lent tvm_lent_t;
struct tvm_lent { /* memory of ours that the library may refer to */
  tvm_tensor_t tensor;
  void *owner;
  void (*deleter)(tvm_lent_t *self);
};

_Static_assert(sizeof(tvm_value_t) == 16 && sizeof(tvm_object_t) == 24, "tvm-ffi's layout");
_Static_assert(sizeof(tvm_tensor_t) == 48 && offsetof(tvm_lent_t, deleter) == 56,
               "DLPack's layout");

/* All return 0, or -1 with the error raised. */
typedef struct {
  int (*get_global)(const tvm_text_t *name, void **out_function);
  int (*call)(void *function, tvm_value_t *arguments, int32_t count, tvm_value_t *out_result);
  int (*from_lent)(tvm_lent_t *lent, int32_t alignment, int32_t contiguous, void **out_tensor);
  int (*release)(void *object);
  void (*take_error)(void **out_error);
} tvm_api_t;

#endif
