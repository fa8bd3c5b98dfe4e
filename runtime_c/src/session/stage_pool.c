/* [init], [tick] Threads that run the stages of one session, and who runs what. */
#include "session/stage_pool.h"

#include <errno.h>
#include <limits.h>

#include "base/diag.h"
#include "base/struct_size.h"
#include "session/session.h"

enum { IDLE, BLOCKED, READY, RUNNING, DONE, FAILED };

/* Waking a thread costs about as much as a stage of this length. */
#define WORTH_WAKING_NS 20000u

static uint32_t input_count(const vlart_plan_t *plan) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    count += vlart_plan_stage(plan, i)->input_count;
  }
  return count;
}

void vlart_pool_take(vlart_stage_pool_t *pool, const vlart_plan_t *plan, uint32_t parallel,
                     vlart_arena_t *arena) {
  if (parallel < 2) {
    return;
  }
  pool->worker_count = parallel - 1;
  pool->stages = vlart_arena_take(arena, plan->stage_count, sizeof *pool->stages);
  pool->edges = vlart_arena_take(arena, input_count(plan), sizeof *pool->edges);
  pool->order = vlart_arena_take(arena, plan->stage_count, sizeof *pool->order);
  pool->workers = vlart_arena_take(arena, pool->worker_count, sizeof *pool->workers);
}

/* The stage that writes what an input binding reads; VLART_NONE: none. */
static uint32_t writer_of(const vlart_plan_t *plan, uint32_t stage, uint32_t input) {
  uint32_t binding = vlart_plan_stage(plan, stage)->input_begin + input;
  vlart_writer_t writer = plan->writers[vlart_plan_binding(plan, binding)->value];
  return writer.origin == VLART_ORIGIN_STAGE && writer.index != stage ? writer.index : VLART_NONE;
}

static void find_edges(vlart_stage_pool_t *pool, const vlart_plan_t *plan) {
  uint32_t end = 0;
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    pool->stages[i].edge_begin = end;
    for (uint32_t j = i + 1; j < plan->stage_count; j++) {
      for (uint32_t k = 0; k < vlart_plan_stage(plan, j)->input_count; k++) {
        if (writer_of(plan, j, k) == i) {
          pool->edges[end++] = j;
        }
      }
    }
    pool->stages[i].edge_count = end - pool->stages[i].edge_begin;
  }
}

/* Readers come later in the plan. */
static void find_chains(vlart_stage_pool_t *pool, const vlart_plan_t *plan) {
  uint32_t value = plan->policy->action_value;
  uint32_t last = value == VLART_NONE ? VLART_NONE : plan->writers[value].index;
  for (uint32_t i = plan->stage_count; i > 0; i--) {
    vlart_pool_stage_t *stage = &pool->stages[i - 1];
    const vlart_stage_record_t *record = vlart_plan_stage(plan, i - 1);
    stage->acts = last == VLART_NONE || plan->backbone_count > 0 || i - 1 == last;
    for (uint32_t e = 0; e < stage->edge_count; e++) {
      const vlart_pool_stage_t *behind = &pool->stages[pool->edges[stage->edge_begin + e]];
      stage->acts = stage->acts || behind->acts;
      stage->chain = behind->chain > stage->chain ? behind->chain : stage->chain;
    }
    stage->chain += 1.0 + (double)record->flops * (double)record->iterations;
  }
}

static bool is_before(const vlart_pool_stage_t *a, const vlart_pool_stage_t *b) {
  return a->acts != b->acts ? a->acts : a->chain > b->chain;
}

static void find_order(vlart_stage_pool_t *pool, const vlart_plan_t *plan) {
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    uint32_t at = i;
    for (; at > 0 && is_before(&pool->stages[i], &pool->stages[pool->order[at - 1]]); at--) {
      pool->order[at] = pool->order[at - 1];
    }
    pool->order[at] = i;
  }
}

static bool is_worth_waking(const vlart_session_t *session, uint32_t stage) {
  const vlart_stage_state_t *state = &session->stages[stage];
  return session->pool.stages[stage].anywhere &&
         (state->min_ns == 0 || state->min_ns >= WORTH_WAKING_NS);
}

static void wake(vlart_stage_pool_t *pool, uint32_t count) {
  for (uint32_t i = 0; i < count && i < pool->worker_count; i++) {
    sem_post(&pool->work);
  }
}

/* The stage with the longest way to the actions, for this thread; VLART_NONE: none is ready. After one failed only
   those before it in the plan are run: had they been run one by one, it would not have been reached. */
static uint32_t claim(vlart_stage_pool_t *pool, uint32_t stage_count, bool is_caller) {
  for (uint32_t k = 0; k < stage_count; k++) {
    vlart_pool_stage_t *stage = &pool->stages[pool->order[k]];
    unsigned ready = READY;
    if (atomic_load_explicit(&stage->state, memory_order_relaxed) == READY &&
        (is_caller || stage->anywhere) &&
        pool->order[k] < atomic_load_explicit(&pool->failed, memory_order_acquire) &&
        atomic_compare_exchange_strong_explicit(&stage->state, &ready, RUNNING,
                                                memory_order_acq_rel, memory_order_relaxed)) {
      return pool->order[k];
    }
  }
  return VLART_NONE;
}

/* Whether a stage runs or may be run. Looked at in the plan's order, in which what a stage reads comes before it: one
   that was BLOCKED behind a stage that is over when it was looked at is READY when it is looked at itself. What is READY
   and will not be run is taken out of every thread's reach. */
static bool is_active(vlart_stage_pool_t *pool, uint32_t stage_count) {
  for (uint32_t i = 0; i < stage_count; i++) {
    atomic_uint *at = &pool->stages[i].state;
    unsigned state = atomic_load_explicit(at, memory_order_acquire);
    if (state == READY && i >= atomic_load_explicit(&pool->failed, memory_order_acquire)) {
      atomic_compare_exchange_strong_explicit(at, &state, BLOCKED, memory_order_acq_rel,
                                              memory_order_acquire);
      if (state == READY) {
        continue;
      }
    }
    if (state == READY || state == RUNNING) {
      return true;
    }
  }
  return false;
}

static void release_readers(vlart_session_t *session, const vlart_pool_stage_t *stage) {
  vlart_stage_pool_t *pool = &session->pool;
  uint32_t woken = 0;
  for (uint32_t e = 0; e < stage->edge_count; e++) {
    uint32_t reader = pool->edges[stage->edge_begin + e];
    vlart_pool_stage_t *behind = &pool->stages[reader];
    if (atomic_load_explicit(&behind->state, memory_order_relaxed) == BLOCKED &&
        atomic_fetch_sub_explicit(&behind->waits, 1, memory_order_acq_rel) == 1) {
      woken += is_worth_waking(session, reader);
      atomic_store_explicit(&behind->state, READY, memory_order_release);
    }
  }
  wake(pool, woken > 0 ? woken - 1 : 0); /* this thread takes one */
}

static void fail(vlart_stage_pool_t *pool, uint32_t index) {
  unsigned first = atomic_load_explicit(&pool->failed, memory_order_relaxed);
  while (index < first &&
         !atomic_compare_exchange_weak_explicit(&pool->failed, &first, index, memory_order_acq_rel,
                                                memory_order_relaxed)) {
  }
}

/* A thread that failed runs nothing but earlier stages afterwards, so that what it says last is of the earliest. */
static void run_claimed(vlart_session_t *session, uint32_t index, vlart_diag_t *diag) {
  vlart_stage_pool_t *pool = &session->pool;
  vlart_pool_stage_t *stage = &pool->stages[index];
  stage->diag = diag;
  stage->status = vlart_stage_run(session, index, &pool->clock, &stage->refused, diag);
  if (stage->status == VLART_STATUS_OK) {
    release_readers(session, stage);
    atomic_store_explicit(&stage->state, DONE, memory_order_release);
  } else {
    fail(pool, index);
    atomic_store_explicit(&stage->state, FAILED, memory_order_release);
  }
}

static void *work(void *given) {
  vlart_pool_worker_t *worker = given;
  vlart_stage_pool_t *pool = &worker->session->pool;
  uint32_t stage_count = worker->session->bundle->plan.stage_count;
  while (!atomic_load_explicit(&pool->stopped, memory_order_acquire)) {
    if (sem_wait(&pool->work) != 0) {
      continue; /* a signal */
    }
    uint32_t stage;
    while ((stage = claim(pool, stage_count, false)) != VLART_NONE) {
      run_claimed(worker->session, stage, &worker->diag);
      sem_post(&pool->done);
    }
  }
  return NULL;
}

static vlart_status_t refuse(const char *call, int error, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_OUT_OF_MEMORY, "the system refused a thread for the stages",
             "allow more threads or memory, or ask for fewer stages at a time (parallel)");
  vlart_where(diag, "vlart_session_init");
  vlart_why(diag, "%s failed with errno %u", call, (unsigned)error);
  return VLART_STATUS_OUT_OF_MEMORY;
}

vlart_status_t vlart_pool_start(vlart_session_t *session, vlart_diag_t *diag) {
  vlart_stage_pool_t *pool = &session->pool;
  const vlart_plan_t *plan = &session->bundle->plan;
  if (pool->worker_count == 0) {
    return VLART_STATUS_OK;
  }
  find_edges(pool, plan);
  find_chains(pool, plan);
  find_order(pool, plan);
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    pool->stages[i].anywhere = session->stages[i].backend->concurrent;
  }
  if (sem_init(&pool->work, 0, 0) != 0) {
    return refuse("sem_init", errno, diag);
  }
  if (sem_init(&pool->done, 0, 0) != 0) {
    int error = errno;
    sem_destroy(&pool->work);
    return refuse("sem_init", error, diag);
  }
  pool->open = true;
  pool->diag.struct_size = sizeof pool->diag;
  for (uint32_t i = 0; i < pool->worker_count; i++) {
    vlart_pool_worker_t *worker = &pool->workers[i];
    worker->session = session;
    worker->diag.struct_size = sizeof worker->diag;
    int error = pthread_create(&worker->thread, NULL, work, worker);
    if (error != 0) {
      return refuse("pthread_create", error, diag);
    }
    pool->started++;
  }
  return VLART_STATUS_OK;
}

void vlart_pool_stop(vlart_session_t *session) {
  vlart_stage_pool_t *pool = &session->pool;
  atomic_store_explicit(&pool->stopped, true, memory_order_release);
  for (uint32_t i = 0; i < pool->started; i++) {
    sem_post(&pool->work);
  }
  for (uint32_t i = 0; i < pool->started; i++) {
    pthread_join(pool->workers[i].thread, NULL);
  }
  if (pool->open) {
    sem_destroy(&pool->work);
    sem_destroy(&pool->done);
  }
}

/* Which stages are due follows from the sources alone, so that it is known before the first runs. A worker that is late
   from the last step may take a stage as soon as it is READY: all else is written before the first is. */
static uint32_t set_up(vlart_session_t *session, bool (*ours)(const vlart_session_t *, uint32_t)) {
  vlart_stage_pool_t *pool = &session->pool;
  const vlart_plan_t *plan = &session->bundle->plan;
  uint32_t due = 0;
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    bool runs = ours(session, i) && !vlart_stage_is_current(session, i);
    atomic_store_explicit(&pool->stages[i].state, runs ? BLOCKED : IDLE, memory_order_relaxed);
    atomic_store_explicit(&pool->stages[i].waits, 0, memory_order_relaxed);
    due += runs;
  }
  for (uint32_t i = 0; i < plan->stage_count; i++) {
    const vlart_pool_stage_t *stage = &pool->stages[i];
    bool runs = atomic_load_explicit(&stage->state, memory_order_relaxed) == BLOCKED;
    for (uint32_t e = 0; runs && e < stage->edge_count; e++) {
      atomic_fetch_add_explicit(&pool->stages[pool->edges[stage->edge_begin + e]].waits, 1,
                                memory_order_relaxed);
    }
  }
  return due;
}

/* Returns how many are worth another thread. A stage that waits for nothing keeps that, whoever runs meanwhile. */
static uint32_t make_ready(vlart_session_t *session) {
  vlart_stage_pool_t *pool = &session->pool;
  uint32_t worth = 0, count = session->bundle->plan.stage_count;
  for (uint32_t i = count; i > 0;
       i--) { /* readers before what they read: none of them is made READY twice */
    vlart_pool_stage_t *stage = &pool->stages[i - 1];
    if (atomic_load_explicit(&stage->state, memory_order_relaxed) == BLOCKED &&
        atomic_load_explicit(&stage->waits, memory_order_relaxed) == 0) {
      worth += is_worth_waking(session, i - 1);
      atomic_store_explicit(&stage->state, READY, memory_order_release);
    }
  }
  return worth;
}

void vlart_pool_run(vlart_session_t *session, bool (*ours)(const vlart_session_t *, uint32_t),
                    const vlart_clock_limit_t *clock) {
  vlart_stage_pool_t *pool = &session->pool;
  uint32_t count = session->bundle->plan.stage_count;
  pool->ran = false;
  /* Until a history is filled, values move between the stages of a step. */
  if (pool->worker_count == 0 || session->graph.begin < session->graph.end ||
      (session->bundle->plan.delay_count > 0 && !session->history.filled)) {
    return;
  }
  if (set_up(session, ours) < 2) {
    return;
  }
  pool->ran = true;
  pool->clock = *clock;
  atomic_store_explicit(&pool->failed, UINT_MAX, memory_order_relaxed);
  uint32_t worth = make_ready(session);
  wake(pool, worth > 0 ? worth - 1 : 0);
  for (;;) {
    uint32_t stage = claim(pool, count, true);
    if (stage != VLART_NONE) {
      run_claimed(session, stage, &pool->diag);
    } else if (is_active(pool, count)) {
      while (sem_wait(&pool->done) != 0) {
      }
    } else {
      break;
    }
  }
  while (sem_trywait(&pool->done) == 0) {
  }
}

bool vlart_pool_ended(vlart_session_t *session, uint32_t stage, vlart_status_t *out_status,
                      bool *out_refused, vlart_diag_t *diag) {
  vlart_stage_pool_t *pool = &session->pool;
  if (!pool->ran) {
    return false;
  }
  vlart_pool_stage_t *ended = &pool->stages[stage];
  unsigned state = atomic_load_explicit(&ended->state, memory_order_acquire);
  if (state != DONE && state != FAILED) {
    return false;
  }
  *out_status = ended->status;
  *out_refused = ended->refused;
  if (state == FAILED && diag != NULL) {
    vlart_copy_out(diag, ended->diag, sizeof *ended->diag);
  }
  return true;
}
