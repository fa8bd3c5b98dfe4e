/* Part of vlart.h: an observation as one thing: written whole, from any thread, and named by every action that was
   made of it.

   vlart_session_write belongs to the session's thread, one source at a time: two threads that write between two steps
   would make an observation that nobody saw, and the second one is refused (BAD_ARGUMENT). The functions here take all
   sources of a moment as one set, from any thread (a camera's callback, say), while the session's thread steps and
   pops: the set lies ready, and the next step, observe, write or request takes the newest one, whole. Sources that no
   set had since are as they were. Phases, ownership and structs are as in vlart.h. */
#ifndef VLART_OBSERVATIONS_H
#define VLART_OBSERVATIONS_H

#include "vlart/vlart.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One source's content; dims as for vlart_session_write. In an array struct_size is the distance between two. */
typedef struct {
  size_t struct_size;
  uint32_t source;
  uint32_t dtype; /* VLART_DTYPE_... */
  uint32_t rank;
  uint32_t reserved;
  size_t bytes;
  const void *data;
  const uint64_t *dims;
} vlart_tensor_t;

/* What the action that was handed out last was made of. */
typedef struct {
  size_t struct_size;
  uint64_t observation; /* name of the newest observation in it; 0: none, as of the safe action */
  uint64_t chunk;       /* number of the chunk, from 1; of a mean: the newest */
  uint32_t row;         /* of that chunk */
  uint32_t clipped;     /* numbers that the plan's rate limit held back */
  /* which step of each lane made the set that the chunk was computed with; 0: it follows no such lane */
  uint64_t lanes[VLART_MAX_LANES];
} vlart_action_info_t;

/* [tick] Writes `count` sources as one observation: all of them, or on any error none, and then nothing has changed.
   `observation`: its name, such as a frame number or a time; 0: the time. `time_us`: when it was captured, on the clock
   that ages are counted on; 0: when it is taken. Any thread; those that write wait for each other, never for a step, and
   whoever is waited for runs as urgently as who waits. */
VLART_API vlart_status_t vlart_session_write_all(vlart_session_t *session,
                                                 const vlart_tensor_t *tensors, size_t count,
                                                 uint64_t observation, uint64_t time_us,
                                                 vlart_diag_t *diag);

/* [tick] The same into the next request. Any thread. */
VLART_API vlart_status_t vlart_async_write_all(vlart_async_t *async, const vlart_tensor_t *tensors,
                                               size_t count, uint64_t observation, uint64_t time_us,
                                               vlart_diag_t *diag);

/* [tick] QUEUE_EMPTY: no action was handed out in this episode. Sources that were written one by one name their
   observation by the time of the last write, in microseconds. The session's thread, or the control thread. */
VLART_API vlart_status_t vlart_session_popped(const vlart_session_t *session,
                                              vlart_action_info_t *out_info);
VLART_API vlart_status_t vlart_async_popped(const vlart_async_t *async,
                                            vlart_action_info_t *out_info);

#ifdef __cplusplus
}
#endif

#endif
