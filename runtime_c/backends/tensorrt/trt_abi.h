/* The C ABI between libvlart and the two libraries that call NVIDIA's C++: libvlart_tensorrt.so
   loads and runs engines, libvlart_tensorrt_builder.so makes them from ONNX (trt_runtime.cc and
   trt_builder.cc, built on the board). What a library cannot do it says in its own words.

   All that can be decided without NVIDIA's headers is decided on this side of the seam, so that it
   is tested without a GPU; tests/fake_tensorrt.c is the double behind the same two entry points.
   No exception crosses. A table is constant and lives as long as its library is loaded. */
#ifndef VLART_TRT_ABI_H
#define VLART_TRT_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VLART_TRT_ABI 1u /* raised by every change of this file */

typedef struct vlart_trt_device vlart_trt_device_t; /* a GPU and its one stream */
typedef struct vlart_trt_engine vlart_trt_engine_t; /* an engine and its execution context */
typedef struct vlart_trt_graph vlart_trt_graph_t;   /* recorded work */

typedef struct {
  char text[512];
} vlart_trt_error_t;

typedef struct {
  char tensorrt[32]; /* of the loaded library: "10.3.0.30" */
  char cuda[32];     /* of its runtime: "12.6" */
  char gpu[128];
  uint32_t compute_capability; /* 87 */
  uint32_t multiprocessors;    /* as they are now: a power mode may switch some off */
  uint64_t memory_bytes;
  char system_root[256]; /* before /etc, /proc and /sys; empty on a board */
} vlart_trt_facts_t;

typedef struct {
  const char *name; /* as long as the engine is loaded */
  uint32_t dtype;   /* VLART_DTYPE_..., 0: one that vlart does not have */
  uint32_t rank;
  int64_t dims[8]; /* -1: open */
  bool output;
  bool host; /* its content is read on the host, as a shape */
} vlart_trt_port_t;

/* Functions that return bool return false with the reason in `error`. One thread at a time. */
typedef struct {
  uint32_t abi;       /* VLART_TRT_ABI */
  uint32_t alignment; /* bytes; of every address given to `bind` */

  bool (*open)(vlart_trt_device_t **out_device, vlart_trt_error_t *error);
  void (*close)(vlart_trt_device_t *device);
  void (*facts)(const vlart_trt_device_t *device, vlart_trt_facts_t *out_facts);

  /* Zeroed and aligned. shared: the host reaches it too, while nothing runs. */
  bool (*allocate)(vlart_trt_device_t *device, size_t bytes, bool shared, void **out_memory,
                   vlart_trt_error_t *error);
  void (*release)(vlart_trt_device_t *device, void *memory);
  bool (*upload)(vlart_trt_device_t *device, void *to, const void *from, size_t bytes,
                 vlart_trt_error_t *error);

  /* The bytes of an engine may go once it is loaded. */
  bool (*load)(vlart_trt_device_t *device, const void *data, size_t bytes,
               vlart_trt_engine_t **out_engine, vlart_trt_error_t *error);
  void (*unload)(vlart_trt_engine_t *engine);
  uint32_t (*port_count)(const vlart_trt_engine_t *engine);
  bool (*port)(const vlart_trt_engine_t *engine, uint32_t index, vlart_trt_port_t *out_port,
               vlart_trt_error_t *error);

  /* What was fused, layer by layer, as JSON; NULL if it cannot be told. Until the next call. */
  const char *(*layers)(vlart_trt_engine_t *engine);

  /* Engines run one after the other, so they share one piece of memory for what is in between. */
  uint64_t (*scratch_bytes)(const vlart_trt_engine_t *engine);
  void (*give_scratch)(vlart_trt_engine_t *engine, void *memory, uint64_t bytes);
  bool (*bind)(vlart_trt_engine_t *engine, const char *port, void *address,
               vlart_trt_error_t *error);

  /* `copy` and `enqueue` act on the stream; between `begin` and `end` they are recorded instead.
     `end` also ends a recording that failed; then there is no graph. */
  bool (*copy)(vlart_trt_device_t *device, void *to, const void *from, size_t bytes,
               vlart_trt_error_t *error);
  bool (*enqueue)(vlart_trt_engine_t *engine, vlart_trt_error_t *error);
  bool (*wait)(vlart_trt_device_t *device, vlart_trt_error_t *error);
  bool (*begin)(vlart_trt_device_t *device, vlart_trt_error_t *error);
  bool (*end)(vlart_trt_device_t *device, vlart_trt_graph_t **out_graph, vlart_trt_error_t *error);

  /* [tick] Runs recorded work and waits for its end. */
  bool (*launch)(vlart_trt_device_t *device, vlart_trt_graph_t *graph, vlart_trt_error_t *error);
  void (*drop)(vlart_trt_graph_t *graph);
} vlart_trt_runtime_t;

typedef struct {
  const char *onnx; /* path; external data lies beside it */
  const char *name; /* of the engine, in profiles */
  uint32_t flags;   /* VLART_BUILD_FLAG_... */
  uint32_t level;   /* builder optimisation level, 0..5 */
  uint32_t aux_streams;
  uint64_t workspace_bytes;
  const void *timing_cache; /* NULL: none yet */
  size_t timing_cache_bytes;
} vlart_trt_recipe_t;

/* Where the builder's results and news go; `user` is handed back. */
typedef struct {
  void *user;
  bool (*engine)(void *user, const void *data, size_t bytes);       /* false: stop */
  bool (*timing_cache)(void *user, const void *data, size_t bytes); /* likewise */
  void (*phase)(void *user, const char *name, int32_t done, int32_t steps);
  void (*warning)(void *user, const char *line);
} vlart_trt_sink_t;

typedef struct {
  uint32_t abi; /* VLART_TRT_ABI */
  bool (*build)(const vlart_trt_recipe_t *recipe, const vlart_trt_sink_t *sink,
                vlart_trt_error_t *error);
} vlart_trt_builder_t;

/* The entry points. NULL: the library speaks another ABI. */
typedef const vlart_trt_runtime_t *(*vlart_trt_runtime_entry_t)(uint32_t abi);
typedef const vlart_trt_builder_t *(*vlart_trt_builder_entry_t)(uint32_t abi);
#define VLART_TRT_RUNTIME_ENTRY "vlart_tensorrt_runtime"
#define VLART_TRT_BUILDER_ENTRY "vlart_tensorrt_builder"

#ifdef __cplusplus
}
#endif

#endif
