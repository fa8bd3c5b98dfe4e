/* What the files of this backend share. */
#ifndef VLART_OV_ENGINE_H
#define VLART_OV_ENGINE_H

#include "bundle/backend.h"
#include "ov_abi.h"

#define OV_PATH_BYTES 4096u

/* One per vlart session. */
typedef struct {
  void *library;
  ov_api_t api;
  OvCore *core;
  const char
      *device; /* the session's option, which outlives its init; the engines are made in it */
  uint32_t threads;
} ov_context_t;

/* One per stage. */
typedef struct {
  const ov_context_t *context;
  const vlart_bundle_t *bundle;
  uint32_t stage;
  uint32_t address_sets; /* as vlart_plan_address_sets */
  OvCompiledModel *model;
  OvRequest **requests; /* [address_sets] */
} ov_engine_t;

/* [init] Finds the library and its functions. */
vlart_status_t ov_load_library(ov_context_t *context, const char *path, vlart_diag_t *diag);

/* Turns a status of the library into ours, with its message; 0 is OK. */
vlart_status_t ov_check(const ov_api_t *api, int error, const char *call, const char *where,
                        vlart_diag_t *diag);

const char *ov_stage_name(const ov_engine_t *engine);

/* A type of the plan as the library's number; -1: it has none. */
int ov_element_type(uint32_t dtype);

/* [init] Compares the engine's inputs and outputs with the plan's, in their order. */
vlart_status_t ov_check_ports(const ov_engine_t *engine, vlart_diag_t *diag);

#endif
