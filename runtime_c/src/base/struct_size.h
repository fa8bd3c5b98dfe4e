/* The struct_size rule of every public struct: callers and library may know it in different lengths. */
#ifndef VLART_STRUCT_SIZE_H
#define VLART_STRUCT_SIZE_H

#include "vlart/vlart.h"

/* Copies a public output struct: BAD_ARGUMENT unless the caller's struct_size is at least ours. */
vlart_status_t vlart_copy_out(void *out, const void *full, size_t bytes);

/* The same of a struct that has grown: a caller may know it as it was, of `oldest` bytes at least. */
vlart_status_t vlart_copy_out_since(void *out, const void *full, size_t oldest, size_t bytes);

/* Copies a public option struct of `bytes`: `in` may be NULL (all defaults). What a newer caller
   added at the tail must be zero; what an older one, with at least the `oldest` bytes, does not
   have is zero. */
vlart_status_t vlart_copy_in(void *options, size_t oldest, size_t bytes, const void *in,
                             const char *call, vlart_diag_t *diag);

#endif
