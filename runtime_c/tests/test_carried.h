/* Part of test_session. */
#ifndef TEST_CARRIED_H
#define TEST_CARRIED_H

#include "vlart/vlart.h"

/* On a session of sample_carried.Adding that has seen nothing yet. */
void test_carried(vlart_bundle_t *bundle, vlart_session_t *session);

#endif
