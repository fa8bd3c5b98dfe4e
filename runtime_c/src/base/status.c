/* Names and sentences of statuses and element types; the library's version. */
#include <stddef.h>

#include "vlart/vlart.h"

uint32_t vlart_abi_version(void) { return VLART_ABI_MAJOR << 16 | VLART_ABI_MINOR; }

const char *vlart_status_name(vlart_status_t status) {
  switch (status) {
#define NAME(name, number, help) \
  case VLART_STATUS_##name: return #name;
    VLART_STATUS_LIST(NAME)
#undef NAME
  }
  return "UNKNOWN";
}

const char *vlart_status_help(vlart_status_t status) {
  switch (status) {
#define HELP(name, number, help) \
  case VLART_STATUS_##name: return help;
    VLART_STATUS_LIST(HELP)
#undef HELP
  }
  return "This number is no status of this library; the caller was built for a newer one.";
}

const char *vlart_dtype_name(uint32_t dtype) {
  switch (dtype) {
    case VLART_DTYPE_F32: return "f32";
    case VLART_DTYPE_U8: return "u8";
    case VLART_DTYPE_I8: return "i8";
    case VLART_DTYPE_I32: return "i32";
    case VLART_DTYPE_I64: return "i64";
    case VLART_DTYPE_BOOL: return "bool";
    case VLART_DTYPE_F16: return "f16";
    case VLART_DTYPE_F64: return "f64";
    case VLART_DTYPE_BF16: return "bf16";
    default: return NULL;
  }
}

uint32_t vlart_dtype_bytes(uint32_t dtype) {
  switch (dtype) {
    case VLART_DTYPE_U8:
    case VLART_DTYPE_I8:
    case VLART_DTYPE_BOOL: return 1;
    case VLART_DTYPE_F16:
    case VLART_DTYPE_BF16: return 2;
    case VLART_DTYPE_F32:
    case VLART_DTYPE_I32: return 4;
    case VLART_DTYPE_I64:
    case VLART_DTYPE_F64: return 8;
    default: return 0;
  }
}
