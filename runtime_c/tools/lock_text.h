/* Prints the record of built engines as text, a line per engine. */
#ifndef VLART_LOCK_TEXT_H
#define VLART_LOCK_TEXT_H

#include <stdio.h>

#include "container/engine_lock.h"

void vlart_lock_print(FILE *out, const vlart_engine_lock_t *lock);

#endif
