#include "session/lifetimes.h"

#include "session/select_backbone.h"
#include "session/session.h"
#include "session/tensor_io.h"

uint64_t vlart_task_versions(const vlart_session_t *session) {
  uint64_t tasks = session->task.sources & session->sources.needed;
  uint64_t versions = 0; /* they only grow, so that equal sums are equal versions */
  for (uint32_t i = 0; i < session->bundle->plan.source_count; i++) {
    versions += tasks >> i & 1 ? session->sources.versions[i] : 0;
  }
  return versions;
}

void vlart_task_init(vlart_session_t *session) {
  const vlart_plan_t *plan = &session->bundle->plan;
  for (uint32_t i = 0; i < plan->source_count; i++) {
    session->task.sources |= (uint64_t)(vlart_plan_source(plan, i)->update == VLART_UPDATE_TASK)
                             << i;
  }
}

bool vlart_task_is_another(const vlart_session_t *session) {
  return session->task.number == 0 || session->task.ended ||
         session->task.versions != vlart_task_versions(session) ||
         session->task.value != vlart_policy_value(session);
}

void vlart_task_before_stages(vlart_session_t *session) {
  if (vlart_task_is_another(session)) {
    vlart_realtime_forget(&session->realtime);
  }
}

void vlart_task_published(vlart_session_t *session) {
  if (vlart_task_is_another(session)) {
    vlart_ensemble_reset(&session->ensemble);
    session->task.versions = vlart_task_versions(session);
    session->task.value = vlart_policy_value(session);
    session->task.number++;
    session->task.ended = false;
  }
}

void vlart_end_task(vlart_session_t *session) {
  session->task.ended = true;
  vlart_carried_end(session, VLART_LIFETIME_TASK);
  vlart_ensemble_reset(&session->ensemble);
  vlart_realtime_forget(&session->realtime);
}

void vlart_end_episode(vlart_session_t *session) {
  vlart_written_end_episode(session);
  vlart_end_task(session);
  vlart_carried_end(session, VLART_LIFETIME_EPISODE);
  vlart_realtime_reset(&session->realtime);
  session->realtime.given = 0;
  vlart_queue_reset(session);
  vlart_handed_end_episode(&session->handed);
  session->history.advances++;
  session->history.encoded = false;
  session->history.filled = false;
  vlart_lanes_end_episode(session);
}
