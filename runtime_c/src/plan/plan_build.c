/* [open] Checks what is said of engines: how they are built on a board and the board itself, and how many threads they
   have. */
#include <string.h>

#include "base/diag.h"
#include "plan/plan_check.h"

static vlart_status_t check_board(const vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t boards = vlart_plan_count(plan, VLART_SECTION_BOARD);
  if (boards > 1) {
    return vlart_corrupt(diag, "plan.bin", "board", 1, "there are %u records instead of 1", boards);
  }
  if (boards == 0) {
    return VLART_STATUS_OK;
  }
  const vlart_board_record_t *board = vlart_plan_board(plan, 0);
  const char *cache = vlart_plan_string(plan, board->timing_cache);
  if (cache[0] == '\0' || cache[0] == '.' || strchr(cache, '/') != NULL) {
    return vlart_corrupt(diag, "plan.bin", "board", 0, "\"%s\" is not the name of a timing cache",
                         cache);
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_plan_check_concurrency(const vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t count = vlart_plan_count(plan, VLART_SECTION_CONCURRENCY);
  if (count > 1) {
    return vlart_corrupt(diag, "plan.bin", "concurrency", 1, "there are %u records instead of 1",
                         count);
  }
  if (count == 0) {
    return VLART_STATUS_OK;
  }
  const vlart_concurrency_record_t *said = vlart_plan_concurrency(plan, 0);
  if (said->threads == 0 || said->threads > VLART_MAX_THREADS || said->parallel == 0 ||
      said->parallel > VLART_MAX_PARALLEL) {
    return vlart_corrupt(diag, "plan.bin", "concurrency", 0,
                         "%u threads and %u stages are no numbers of them", said->threads,
                         said->parallel);
  }
  return VLART_STATUS_OK;
}

/* Of stages in ascending order, so that there is at most one for each. */
vlart_status_t vlart_plan_check_builds(const vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t builds = vlart_plan_count(plan, VLART_SECTION_BUILDS), next = 0;
  if (builds > 0 && vlart_plan_count(plan, VLART_SECTION_BOARD) == 0) {
    return vlart_corrupt(diag, "plan.bin", "builds", 0, "there is no board to build it on");
  }
  for (uint32_t i = 0; i < builds; i++) {
    const vlart_build_record_t *build = vlart_plan_build(plan, i);
    if (build->stage < next) {
      return vlart_corrupt(diag, "plan.bin", "builds", i, "stage %u comes twice or too late",
                           build->stage);
    }
    next = build->stage + 1;
    if (vlart_plan_stage(plan, build->stage)->backend != VLART_BACKEND_TENSORRT) {
      return vlart_corrupt(diag, "plan.bin", "builds", i, "stage \"%s\" has no engine of TensorRT",
                           vlart_plan_stage_name(plan, build->stage));
    }
    if (build->level > 5) {
      return vlart_corrupt(diag, "plan.bin", "builds", i, "level %u is not known", build->level);
    }
    if (build->engine_bytes_min > build->engine_bytes_max) {
      return vlart_corrupt(
          diag, "plan.bin", "builds", i, "an engine of at least %llu and at most %llu bytes",
          (unsigned long long)build->engine_bytes_min, (unsigned long long)build->engine_bytes_max);
    }
  }
  return check_board(plan, diag);
}
