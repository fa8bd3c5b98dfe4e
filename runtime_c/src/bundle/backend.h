/* The seam between the session and an engine (ONNX Runtime, TensorRT, TVM, a test's stub).

   An engine runs one stage. It is told the address of every input and output of every iteration
   once, at [init]; carries, rows and double buffers are therefore no business of an engine.
   A context is what the engines of one session share (library, environment, packed weights).

   Memory: contexts and engines live in the session's arena, zeroed, 64-byte aligned, of the size
   that the backend asks for. `unload` and `close` must accept what a failed `load` or `open` left
   behind, and memory that is still all zero.
   Threads: all calls for one session come from one thread at a time, but for `run` of different engines where the backend
   is `concurrent`. No backend has globals. */
#ifndef VLART_BACKEND_H
#define VLART_BACKEND_H

#include "bundle/stage_ports.h"

struct vlart_backend {
  uint32_t id; /* VLART_BACKEND_... */
  const char *name;

  /* [init] Bytes of arena, from the plan alone. */
  size_t (*context_bytes)(const vlart_bundle_t *bundle);
  size_t (*engine_bytes)(const vlart_bundle_t *bundle, uint32_t stage);

  /* [init] Finds the library and makes what the engines share. */
  vlart_status_t (*open)(void *context, const vlart_session_options_t *options, vlart_diag_t *diag);

  /* [init] Loads a stage's artefact, gives it its constants, and checks that the engine's ports
     are the plan's in name, type and shape. */
  vlart_status_t (*load)(void *context, void *engine, const vlart_bundle_t *bundle, uint32_t stage,
                         vlart_diag_t *diag);

  /* [init] Addresses of one iteration, of vlart_plan_address_sets (those of a stage whose values lie in two places in
     turn come twice, and count on), in the order of the stage's bindings. Inputs are never
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
  vlart_status_t (*record)(void *context, void *const *engines, uint32_t count, vlart_diag_t *diag);

  /* [tick] Runs what was recorded to its end. */
  vlart_status_t (*replay)(void *context, vlart_diag_t *diag);

  /* Its stage files are machine code, which does what it likes once it is loaded. */
  bool native_code;

  /* Its engines may run at the same time, each in any thread. */
  bool concurrent;
};

/* The engines that this build knows, in a constant table. The one function of this library that a lower
   directory calls in a higher one: backends/builtin.c defines it. */
const vlart_backend_t *const *vlart_builtin_backends(size_t *out_count);

#endif
