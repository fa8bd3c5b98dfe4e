/* What ends with a task and with an episode: the one place that says so. Every consumer (a session, asynchronous
   control, lanes, and through them router, server and plugin) ends them by these functions.

     what                                                    ends with
     queue: the chunk, its mark as stale; histories and
       delayed values; the last action (what is held, what
       a step is limited from); sets of lanes that hold
       observations; a prefix that the caller wrote; that a
       source of class observation or tick may be read       episode
     temporal ensemble; the real-time chunk that the next
       one continues; asynchronously the chunk that is
       computed, and its deadline                            task, episode
     a carried value; where its record says so, also         episode
       with a task; where a step did not run what makes it,
       with that step
     instruction, backbone                                   the next one
     content, numbers and ages of sources, counters          session

   A task begins where a source of class task changes, or another backbone is selected; what belongs to the last one
   ends when the first chunk of the new one comes, so that the robot can go on until then. */
#ifndef VLART_LIFETIMES_H
#define VLART_LIFETIMES_H

#include <stdbool.h>

#include "vlart/vlart.h"

/* Which task a session is at. */
typedef struct {
  uint64_t sources;  /* bit i: source i is of class task */
  uint64_t versions; /* of these, added, when the last chunk came */
  uint32_t value;    /* the action value that it came from */
  uint64_t number;   /* tasks that gave a chunk */
  bool
      ended; /* since then, by a call: the next chunk is of another one, whatever the sources say */
} vlart_task_t;

/* [init] */
void vlart_task_init(vlart_session_t *session);

/* The versions of the sources of class task that are needed, added: equal only where none of them changed. */
uint64_t vlart_task_versions(const vlart_session_t *session);

/* [tick] Whether the sources ask for another task than the last chunk was for. */
bool vlart_task_is_another(const vlart_session_t *session);

/* [tick] Before the stages run: the real-time chunk of another task is not continued. */
void vlart_task_before_stages(vlart_session_t *session);

/* [tick] A good chunk came: what was predicted for another task ends. */
void vlart_task_published(vlart_session_t *session);

/* [tick] Asynchronously, where another instruction was announced. */
void vlart_end_task(vlart_session_t *session);

/* [tick] */
void vlart_end_episode(vlart_session_t *session);

#endif
