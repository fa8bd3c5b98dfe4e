/* Hands the newest of a kind of thing from one thread to one other without waiting: three slots, of
   which each side owns one and the third lies between them. Whoever is faster overwrites what the
   other has not taken. */
#ifndef VLART_HANDOVER_H
#define VLART_HANDOVER_H

#include <stdatomic.h>
#include <stdbool.h>

#define VLART_SLOTS 3u
#define VLART_FRESH 4u /* the slot between them was not taken yet */

typedef struct {
  atomic_uint between; /* index of the slot between, with VLART_FRESH */
  unsigned back;       /* the giver's */
  unsigned front;      /* the taker's */
} vlart_handover_t;

static inline void vlart_handover_init(vlart_handover_t *h) {
  atomic_init(&h->between, 1);
  h->back = 0;
  h->front = 2;
}

/* The giver's slot becomes the newest; it owns another one afterwards. */
static inline void vlart_handover_give(vlart_handover_t *h) {
  unsigned old = atomic_exchange_explicit(&h->between, h->back | VLART_FRESH, memory_order_acq_rel);
  h->back = old & ~VLART_FRESH;
}

/* Whether there was a new one; it is the taker's slot then. */
static inline bool vlart_handover_take(vlart_handover_t *h) {
  if ((atomic_load_explicit(&h->between, memory_order_relaxed) & VLART_FRESH) == 0) {
    return false;
  }
  unsigned old = atomic_exchange_explicit(&h->between, h->front, memory_order_acq_rel);
  h->front = old & ~VLART_FRESH;
  return true;
}

#endif
