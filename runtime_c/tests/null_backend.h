/* An engine without a library, for the tests: it reads every byte of its inputs and writes every
   byte of its outputs, so that a sanitizer sees a wrong address, and it fails on request. */
#ifndef VLART_NULL_BACKEND_H
#define VLART_NULL_BACKEND_H

#include "bundle/backend.h"

typedef struct {
  uint32_t fail_stage; /* run gives BACKEND_FAILED in this stage; VLART_NONE: never */
  uint32_t sleep_ms;   /* every run takes at least so long */
  float output;        /* what f32 outputs are filled with */
  int64_t token;       /* what i32 and i64 outputs are filled with */
  uint64_t runs;
  uint64_t bytes_read; /* a sum that keeps the reads alive */
} null_control_t;

extern null_control_t null_control;
extern const vlart_backend_t null_backend;

/* Session options that put the null engine in the place of ONNX Runtime. */
vlart_session_options_t null_options(void);

#endif
