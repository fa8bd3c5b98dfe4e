/* What the files of this backend share. */
#ifndef VLART_TVM_ENGINE_H
#define VLART_TVM_ENGINE_H

#include "bundle/backend.h"
#include "tvm_abi.h"

#define TVM_ALIGNMENT 64u /* what compiled kernels assume of every tensor */

/* Functions of the library, held. */
typedef struct {
  void *load_module;
  void *get_function;
  void *get_item;
  void *shape; /* the rest: on a GPU alone */
  void *allocate;
  void *upload;
  void *download;
} tvm_functions_t;

/* One per vlart session and device. */
typedef struct {
  tvm_api_t api;
  tvm_functions_t functions;
  int32_t device; /* TVM_CPU or TVM_CUDA */
} tvm_context_t;

/* One per stage. */
typedef struct {
  const tvm_context_t *context;
  const vlart_bundle_t *bundle;
  uint32_t stage;
  uint32_t address_sets; /* as vlart_plan_address_sets */
  uint32_t input_count;
  uint32_t output_count;
  void *library; /* objects, held */
  void *machine;
  void *main;
  tvm_value_t
      *arguments;   /* [address_sets * input_count], tensors; on a GPU the first iteration's serve
                             all, since every run copies into them */
  tvm_lent_t *lent; /* [address_sets * input_count] */
  int64_t *dims;    /* [input_count * VLART_MAX_RANK] */
  void **outputs;   /* [address_sets * output_count] */
  const void **sources; /* [address_sets * input_count] what to copy before a run, or NULL */
  void **copies;        /* [input_count] aligned room for an input whose rows are not */
} tvm_engine_t;

/* [init] Loads the libraries for a device, TVM_CPU or TVM_CUDA. */
vlart_status_t tvm_open_on(int32_t device, tvm_context_t *context,
                           const vlart_session_options_t *options, vlart_diag_t *diag);

/* Lets go of the functions; the libraries stay. */
void tvm_close(void *memory);

/* Gives a reference back, if there is one. */
void tvm_release(const tvm_api_t *api, void **object);

/* Calls a function that gives an object of one type. */
vlart_status_t tvm_call_for(const tvm_engine_t *engine, void *function, const char *name,
                            tvm_value_t *arguments, int32_t count, int32_t type, void **out_object,
                            vlart_diag_t *diag);

/* Turns the library's raised error into ours. */
vlart_status_t tvm_raised(const tvm_api_t *api, const char *call, const char *where,
                          vlart_diag_t *diag);

const char *tvm_stage_name(const tvm_engine_t *engine);

/* [init] Refuses what the loader would fault on, a stage file that is cut or not for this processor, and a
   path that leads to another file than the bundle's. */
vlart_status_t tvm_check_file(const tvm_engine_t *engine, const char *path, vlart_diag_t *diag);

/* [init] The stage's tensors over memory of one iteration, or on the device. */
vlart_status_t tvm_lend(tvm_engine_t *engine, uint32_t iteration, void *const *inputs,
                        vlart_diag_t *diag);

/* Runs one iteration. keep: false: only checks that what comes out has the plan's types. */
vlart_status_t tvm_invoke(tvm_engine_t *engine, uint32_t iteration, bool keep, vlart_diag_t *diag);

#endif
