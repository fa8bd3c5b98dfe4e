
#include "container/golden_frames.h"

#include "base/diag.h"

static vlart_status_t check_tensor(const vlart_frames_t *frames, uint32_t index,
                                   vlart_diag_t *diag) {
  const vlart_tensor_record_t *tensor = vlart_frames_tensor(frames, index);
  uint64_t blob_bytes = frames->file.tables[VLART_SECTION_BLOB].count;
  const char *fault = vlart_shape_fault(tensor->dtype, tensor->rank, tensor->dims, tensor->bytes);
  if (fault == NULL && (tensor->offset % VLART_ALIGN != 0 || tensor->offset > blob_bytes ||
                        tensor->bytes > blob_bytes - tensor->offset)) {
    fault = "its bytes are not aligned or not inside the blob section";
  }
  return fault == NULL ? VLART_STATUS_OK
                       : vlart_corrupt(diag, frames->file.name, "tensors", index, "%s", fault);
}

vlart_status_t vlart_frames_read(const uint8_t *data, size_t bytes, const char *name,
                                 vlart_diag_t *diag, vlart_frames_t *out_frames) {
  *out_frames = (vlart_frames_t){0};
  vlart_status_t status =
      vlart_container_open(data, bytes, VLART_FRAMES_MAGIC, name, diag, &out_frames->file);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  uint32_t tensors = out_frames->file.tables[VLART_SECTION_TENSORS].count;
  out_frames->frame_count = out_frames->file.tables[VLART_SECTION_FRAMES].count;
  out_frames->blob = out_frames->file.tables[VLART_SECTION_BLOB].records;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < tensors; i++) {
    status = check_tensor(out_frames, i, diag);
  }
  return status;
}
