/* What the files of vlart-build share. The tool may allocate and print; the library does neither. */
#ifndef VLART_BUILD_H
#define VLART_BUILD_H

#include <stdbool.h>
#include <stdio.h>

#include "bundle/bundle.h"
#include "tensorrt/trt_abi.h"
#include "tensorrt/trt_lock.h"
#include "tensorrt/trt_system.h"

typedef struct {
  const char *bundle;
  const char *runtime; /* path of libvlart_tensorrt.so */
  const char *builder; /* path of libvlart_tensorrt_builder.so */
  const char *ort;     /* path of libonnxruntime.so, for stages on the CPU */
  const char *tvm; /* paths of libtvm_runtime.so, libtvm_ffi.so and libtvm_runtime_cuda.so, for */
  const char *tvm_ffi; /* stages that TVM compiled */
  const char *tvm_cuda;
  const char *signers; /* a list of signers: take only a bundle that one of them signed; or NULL */
  uint32_t repeat;     /* replays that are timed */
  uint32_t seconds;    /* without progress, after which the proof is ended; 0: any */
  uint32_t memory_mib; /* that the proof may take; 0: any; RUN_UNSAID: what fits the bundle */
  bool rebuild;
  bool keep_engines; /* also of a signed bundle: whoever calls knows that they were built here */
  bool native_code;
} build_options_t;

/* How one engine is to be built, from the plan. */
typedef struct {
  uint32_t stage;
  vlart_trt_recipe_t recipe; /* without the timing cache */
  uint64_t bytes_min;        /* what the engine may weigh */
  uint64_t bytes_max;
  uint64_t scratch_max; /* what it may need beside */
  uint32_t crc32;       /* of all this */
} build_recipe_t;

/* One engine. */
typedef struct {
  char name[VLART_MAX_STRING + 1]; /* of the stage */
  char onnx[VLART_TRT_PATH_BYTES]; /* path of its ONNX file */
  char file[256];                  /* "engines/NAME.plan" */
  build_recipe_t recipe;
  uint64_t bytes;
  uint32_t crc32;
  uint8_t sha256[32];
  uint32_t stage_crc32;
  uint32_t weights_crc32;
  uint64_t scratch_bytes;
  uint64_t peak_bytes; /* of memory of the process that built it */
  double build_s;
  double median_ms, p95_ms; /* of one run, all iterations; 0: not measured */
  size_t runs;
  bool done; /* the file is there and is what this says */
} build_engine_t;

typedef struct {
  const build_options_t *options;
  vlart_bundle_t *bundle;
  void *bundle_arena;
  vlart_trt_facts_t facts;
  vlart_trt_system_t system;
  build_engine_t *engines; /* [count] */
  uint32_t count;
  uint32_t golden;        /* VLART_PROOF_... of the golden frames */
  uint32_t whole_tick;    /* the same of a whole tick as one launch */
  char timing_cache[256]; /* file in the bundle */
  int exclusive;          /* descriptor that keeps a second vlart-build out */
} build_t;

/* ---- build_child.c: what calls NVIDIA's libraries has a process of its own ------------------- */

/* Which machine this is. */
vlart_status_t build_probe(build_t *build, vlart_diag_t *diag);

/* Builds one engine into `file`.tmp. */
vlart_status_t build_one(build_t *build, build_engine_t *engine, vlart_diag_t *diag);

/* Loads the engine from `file`.tmp: its scratch memory, and its layers into NAME.layers.json. */
vlart_status_t build_inspect(build_t *build, build_engine_t *engine, vlart_diag_t *diag);

/* ---- build_files.c: files appear whole or not at all ----------------------------------------- */

/* Writes a file of the bundle, through PATH.tmp, to the disk. */
bool build_write(const char *dir, const char *path, const void *data, size_t bytes);

/* PATH.tmp, which is on the disk, becomes PATH. */
bool build_publish(const char *dir, const char *path);

/* Size, CRC-32 and SHA-256 of a file of the bundle; `suffix` may be ".tmp". */
bool build_hash(const build_t *build, const char *path, const char *suffix, uint64_t *out_bytes,
                uint32_t *out_crc32, uint8_t out_sha256[32]);

/* ---- build_lock.c: engines/lock.bin ---------------------------------------------------------- */

/* Writes it from what is done. */
vlart_status_t build_write_lock(const build_t *build, vlart_diag_t *diag);

/* Takes over what an earlier run built, where it is what this run would build. */
void build_resume(build_t *build);

/* ---- build_plan.c: what is to be built ------------------------------------------------------- */

vlart_status_t build_read_plan(build_t *build, vlart_diag_t *diag);

/* ---- build_prove.c --------------------------------------------------------------------------- */

/* Replays the golden frames through a session, and measures, in a child with limits. SELF_TEST_FAILED if they differ;
   BACKEND_FAILED if the child had to be ended or crashed: nothing is proved then. */
vlart_status_t build_prove(build_t *build, vlart_diag_t *diag);

/* ---- build_clocks.c -------------------------------------------------------------------------- */

/* What the board runs at now; VLART_NONE where it does not say it. */
void build_read_clocks(const char *root, vlart_lock_record_t *out_lock);

#endif
