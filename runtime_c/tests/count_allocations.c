#include "count_allocations.h"

#include "check.h"

atomic_ullong allocations;
_Thread_local uint64_t own_allocations;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void __real_free(void *memory);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void __wrap_free(void *memory);

static void count(void) {
  atomic_fetch_add(&allocations, 1);
  own_allocations++;
}

void *__wrap_malloc(size_t bytes) {
  count();
  return __real_malloc(bytes);
}

void *__wrap_calloc(size_t items, size_t bytes) {
  count();
  return __real_calloc(items, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes) {
  count();
  return __real_realloc(memory, bytes);
}

void __wrap_free(void *memory) {
  count();
  __real_free(memory);
}

void *test_take(size_t bytes) {
  void *memory = __real_malloc(bytes > 0 ? bytes : 1);
  CHECK(memory != NULL);
  return memory;
}

void test_give(void *memory) { __real_free(memory); }
