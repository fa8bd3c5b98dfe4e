/* The stand-in for the engine of a stage that another session runs. */
#ifndef VLART_REMOTE_STAGES_H
#define VLART_REMOTE_STAGES_H

#include "bundle/backend.h"

extern const vlart_backend_t vlart_backend_remote;

#endif
