/* The seam between the session and an engine (ONNX Runtime, TensorRT, TVM, a test's stub).

   An engine runs one stage. It is told the address of every input and output of every iteration
   once, at [init]; carries, rows and double buffers are therefore no business of an engine.
   A context is what the engines of one session share (library, environment, packed weights).

   Memory: contexts and engines live in the session's arena, zeroed, 64-byte aligned, of the size
   that the backend asks for. `unload` and `close` must accept what a failed `load` or `open` left
   behind, and memory that is still all zero.
   Threads: all calls for one session come from one thread at a time. No backend has globals. */
#ifndef VLART_BACKEND_H
#define VLART_BACKEND_H

#include "bundle.h"

struct vlart_backend {
  uint32_t id; /* VLART_BACKEND_... */
  const char *name;

  /* [init] Bytes of arena, from the plan alone. */
  size_t (*context_bytes)(const vlart_bundle_t *bundle);
  size_t (*engine_bytes)(const vlart_bundle_t *bundle, uint32_t stage);

  /* [init] Finds the library and makes what the engines share. */
  vlart_status_t (*open)(void *context, const vlart_session_options_t *options,
                         vlart_diag_t *diag);

  /* [init] Loads a stage's artefact, gives it its constants, and checks that the engine's ports
     are the plan's in name, type and shape. */
  vlart_status_t (*load)(void *context, void *engine, const vlart_bundle_t *bundle, uint32_t stage,
                         vlart_diag_t *diag);

  /* [init] Addresses of one iteration, in the order of the stage's bindings. Inputs are never
     written through; they may lie in a read-only mapping. */
  vlart_status_t (*prepare)(void *engine, uint32_t iteration, void *const *inputs,
                            void *const *outputs, vlart_diag_t *diag);

  /* [tick] Runs one prepared iteration to its end. */
  vlart_status_t (*run)(void *engine, uint32_t iteration, vlart_diag_t *diag);

  void (*unload)(void *engine);
  void (*close)(void *context);

  /* The rest is NULL where an engine takes any host memory and is called stage by stage.

     [init] After `open`: refuses a bundle that is not for this device, and gives the memory of the
     values that stages exchange: `bytes`, zeroed, 64-byte aligned, reached by the host and by the
     device without a copy. It lives until `close`. */
  vlart_status_t (*values)(void *context, const vlart_bundle_t *bundle, size_t bytes,
                           void **out_memory, vlart_diag_t *diag);

  /* [init] After the last `prepare`: all iterations of these engines, one after the other, become
     one thing that `replay` runs. */
  vlart_status_t (*record)(void *context, void *const *engines, uint32_t count,
                           vlart_diag_t *diag);

  /* [tick] Runs what was recorded to its end. */
  vlart_status_t (*replay)(void *context, vlart_diag_t *diag);
};

/* The engines that this build knows, in a constant table. */
const vlart_backend_t *const *vlart_builtin_backends(size_t *out_count);

/* What a port of a stage looks like in one iteration. */
typedef struct {
  const char *name;
  uint32_t dtype;
  uint32_t rank;
  const uint64_t *dims; /* [rank]; without the leading dimension for a row binding */
  uint64_t bytes;
} vlart_port_t;

/* A weight under the name that the artefact uses, where the file is mapped. */
typedef struct {
  const char *name;
  uint32_t dtype;
  uint32_t rank;
  const uint64_t *dims; /* [rank] */
  uint64_t bytes;
  const void *data;
} vlart_constant_t;

/* Indices are those of the stage's own lists and are not checked. */
vlart_port_t vlart_stage_input(const vlart_bundle_t *bundle, uint32_t stage, uint32_t index);
vlart_port_t vlart_stage_output(const vlart_bundle_t *bundle, uint32_t stage, uint32_t index);
vlart_constant_t vlart_stage_constant(const vlart_bundle_t *bundle, uint32_t stage,
                                      uint32_t index);

#endif
