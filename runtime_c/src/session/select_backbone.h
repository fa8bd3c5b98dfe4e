/* Which of the bundle's backbones a session runs. */
#ifndef VLART_SELECT_BACKBONE_H
#define VLART_SELECT_BACKBONE_H

#include "plan/plan.h"

/* BAD_ARGUMENT where the plan has no such backbone and it is not VLART_BACKBONE_ALL. */
vlart_status_t vlart_check_backbone(const vlart_plan_t *plan, uint32_t backbone, const char *call,
                                    vlart_diag_t *diag);

/* Bit i: backbone i is one of those that a caller selects with `backbone`. */
uint32_t vlart_backbone_bits(uint32_t backbone);

/* [tick] Bit i: what serves one of `backbones` depends on source i. */
uint64_t vlart_sources_of(const vlart_session_t *session, uint32_t backbones);

/* [tick] Of buckets: runs the first that reads all tokens of the text, and none below the one that
   the caller selected. */
void vlart_follow_text(vlart_session_t *session);

/* The value that stands for the policy whose actions are handed out: buckets are one policy. */
uint32_t vlart_policy_value(const vlart_session_t *session);

#endif
