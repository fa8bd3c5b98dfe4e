/* The stages of a tick as one launch. */
#ifndef VLART_GRAPH_CAPTURE_H
#define VLART_GRAPH_CAPTURE_H

#include "vlart/vlart.h"

/* [init] Captures the stages up to the action stage that change within a task. */
vlart_status_t vlart_graph_capture(vlart_session_t *session, vlart_diag_t *diag);

/* [tick] Launches them; what they gave is valid once the caller says so. */
vlart_status_t vlart_graph_launch(vlart_session_t *session, vlart_diag_t *diag);

#endif
