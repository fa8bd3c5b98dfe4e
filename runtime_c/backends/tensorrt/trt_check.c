/* [init] Who may run here: bundles for this board and its software, engines built here, ports as
   the plan says. Every refusal names what was asked for and what is there. */
#include <string.h>

#include "base/diag.h"
#include "trt_engine.h"

typedef struct {
  const char *what; /* "TensorRT" */
  const char *wanted;
  const char *found;
} versions_t;

static vlart_status_t engines_from_elsewhere(const vlart_bundle_t *bundle, const versions_t *v,
                                             vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "the engines were built for another machine",
             "run vlart-build on this bundle again, on this board");
  vlart_where(diag, "%s/%s", bundle->dir, VLART_TRT_LOCK_FILE);
  vlart_why(diag, "they were built with %s %s, here is %s", v->what, v->wanted, v->found);
  return VLART_STATUS_UNSUPPORTED;
}

static vlart_status_t not_this_plan(const vlart_bundle_t *bundle, const vlart_trt_lock_t *lock,
                                    uint32_t plan_crc32, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "the engines were built from another plan",
             "run vlart-build on this bundle again; what did not change is kept");
  vlart_where(diag, "%s/%s", bundle->dir, VLART_TRT_LOCK_FILE);
  vlart_why(diag, "it says plan %08x, plan.bin is %08x", lock->content.record->plan_crc32,
            plan_crc32);
  return VLART_STATUS_UNSUPPORTED;
}

static vlart_status_t check_proof(const vlart_bundle_t *bundle, const char *what, uint32_t proof,
                                  bool trial, vlart_diag_t *diag) {
  if (trial || proof == VLART_PROOF_PASSED || proof == VLART_PROOF_NONE) {
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_SELF_TEST_FAILED, what,
             "run vlart-build on this bundle: it replays the golden frames");
  vlart_where(diag, "%s/%s", bundle->dir, VLART_TRT_LOCK_FILE);
  vlart_why(diag, "its golden frames are \"%s\"", vlart_proof_name(proof));
  return VLART_STATUS_SELF_TEST_FAILED;
}

vlart_status_t vlart_trt_check_whole_tick(const vlart_bundle_t *bundle,
                                          const vlart_trt_lock_t *lock, bool trial,
                                          vlart_diag_t *diag) {
  return check_proof(bundle, "a whole tick as one launch is not proved",
                     lock->content.record->whole_tick, trial, diag);
}

/* A number as text; [11]. */
static const char *decimal(uint64_t number, char *out) {
  char *p = out + 10;
  *p = '\0';
  do {
    *--p = (char)('0' + number % 10);
    number /= 10;
  } while (number > 0 && p > out);
  return p;
}

vlart_status_t vlart_trt_check_lock(const vlart_bundle_t *bundle, const vlart_trt_lock_t *lock,
                                    const vlart_trt_facts_t *facts,
                                    const vlart_trt_system_t *system, bool trial,
                                    vlart_diag_t *diag) {
  const vlart_engine_lock_t *content = &lock->content;
  const vlart_lock_record_t *record = content->record;
  char text[2][11];
  const versions_t versions[] = {
      {"TensorRT", vlart_engine_lock_string(content, record->tensorrt), facts->tensorrt},
      {"JetPack", vlart_engine_lock_string(content, record->jetpack), system->jetpack},
      {"the board", vlart_engine_lock_string(content, record->model), system->model},
      {"the GPU", vlart_engine_lock_string(content, record->gpu), facts->gpu},
      {"compute capability", decimal(record->compute_capability, text[0]),
       decimal(facts->compute_capability, text[1])},
      /* A power mode that switches multiprocessors off leaves the engines usable: a warning would
         be lost here, so vlart-build records the number and vlart-run's latencies show it. */
  };
  for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
    if (strcmp(versions[i].wanted, versions[i].found) != 0) {
      return engines_from_elsewhere(bundle, &versions[i], diag);
    }
  }
  uint32_t plan_crc32 = vlart_trt_plan_crc32(bundle);
  if (record->plan_crc32 != plan_crc32) {
    return not_this_plan(bundle, lock, plan_crc32, diag);
  }
  return check_proof(bundle, "the engines are not proved", record->golden, trial, diag);
}

static vlart_status_t for_elsewhere(const vlart_bundle_t *bundle, const versions_t *v,
                                    vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "the bundle was built for another machine",
             "build it with the target of this board and its JetPack, or run it where it belongs");
  vlart_where(diag, "%s, its plan's board", bundle->dir);
  vlart_why(diag, "it is for %s %s, here is %s", v->what, v->wanted, v->found);
  return VLART_STATUS_UNSUPPORTED;
}

/* What this machine does not say of itself (in a container, say) cannot be compared; the GPU and
   TensorRT's version always can. */
vlart_status_t vlart_trt_check_board(const vlart_bundle_t *bundle, const vlart_trt_facts_t *facts,
                                     const vlart_trt_system_t *system, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &bundle->plan;
  char text[2][11];
  if (vlart_plan_count(plan, VLART_SECTION_BOARD) == 0) {
    return VLART_STATUS_OK; /* then no stage has a build recipe, and vlart-build refuses it */
  }
  const vlart_board_record_t *board = vlart_plan_board(plan, 0);
  const versions_t versions[] = {
      {"compute capability", decimal(board->compute_capability, text[0]),
       decimal(facts->compute_capability, text[1])},
      {"TensorRT", vlart_plan_string(plan, board->tensorrt), facts->tensorrt},
      {"JetPack", vlart_plan_string(plan, board->jetpack), system->jetpack},
      {"board", vlart_plan_string(plan, board->name), system->board},
  };
  for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
    if (strcmp(versions[i].found, VLART_TRT_UNKNOWN) != 0 &&
        !vlart_trt_within(versions[i].wanted, versions[i].found)) {
      return for_elsewhere(bundle, &versions[i], diag);
    }
  }
  return VLART_STATUS_OK;
}

static vlart_status_t mismatch(const vlart_trt_state_t *state, bool output, const char *port,
                               vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "an engine's ports are not those of the plan",
             "remove the directory engines and run vlart-build on this bundle again");
  vlart_where(diag, "stage \"%s\", %s \"%s\"", vlart_trt_stage_name(state),
              output ? "output" : "input", port);
  return VLART_STATUS_BACKEND_FAILED;
}

static vlart_status_t check_port(const vlart_trt_state_t *state, const vlart_trt_port_t *found,
                                 vlart_diag_t *diag) {
  uint32_t count = found->output ? state->outputs : state->inputs;
  vlart_port_t port = {0};
  uint32_t index = 0;
  for (; index < count; index++) {
    port = found->output ? vlart_stage_output(state->bundle, state->stage, index)
                         : vlart_stage_input(state->bundle, state->stage, index);
    if (strcmp(port.name, found->name) == 0) {
      break;
    }
  }
  if (index == count || found->host) {
    mismatch(state, found->output, found->name, diag);
    vlart_why(diag, index == count ? "the engine has it, the plan does not"
                                   : "the engine reads its content on the host, as a shape");
    return VLART_STATUS_BACKEND_FAILED;
  }
  if (found->dtype != port.dtype || found->rank != port.rank) {
    mismatch(state, found->output, found->name, diag);
    vlart_why(diag, "the engine has element type %u and rank %u, the plan %u and %u", found->dtype,
              found->rank, port.dtype, port.rank);
    return VLART_STATUS_BACKEND_FAILED;
  }
  for (uint32_t d = 0; d < port.rank; d++) {
    if (found->dims[d] < 0 || (uint64_t)found->dims[d] != port.dims[d]) {
      mismatch(state, found->output, found->name, diag);
      vlart_why(diag, "dimension %u is %llu in the engine, %llu in the plan", d,
                (unsigned long long)found->dims[d], (unsigned long long)port.dims[d]);
      return VLART_STATUS_BACKEND_FAILED;
    }
  }
  return VLART_STATUS_OK;
}

vlart_status_t vlart_trt_check_ports(const vlart_trt_state_t *state, vlart_diag_t *diag) {
  const vlart_trt_runtime_t *api = state->context->api;
  uint32_t count = api->port_count(state->engine);
  if (count != state->inputs + state->outputs) {
    mismatch(state, true, "*", diag);
    vlart_why(diag, "the engine has %u ports, the plan %u", count, state->inputs + state->outputs);
    return VLART_STATUS_BACKEND_FAILED;
  }
  for (uint32_t i = 0; i < count; i++) {
    vlart_trt_port_t port = {0};
    vlart_trt_error_t error = {{0}};
    if (!api->port(state->engine, i, &port, &error)) {
      return vlart_trt_failed(diag, "reading a port", vlart_trt_stage_name(state), &error);
    }
    vlart_status_t status = check_port(state, &port, diag);
    if (status != VLART_STATUS_OK) {
      return status;
    }
  }
  return VLART_STATUS_OK;
}
