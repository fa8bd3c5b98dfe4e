/* Records a run (`--record FILE`). */
#include <string.h>

#include "base/diag.h"
#include "run.h"

enum { MEBIBYTE = 1 << 20 };

vlart_status_t run_begin_recording(run_t *run, vlart_diag_t *diag) {
  const void *plan = NULL;
  size_t plan_bytes = 0, bytes = 0;
  if (run->options->record == NULL) {
    return VLART_STATUS_OK;
  }
  vlart_recorder_options_t options = {.struct_size = sizeof options,
                                      .path = run->options->record,
                                      .file_bytes = (uint64_t)run->options->record_mib * MEBIBYTE,
                                      .tracks = 1,
                                      .full = 1};
  vlart_bundle_plan(run->bundle, &plan, &plan_bytes);
  vlart_status_t status = vlart_recorder_required_bytes(plan, plan_bytes, &options, diag, &bytes);
  if (status == VLART_STATUS_OK) {
    run->recorder_arena = tool_allocate(bytes, 1);
    status = vlart_recorder_init(plan, plan_bytes, &options, run->recorder_arena, bytes, diag,
                                 &run->recorder);
  }
  return status == VLART_STATUS_OK ? vlart_session_record(run->session, run->recorder, diag)
                                   : status;
}

vlart_status_t run_end_recording(run_t *run, vlart_diag_t *diag) {
  vlart_recorder_info_t info = {.struct_size = sizeof info};
  if (run->recorder == NULL) {
    return VLART_STATUS_OK;
  }
  vlart_recorder_close(run->recorder);
  vlart_recorder_info(run->recorder, &info);
  run->recorder = NULL;
  if (info.lost_events == 0 && info.lost_blocks == 0 && info.error == 0) {
    return VLART_STATUS_OK;
  }
  vlart_fail(
      diag, VLART_STATUS_IO, "the recording is not complete",
      "what is there can be read; free space on the disk, or record where writing is faster");
  vlart_where(diag, "%s", run->options->record);
  vlart_why(diag, "%llu events found no memory, %llu blocks no room on the disk (%s)",
            (unsigned long long)info.lost_events, (unsigned long long)info.lost_blocks,
            info.error == 0 ? "no error" : strerror((int)info.error));
  return VLART_STATUS_IO;
}
