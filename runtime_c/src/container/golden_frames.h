/* A validated frames file: tensors to write, and tensors to expect after a step. */
#ifndef VLART_FRAMES_H
#define VLART_FRAMES_H

#include "container/container.h"

typedef struct {
  vlart_container_t file;
  uint32_t frame_count;
  const uint8_t *blob;
} vlart_frames_t;

/* [open] Checks every record; `data` is 8-byte aligned and stays valid while frames are used. */
vlart_status_t vlart_frames_read(const uint8_t *data, size_t bytes, const char *name,
                                 vlart_diag_t *diag, vlart_frames_t *out_frames);

/* The largest allowed absolute differences per index of the last dimension; NULL and 0 where the
   tensor has one limit for all. */
const float *vlart_frames_columns(const vlart_frames_t *frames, uint32_t tensor,
                                  uint32_t *out_count);

static inline const vlart_frame_record_t *vlart_frames_frame(const vlart_frames_t *frames,
                                                             uint32_t index) {
  return vlart_record(&frames->file.tables[VLART_SECTION_FRAMES], index);
}

static inline const vlart_tensor_record_t *vlart_frames_tensor(const vlart_frames_t *frames,
                                                               uint32_t index) {
  return vlart_record(&frames->file.tables[VLART_SECTION_TENSORS], index);
}

#endif
