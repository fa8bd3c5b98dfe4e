/* The stages that every tick runs, as one launch, for engines that can record it. Which stages they
   are follows from the plan; whether they run together is decided in every step anew. */
#include "session/graph_capture.h"

#include "base/diag.h"
#include "session/session.h"

static vlart_status_t refuse(const char *why, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "a whole tick cannot be one launch here",
             "leave the option whole_tick out (vlart-run: --whole-tick)");
  vlart_where(diag, "the session's options");
  vlart_why(diag, "%s", why);
  return VLART_STATUS_UNSUPPORTED;
}

/* Whether a stage follows something that changes within a task. */
static bool is_live(const vlart_plan_t *plan, uint32_t stage) {
  for (uint32_t i = 0; i < plan->source_count; i++) {
    if ((plan->depends[stage] >> i & 1) != 0 &&
        vlart_plan_source(plan, i)->update >= VLART_UPDATE_OBSERVATION) {
      return true;
    }
  }
  return false;
}

static bool belongs(const vlart_session_t *session, uint32_t stage, uint32_t last) {
  return session->stages[stage].backend == session->stages[last].backend &&
         session->bundle->plan.loop_ends[stage] == VLART_NONE &&
         is_live(&session->bundle->plan, stage);
}

vlart_status_t vlart_graph_capture(vlart_session_t *session, vlart_diag_t *diag) {
  const vlart_plan_t *plan = &session->bundle->plan;
  if (plan->delay_count > 0 || plan->histories != 0) {
    return refuse("the policy has a history, which moves on between its stages", diag);
  }
  if (plan->carried_count > 0) {
    return refuse("it carries values from step to step, whose places change in every one", diag);
  }
  if (plan->backbone_count > 0) {
    return refuse("the bundle has several backbones, of which a tick runs one", diag);
  }
  uint32_t last = session->selection.action_stage != VLART_NONE ? session->selection.action_stage
                                                                : plan->stage_count - 1;
  if (plan->stage_count == 0 || session->stages[last].backend->record == NULL) {
    return refuse("the last stage's engine cannot record launches", diag);
  }
  uint32_t first = last + 1;
  while (first > 0 && belongs(session, first - 1, last)) {
    first--;
  }
  if (first > last) {
    return refuse(plan->loop_ends[last] == VLART_NONE
                      ? "no source of the last stage changes within a task"
                      : "the data decides when the last stage ends",
                  diag);
  }
  const vlart_backend_t *backend = session->stages[last].backend;
  uint32_t count = last + 1 - first;
  for (uint32_t i = 0; i < count; i++) {
    session->engines.addresses[i] = session->stages[first + i].engine;
  }
  vlart_status_t status = backend->record(session->engines.contexts[backend->id].memory,
                                          session->engines.addresses, count, diag);
  if (status == VLART_STATUS_OK) {
    session->graph.begin = first;
    session->graph.end = last + 1;
  }
  return status;
}

vlart_status_t vlart_graph_launch(vlart_session_t *session, vlart_diag_t *diag) {
  const vlart_backend_t *backend = session->stages[session->graph.begin].backend;
  for (uint32_t i = session->graph.begin; i < session->graph.end; i++) {
    session->stages[i].current = false;
    session->stages[i].readable = false;
  }
  return backend->replay(session->engines.contexts[backend->id].memory, diag);
}
