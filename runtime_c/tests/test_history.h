/* Part of test_session. */
#ifndef TEST_HISTORY_H
#define TEST_HISTORY_H

#include "vlart/vlart.h"

/* On a session of sample_bundles.Recall that has seen nothing yet. */
void test_history(vlart_bundle_t *bundle, vlart_session_t *session);

#endif
