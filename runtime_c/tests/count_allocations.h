/* Counts the calls of malloc, calloc, realloc and free that the objects of a program make, libvlart's among them.
   Linked with --wrap of the four (the Makefile's WRAP); what tests need themselves they take from test_take. */
#ifndef VLART_TESTS_COUNT_ALLOCATIONS_H
#define VLART_TESTS_COUNT_ALLOCATIONS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

extern atomic_ullong allocations;              /* by all threads */
extern _Thread_local uint64_t own_allocations; /* by this one */

/* Memory that is not counted; ends the program where there is none. */
void *test_take(size_t bytes);
void test_give(void *memory);

#endif
