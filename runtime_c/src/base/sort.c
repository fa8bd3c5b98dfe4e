/* Heap sort: n log n in the worst case too, which a damaged plan may well be. */
#include "base/sort.h"

static void sift(uint32_t *heap, uint32_t root, uint32_t count, vlart_less_t less,
                 const void *context) {
  uint32_t moved = heap[root];
  while (root < count / 2) {
    uint32_t child = 2 * root + 1;
    if (child + 1 < count && less(context, heap[child], heap[child + 1])) {
      child++;
    }
    if (!less(context, moved, heap[child])) {
      break;
    }
    heap[root] = heap[child];
    root = child;
  }
  heap[root] = moved;
}

void vlart_sort(uint32_t *indices, uint32_t count, vlart_less_t less, const void *context) {
  for (uint32_t i = count / 2; i > 0; i--) {
    sift(indices, i - 1, count, less, context);
  }
  for (uint32_t end = count; end > 1; end--) {
    uint32_t largest = indices[0];
    indices[0] = indices[end - 1];
    indices[end - 1] = largest;
    sift(indices, 0, end - 1, less, context);
  }
}
