/* Descriptions of a stage for its engine. */
#ifndef VLART_STAGE_PORTS_H
#define VLART_STAGE_PORTS_H

#include "bundle/bundle.h"

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
vlart_constant_t vlart_stage_constant(const vlart_bundle_t *bundle, uint32_t stage, uint32_t index);

#endif
