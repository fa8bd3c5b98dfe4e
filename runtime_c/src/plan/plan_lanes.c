/* [open] Lanes of a plan: what runs at which clock follows from what depends on which source. */
#include "plan/plan_lanes.h"

#include <math.h>

#include "base/diag.h"
#include "plan/plan_check.h"

static const char *lane_fault(const vlart_plan_t *plan, const vlart_lane_record_t *lane,
                              uint64_t *taken, uint64_t *out_sources) {
  if (!isfinite(lane->clock_hz) || lane->clock_hz < 0) {
    return "its clock is no rate";
  }
  *out_sources = 0;
  for (uint32_t i = 0; i < lane->index_count; i++) {
    uint32_t source = vlart_plan_index(plan, lane->index_begin + i);
    if (((*taken | *out_sources | plan->histories) >> source & 1) != 0) {
      return "a source is another lane's, or has a history";
    }
    *out_sources |= 1ull << source;
  }
  *taken |= *out_sources;
  return NULL;
}

static uint32_t lane_of(const vlart_plan_t *plan, uint64_t depends) {
  for (uint32_t i = 0; i < plan->lane_count; i++) {
    depends &= ~plan->lane_sources[i];
    if (depends == 0) {
      return i;
    }
  }
  return plan->lane_count;
}

/* bit i: a stage of the lane depends on a source of lane i. */
static uint32_t read_lanes(const vlart_plan_t *plan, uint32_t lane) {
  uint32_t read = 0;
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    for (uint32_t k = 0; plan->lanes[i] == lane && k < lane; k++) {
      read |= (plan->depends[i] & plan->lane_sources[k]) != 0 ? 1u << k : 0;
    }
  }
  return read;
}

/* Lanes up to this one that read each other, also by way of others: a set of one has those of all, so that whoever
   takes it has no two that were made of different sets of a third. */
static uint32_t carried_lanes(const vlart_plan_t *plan, uint32_t lane) {
  uint32_t found = 1u << lane;
  for (uint32_t before = 0; before != found;) {
    before = found;
    for (uint32_t k = 0; k <= lane; k++) {
      uint32_t read = read_lanes(plan, k);
      if (((read | 1u << k) & found) != 0) {
        found |= read | 1u << k;
      }
    }
  }
  return found;
}

vlart_status_t vlart_plan_check_lanes(vlart_plan_t *plan, vlart_diag_t *diag) {
  uint32_t count = vlart_plan_count(plan, VLART_SECTION_LANES);
  uint64_t taken = 0;
  if (count > VLART_MAX_LANES) {
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "a plan has too many lanes", NULL);
    vlart_where(diag, "plan.bin, lanes");
    vlart_why(diag, "there are %u, this reader takes %u", count, VLART_MAX_LANES);
    return VLART_STATUS_UNSUPPORTED;
  }
  for (uint32_t i = 0; i < count; i++) {
    const char *fault = lane_fault(plan, vlart_plan_lane(plan, i), &taken, &plan->lane_sources[i]);
    if (fault != NULL) {
      return vlart_corrupt(diag, "plan.bin", "lanes", i, "%s", fault);
    }
  }
  plan->lane_count = count;
  uint32_t running = 0; /* bit i: lane i runs a stage */
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    /* A stage that depends on nothing is the control loop's. */
    uint32_t lane = plan->depends[i] == 0 ? count : lane_of(plan, plan->depends[i]);
    plan->lanes[i] = (uint8_t)lane;
    running |= 1u << lane;
  }
  for (uint32_t i = 0; count > 0 && i <= count; i++) {
    if ((running >> i & 1) == 0) {
      return vlart_corrupt(
          diag, "plan.bin", "lanes", i < count ? i : 0,
          i < count ? "no stage is its own" : "nothing is left for the control loop");
    }
  }
  for (uint32_t i = 0; i < count; i++) {
    plan->lane_carries[i] = carried_lanes(plan, i);
  }
  uint32_t action = plan->policy->action_value;
  if (count > 0 && action != VLART_NONE && plan->lanes[plan->writers[action].index] != count) {
    return vlart_corrupt(diag, "plan.bin", "lanes", 0, "the action is a lane's");
  }
  return VLART_STATUS_OK;
}

bool vlart_plan_owns_stage(const vlart_plan_t *plan, uint32_t option, uint32_t stage) {
  return option == 0 ||
         plan->lanes[stage] == (option == VLART_LANE_CONTROL ? plan->lane_count : option - 1);
}

bool vlart_plan_takes_lane(const vlart_plan_t *plan, uint32_t option, uint32_t lane) {
  uint32_t own = option == VLART_LANE_CONTROL ? plan->lane_count : option - 1;
  bool direct = lane < own;
  for (uint32_t k = lane + 1; k < own; k++) {
    direct = direct && (plan->lane_carries[k] >> lane & 1) == 0;
  }
  return direct;
}

const char *vlart_plan_lane_name(const vlart_plan_t *plan, uint32_t lane) {
  return lane < plan->lane_count ? vlart_plan_string(plan, vlart_plan_lane(plan, lane)->name)
                                 : "the control loop";
}
