/* What the files of the double share: what its machine is, and what its engines begin with. */
#ifndef VLART_FAKE_TENSORRT_H
#define VLART_FAKE_TENSORRT_H

#include "tensorrt/trt_abi.h"

enum { PATH = 1024 };

/* The keys of fake_tensorrt.conf. */
typedef struct {
  char tensorrt[32];
  char cuda[32];
  char gpu[128];
  char compute_capability[32];
  char system_root[256];
  char ort[PATH];        /* path of libonnxruntime.so */
  char trace[PATH];      /* file that every call of interest is appended to */
  char fail_stage[128];  /* the parser rejects it */
  char crash_stage[128]; /* the compiler crashes */
  char fat_stage[128];   /* its engine comes out four times as large */
  char wrong_stage[128]; /* its engine computes something else */
  char sizes[PATH];      /* "STAGE:BYTES STAGE:BYTES ...": what an engine weighs, at least */
  char scratch_bytes[32];
  char fail_call[32]; /* this call fails: "launch", "end", "allocate", ... */
} fake_conf_t;

typedef struct {
  void *raw;
  uint8_t *at;
  size_t bytes;
} block_t;

/* The head of a made-up engine; the ONNX file follows. */
typedef struct {
  char magic[8];
  char tensorrt[32];
  char stage[128];
  char onnx[PATH];
  uint32_t wrong;
} fake_head_t;

const vlart_trt_runtime_t *vlart_tensorrt_runtime(uint32_t abi);
const vlart_trt_builder_t *vlart_tensorrt_builder(uint32_t abi);

/* Gives the reason of a failure; returns false. */
bool fake_no(vlart_trt_error_t *error, const char *why, const char *detail);

bool fake_read_conf(fake_conf_t *conf, vlart_trt_error_t *error);

/* For fake_nvidia.cc, whose parser and builder are two. */
bool fake_tensorrt_rejects(const char *stage);

#endif
