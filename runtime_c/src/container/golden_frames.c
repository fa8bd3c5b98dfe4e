
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

static const char *limit_fault(const vlart_frames_t *frames, const vlart_limit_record_t *limit) {
  const vlart_tensor_record_t *tensor = vlart_frames_tensor(frames, limit->tensor);
  if (tensor->rank == 0 || limit->column_count != tensor->dims[tensor->rank - 1]) {
    return "there is not one for each index of the tensor's last dimension";
  }
  const float *columns =
      vlart_record(&frames->file.tables[VLART_SECTION_FLOATS], limit->column_begin);
  for (uint32_t i = 0; i < limit->column_count; i++) {
    if (!(columns[i] >= 0)) {
      return "a difference that it allows is no number, or negative";
    }
  }
  return NULL;
}

static vlart_status_t check_limit(const vlart_frames_t *frames, uint32_t index,
                                  vlart_diag_t *diag) {
  const char *fault =
      limit_fault(frames, vlart_record(&frames->file.tables[VLART_SECTION_LIMITS], index));
  return fault == NULL ? VLART_STATUS_OK
                       : vlart_corrupt(diag, frames->file.name, "limits", index, "%s", fault);
}

const float *vlart_frames_columns(const vlart_frames_t *frames, uint32_t tensor,
                                  uint32_t *out_count) {
  uint32_t limits = frames->file.tables[VLART_SECTION_LIMITS].count;
  for (uint32_t i = 0; i < limits; i++) {
    const vlart_limit_record_t *limit = vlart_record(&frames->file.tables[VLART_SECTION_LIMITS], i);
    if (limit->tensor == tensor) {
      *out_count = limit->column_count;
      return vlart_record(&frames->file.tables[VLART_SECTION_FLOATS], limit->column_begin);
    }
  }
  *out_count = 0;
  return NULL;
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
  uint32_t limits = out_frames->file.tables[VLART_SECTION_LIMITS].count;
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < limits; i++) {
    status = check_limit(out_frames, i, diag);
  }
  return status;
}
