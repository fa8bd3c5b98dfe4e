/* [task] What is believed of each backbone, and which one is taken. The rule, its source and the
   order of operations are those of vlacompile/routing/decide.py. */
#include "base/beta_distribution.h"
#include "router/router.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

/* Evidence of the fit and outcomes since. */
static vlart_outcomes_t evidence(const vlart_router_t *router, uint32_t route, uint32_t backbone) {
  const vlart_evidence_record_t *fitted = vlart_router_evidence(router, route, backbone);
  const vlart_outcomes_t *seen = &router->seen[route * router->backbone_count + backbone];
  return (vlart_outcomes_t){fitted->successes + seen->successes, fitted->failures + seen->failures};
}

static double at_least(double x, double least) { return x > least ? x : least; }

/* Alpha and beta of one backbone; returns the level. */
static uint32_t posterior(const vlart_router_t *router, uint32_t route, uint32_t backbone,
                          double *out_alpha, double *out_beta) {
  const vlart_router_record_t *rule = router->rule;
  uint32_t cluster = vlart_router_route(router, route)->cluster;
  vlart_outcomes_t all = {rule->prior_success, rule->prior_failure};
  vlart_outcomes_t near = {0.0, 0.0};
  for (uint32_t i = 0; i < router->route_count; i++) {
    if (i == route) {
      continue;
    }
    vlart_outcomes_t e = evidence(router, i, backbone);
    bool alike = cluster != VLART_NONE && vlart_router_route(router, i)->cluster == cluster;
    vlart_outcomes_t *sum = alike ? &near : &all;
    sum->successes += e.successes;
    sum->failures += e.failures;
  }
  double mean = all.successes / (all.successes + all.failures);
  mean = (rule->strength * mean + near.successes) /
         (rule->strength + (near.successes + near.failures));
  vlart_outcomes_t own = evidence(router, route, backbone);
  *out_alpha = at_least(rule->strength * mean + own.successes, VLART_BETA_LEAST);
  *out_beta = at_least(rule->strength * (1.0 - mean) + own.failures, VLART_BETA_LEAST);
  if (own.successes + own.failures > 0.0) {
    return VLART_LEVEL_TASK;
  }
  if (near.successes + near.failures > 0.0) {
    return VLART_LEVEL_CLUSTER;
  }
  return all.successes + all.failures > rule->prior_success + rule->prior_failure
             ? VLART_LEVEL_ALL
             : VLART_LEVEL_PRIOR;
}

static double cost(const vlart_router_t *router, uint32_t route, uint32_t backbone,
                   double success) {
  const vlart_backbone_record_t *b =
      vlart_record(&router->table.tables[VLART_SECTION_BACKBONES], backbone);
  double solved = vlart_router_evidence(router, route, backbone)->replans;
  return b->task_ms + b->replan_ms * (success * solved + (1.0 - success) * b->replans_failed);
}

void vlart_router_believe(const vlart_router_t *router, vlart_decision_t *decision) {
  uint32_t last = router->backbone_count - 1;
  decision->backbone_count = router->backbone_count;
  decision->level = VLART_LEVEL_TASK;
  for (uint32_t k = 0; k <= last; k++) {
    uint32_t level = posterior(router, decision->route, k, &decision->alpha[k], &decision->beta[k]);
    decision->level = level > decision->level ? level : decision->level;
  }
  for (uint32_t k = 0; k <= last; k++) {
    double alpha = decision->alpha[k];
    double beta = decision->beta[k];
    decision->probability[k] =
        k == last ? 1.0
                  : vlart_beta_not_worse(alpha, beta, decision->alpha[last], decision->beta[last],
                                         router->rule->delta);
    decision->cost_ms[k] = cost(router, decision->route, k, alpha / (alpha + beta));
  }
  decision->backbone = last;
  for (uint32_t k = last + 1; k > 0; k--) {
    if (decision->probability[k - 1] >= router->rule->tau &&
        decision->cost_ms[k - 1] <= decision->cost_ms[decision->backbone]) {
      decision->backbone = k - 1;
    }
  }
}
