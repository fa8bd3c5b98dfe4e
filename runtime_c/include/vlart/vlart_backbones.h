/* Part of vlart.h: several backbones in one bundle.

   A bundle may hold several policies that were joined: light and heavy ones that share every stage
   which they have in common. A session runs one of them at a time, the first one unless another is
   selected: the stages that serve it, from the sources that it reads. What another one left behind
   stays valid as long as its sources do not change, so that going back costs what has changed.
   Which one to run is the caller's choice, or a router's (vlart_router.h), whose backbones have the
   same names.

   Or it is the text's: backbones may be one policy compiled for several lengths of its text (buckets).
   Then every step runs the shortest that reads all tokens, as the mask says, and `select` says below
   which none is run: the first, unless another is selected. */
#ifndef VLART_BACKBONES_H
#define VLART_BACKBONES_H

#include "vlart/vlart.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VLART_BACKBONE_ALL 0xFFFFFFFFu /* run all of them; the first one's chunk feeds the queue */

/* The name of a backbone; NULL where there is none of this index. A bundle of one policy has none.
   Any thread. */
VLART_API const char *vlart_bundle_backbone(const vlart_bundle_t *bundle, uint32_t backbone);

/* Index by name; NOT_FOUND without a diagnostic. Any thread. */
VLART_API vlart_status_t vlart_bundle_find_backbone(const vlart_bundle_t *bundle, const char *name,
                                                    uint32_t *out_backbone);

/* Tokens of text that a backbone reads; 0 where the text does not decide, or there is none of this
   index. Any thread. */
VLART_API uint32_t vlart_bundle_text_length(const vlart_bundle_t *bundle, uint32_t backbone);

/* The backbone that the last step ran (or observe, or `select` since): of buckets, the one that its text asked for. VLART_BACKBONE_ALL
   where all are selected; 0 where the bundle is one policy. The session's thread. */
VLART_API vlart_status_t vlart_session_backbone(const vlart_session_t *session,
                                                uint32_t *out_backbone);

/* [tick] From the next step (or observe) on this one is run. The queue keeps the actions that it
   has until that step gives others. The session's thread. */
VLART_API vlart_status_t vlart_session_select(vlart_session_t *session, uint32_t backbone,
                                              vlart_diag_t *diag);

/* [tick] The same from the next request on. The control thread. */
VLART_API vlart_status_t vlart_async_select(vlart_async_t *async, uint32_t backbone,
                                            vlart_diag_t *diag);

#ifdef __cplusplus
}
#endif

#endif
