/* Which instructions the processor has, for what engines make for it alone. */
#ifndef VLART_PROCESSOR_H
#define VLART_PROCESSOR_H

#include <stdint.h>

enum { VLART_PROCESSOR_WORDS = 16 };

/* Equal words: the same model of processor with the same instructions switched on. */
void vlart_processor_describe(uint32_t out_words[VLART_PROCESSOR_WORDS]);

#endif
