/* [init] The recorder and its thread, which empties the tracks into the file. */
#include "record/recorder.h"

#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/diag.h"
#include "base/struct_size.h"
#include "container/container.h"

enum { LOOK_EVERY_MS = 5, MEGABYTE = 1 << 20 };
#define KEYFRAMES_PER_LAP 8u

/* ---- the thread -------------------------------------------------------------------------------- */

/* An event lies in the ring in 8-byte pieces. */
static uint32_t payload_at(const vlart_track_t *track, size_t at) {
  const uint8_t *data;
  uint32_t bytes;
  vlart_track_piece(track, at, sizeof bytes, &data);
  memcpy(&bytes, data, sizeof bytes);
  return bytes;
}

/* All whole events that are there by now. Whether there was one. */
static bool empty_track(vlart_recorder_t *recorder, vlart_track_t *track, uint64_t now) {
  size_t waiting = vlart_track_waiting(track);
  for (size_t at = 0; at < waiting;) {
    size_t end = at + vlart_event_bytes(payload_at(track, at));
    vlart_block_writer_begin(&recorder->writer, now);
    while (at < end) {
      const uint8_t *data;
      size_t piece = vlart_track_piece(track, at, end - at, &data);
      vlart_block_writer_put(&recorder->writer, data, piece);
      at += piece;
    }
    vlart_wall_clock_keep(&recorder->clock, &recorder->writer, now);
  }
  vlart_track_taken(track, waiting);
  return waiting > 0;
}

static void empty_tracks(vlart_recorder_t *recorder, uint64_t now) {
  uint32_t used = atomic_load_explicit(&recorder->used, memory_order_acquire);
  for (uint32_t i = 0; i < used && i < recorder->options.tracks; i++) {
    if (atomic_load_explicit(&recorder->tracks[i].open, memory_order_acquire)) {
      empty_track(recorder, &recorder->tracks[i], now);
    }
  }
  vlart_block_writer_t *writer = &recorder->writer;
  if (writer->untold) {
    writer->untold = false;
    vlart_block_writer_tell(writer, writer->lost, VLART_MAX_TRACKS, VLART_EVENT_ROLE_WRITER, now);
    vlart_wall_clock_repeat(&recorder->clock, writer, now);
  }
}

static bool is_over(uint64_t since, uint64_t now, uint32_t ms) {
  return ms != VLART_RECORD_NEVER && now - since >= (uint64_t)ms * 1000000;
}

/* What was dropped after the last event that a track took; its owner has ended. */
static void tell_the_rest(vlart_recorder_t *recorder) {
  uint64_t now = vlart_now_ns();
  uint32_t used = atomic_load_explicit(&recorder->used, memory_order_acquire);
  for (uint32_t i = 0; i < used && i < recorder->options.tracks; i++) {
    if (recorder->tracks[i].lost.events > 0) {
      vlart_block_writer_tell(&recorder->writer, recorder->tracks[i].lost, i,
                              recorder->tracks[i].role, now);
    }
  }
  if (recorder->writer.lost.blocks > 0) {
    vlart_block_writer_tell(&recorder->writer, recorder->writer.lost, VLART_MAX_TRACKS,
                            VLART_EVENT_ROLE_WRITER, now);
  }
  vlart_block_writer_flush(&recorder->writer, true);
  vlart_block_writer_sync(&recorder->writer, now);
}

static void *serve(void *given) {
  vlart_recorder_t *recorder = given;
  vlart_block_writer_t *writer = &recorder->writer;
  bool last = false;
  while (!last) {
    last = atomic_load_explicit(&recorder->stopped, memory_order_acquire);
    vlart_wall_clock_look(&recorder->clock, writer);
    uint64_t now = vlart_now_ns();
    empty_tracks(recorder, now);
    bool due = writer->used > 0 && is_over(writer->since_ns, now, recorder->options.flush_ms);
    vlart_block_writer_flush(writer, due);
    if (is_over(writer->synced_ns, now, recorder->options.sync_ms)) {
      vlart_block_writer_sync(writer, now);
    }
    struct timespec pause = {0, LOOK_EVERY_MS * 1000000L};
    if (!last) {
      nanosleep(&pause, NULL);
    }
  }
  tell_the_rest(recorder);
  return NULL;
}

void vlart_recorder_close(vlart_recorder_t *recorder) {
  if (recorder == NULL) {
    return;
  }
  atomic_store_explicit(&recorder->stopped, true, memory_order_release);
  pthread_join(recorder->thread, NULL);
  vlart_block_writer_close(&recorder->writer);
}

/* Not with the priority of the thread that made it, which may be a control loop's. Signals are for the program's own
   threads; and one that the disk sends (SIGXFSZ, where a file may not grow) is a write that failed, no end of the
   program. */
static int start(vlart_recorder_t *recorder) {
  pthread_attr_t attributes;
  sigset_t all, before;
  struct sched_param ordinary = {.sched_priority = 0};
  int error = pthread_attr_init(&attributes);
  if (error != 0) {
    return error;
  }
  pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
  pthread_attr_setschedpolicy(&attributes, SCHED_OTHER);
  pthread_attr_setschedparam(&attributes, &ordinary);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  error = pthread_create(&recorder->thread, &attributes, serve, recorder);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return error;
}

/* ---- [init] ------------------------------------------------------------------------------------ */

/* Bytes of all sources of a plan, whose container is checked here. */
static vlart_status_t source_bytes(const void *plan, size_t bytes, vlart_diag_t *diag,
                                   uint64_t *out_bytes) {
  vlart_container_t file;
  vlart_status_t status =
      vlart_container_open(plan, bytes, VLART_PLAN_MAGIC, "plan.bin", diag, &file);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  *out_bytes = 0;
  for (uint32_t i = 0; i < file.tables[VLART_SECTION_SOURCES].count; i++) {
    const vlart_source_record_t *source = vlart_record(&file.tables[VLART_SECTION_SOURCES], i);
    const vlart_value_record_t *value =
        vlart_record(&file.tables[VLART_SECTION_VALUES], source->value);
    *out_bytes += value->bytes + sizeof(vlart_event_record_t) + sizeof(vlart_source_event_record_t);
  }
  return VLART_STATUS_OK;
}

static vlart_status_t read_options(const void *plan, size_t plan_bytes,
                                   const vlart_recorder_options_t *given, const char *call,
                                   vlart_diag_t *diag, vlart_recorder_options_t *out) {
  uint64_t sources;
  *out = (vlart_recorder_options_t){0};
  if (plan == NULL || (uintptr_t)plan % 8 != 0) {
    return vlart_bad_argument(diag, call, "the plan is NULL or not 8-byte aligned");
  }
  vlart_status_t status = vlart_copy_in(out, sizeof *out, sizeof *out, given, call, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  if (given == NULL || out->path == NULL || out->path[0] == '\0') {
    return vlart_bad_argument(diag, call, "the recording has no path");
  }
  status = source_bytes(plan, plan_bytes, diag, &sources);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  out->file_bytes = out->file_bytes == 0 ? 64ull * MEGABYTE : out->file_bytes;
  out->track_bytes = out->track_bytes == 0 ? 8 * sources + MEGABYTE : out->track_bytes;
  out->tracks = out->tracks == 0 ? 4 : out->tracks;
  out->flush_ms = out->flush_ms == 0 ? 100 : out->flush_ms;
  out->sync_ms = out->sync_ms == 0 ? 1000 : out->sync_ms;
  if (out->full > 1) {
    return vlart_bad_argument(diag, call, "full is neither 0 nor 1");
  }
  if (out->tracks > VLART_MAX_TRACKS) {
    return vlart_bad_argument(diag, call, "more than 64 tracks are asked for");
  }
  if (out->file_bytes < VLART_MIN_RECORDING || out->file_bytes > VLART_MAX_RECORDING) {
    return vlart_bad_argument(diag, call, "file_bytes is not between 64 KiB and 1 TiB");
  }
  if (out->track_bytes < 4096 || out->track_bytes > VLART_MAX_RECORDING) {
    return vlart_bad_argument(diag, call, "track_bytes is not between 4 KiB and 1 TiB");
  }
  out->track_bytes = out->track_bytes / VLART_EVENT_ALIGN * VLART_EVENT_ALIGN;
  return VLART_STATUS_OK;
}

static vlart_recorder_t *take_recorder(const vlart_recorder_options_t *options,
                                       vlart_arena_t *arena, uint8_t **out_batch,
                                       vlart_track_t **out_tracks) {
  vlart_recorder_t *recorder = vlart_arena_take(arena, 1, sizeof *recorder);
  *out_batch = vlart_arena_take(arena, VLART_BATCH_BLOCKS, VLART_RECORDING_BLOCK);
  *out_tracks = vlart_arena_take(arena, options->tracks, sizeof **out_tracks);
  for (uint32_t i = 0; i < options->tracks; i++) {
    uint8_t *ring = vlart_arena_take(arena, options->track_bytes, 1);
    if (*out_tracks != NULL) {
      (*out_tracks)[i].ring = ring;
    }
  }
  return recorder;
}

vlart_status_t vlart_recorder_required_bytes(const void *plan, size_t plan_bytes,
                                             const vlart_recorder_options_t *options,
                                             vlart_diag_t *diag, size_t *out_bytes) {
  const char *call = "vlart_recorder_required_bytes";
  vlart_recorder_options_t chosen;
  if (out_bytes == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  vlart_status_t status = read_options(plan, plan_bytes, options, call, diag, &chosen);
  if (status == VLART_STATUS_OK) {
    vlart_arena_t arena;
    uint8_t *batch;
    vlart_track_t *tracks;
    vlart_arena_measure(&arena);
    take_recorder(&chosen, &arena, &batch, &tracks);
    *out_bytes = vlart_arena_required(&arena);
  }
  return status;
}

static void set_up(vlart_recorder_t *recorder) {
  for (uint32_t i = 0; i < recorder->options.tracks; i++) {
    vlart_track_t *track = &recorder->tracks[i];
    track->index = i;
    track->capacity = (size_t)recorder->options.track_bytes;
    track->full = recorder->options.full;
    track->crc = &recorder->writer.table;
    track->keyframe_bytes = recorder->options.file_bytes / KEYFRAMES_PER_LAP;
    atomic_init(&track->open, false);
    atomic_init(&track->head, 0);
    atomic_init(&track->tail, 0);
    atomic_init(&track->events, 0);
    atomic_init(&track->bytes, 0);
    atomic_init(&track->lost_events, 0);
    atomic_init(&track->lost_bytes, 0);
  }
  atomic_init(&recorder->used, 0);
  atomic_init(&recorder->stopped, false);
  atomic_init(&recorder->writer.blocks, 0);
  atomic_init(&recorder->writer.lost_blocks, 0);
  atomic_init(&recorder->writer.syncs, 0);
  atomic_init(&recorder->writer.error, 0);
  vlart_crc32_init(&recorder->writer.table);
}

static vlart_log_record_t log_record(vlart_recorder_t *recorder) {
  uint64_t head = sizeof(vlart_log_record_t) + recorder->plan_bytes;
  vlart_log_record_t log = {.version_major = VLART_RECORDING_MAJOR,
                            .version_minor = VLART_RECORDING_MINOR,
                            .head_bytes = (head + VLART_RECORDING_BLOCK - 1) /
                                          VLART_RECORDING_BLOCK * VLART_RECORDING_BLOCK,
                            .plan_bytes = recorder->plan_bytes,
                            .block_count = recorder->options.file_bytes / VLART_RECORDING_BLOCK,
                            .block_bytes = VLART_RECORDING_BLOCK,
                            .full = recorder->options.full};
  vlart_wall_clock_begin(&recorder->clock, &log.wall_ns, &log.clock_ns);
  memcpy(log.magic, VLART_RECORDING_MAGIC, sizeof log.magic);
  log.recording = log.wall_ns * 0x9E3779B97F4A7C15ull ^ log.clock_ns;
  return log;
}

vlart_status_t vlart_recorder_init(const void *plan, size_t plan_bytes,
                                   const vlart_recorder_options_t *options, void *arena_base,
                                   size_t arena_bytes, vlart_diag_t *diag,
                                   vlart_recorder_t **out_recorder) {
  const char *call = "vlart_recorder_init";
  vlart_recorder_options_t chosen;
  if (out_recorder == NULL) {
    return vlart_bad_argument(diag, call, "a pointer is NULL");
  }
  *out_recorder = NULL;
  vlart_status_t status = read_options(plan, plan_bytes, options, call, diag, &chosen);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_arena_t arena;
  uint8_t *batch;
  vlart_track_t *tracks;
  vlart_arena_place(&arena, arena_base, arena_bytes);
  vlart_recorder_t *recorder = take_recorder(&chosen, &arena, &batch, &tracks);
  if (arena.full) {
    vlart_arena_measure(&arena);
    take_recorder(&chosen, &arena, &batch, &tracks);
    return vlart_arena_too_small(diag, call, vlart_arena_required(&arena), arena_bytes);
  }
  recorder->options = chosen;
  recorder->tracks = tracks;
  recorder->writer.batch = batch;
  recorder->plan_bytes = plan_bytes;
  set_up(recorder);
  recorder->plan_crc32 = vlart_crc32(&recorder->writer.table, 0, plan, plan_bytes);
  status =
      vlart_block_writer_open(&recorder->writer, chosen.path, log_record(recorder), plan, diag);
  recorder->options.path = NULL; /* the caller's */
  if (status != VLART_STATUS_OK) {
    return status;
  }
  int error = start(recorder);
  if (error != 0) {
    vlart_block_writer_close(&recorder->writer);
    vlart_fail(diag, VLART_STATUS_OUT_OF_MEMORY, "the system gives no thread to record with",
               "end threads that are not needed any more");
    vlart_where(diag, "%s", call);
    vlart_why(diag, "pthread_create failed with errno %u", (unsigned)error);
    return VLART_STATUS_OUT_OF_MEMORY;
  }
  *out_recorder = recorder;
  return VLART_STATUS_OK;
}

vlart_status_t vlart_recorder_track(vlart_recorder_t *recorder, uint32_t role, uint32_t lane,
                                    const char *call, vlart_diag_t *diag,
                                    vlart_track_t **out_track) {
  uint32_t index = atomic_fetch_add_explicit(&recorder->used, 1, memory_order_acq_rel);
  if (index >= recorder->options.tracks) {
    atomic_fetch_sub_explicit(&recorder->used, 1, memory_order_acq_rel);
    vlart_fail(diag, VLART_STATUS_UNSUPPORTED, "the recorder has no track left",
               "make it with more: options.tracks");
    vlart_where(diag, "%s", call);
    vlart_why(diag, "it has %u, and each session, asynchronous control and router takes one",
              recorder->options.tracks);
    return VLART_STATUS_UNSUPPORTED;
  }
  vlart_track_t *track = &recorder->tracks[index];
  track->role = role;
  track->lane = lane;
  atomic_store_explicit(&track->open, true, memory_order_release);
  *out_track = track;
  return VLART_STATUS_OK;
}

bool vlart_recorder_is_of(const vlart_recorder_t *recorder, const void *plan, size_t bytes) {
  return bytes == recorder->plan_bytes &&
         vlart_crc32(&recorder->writer.table, 0, plan, bytes) == recorder->plan_crc32;
}

vlart_status_t vlart_recorder_info(const vlart_recorder_t *recorder,
                                   vlart_recorder_info_t *out_info) {
  if (recorder == NULL) {
    return VLART_STATUS_BAD_ARGUMENT;
  }
  const vlart_block_writer_t *writer = &recorder->writer;
  uint32_t used = atomic_load_explicit(&recorder->used, memory_order_acquire);
  vlart_recorder_info_t info = {
      .blocks = atomic_load_explicit(&writer->blocks, memory_order_relaxed),
      .lost_blocks = atomic_load_explicit(&writer->lost_blocks, memory_order_relaxed),
      .syncs = atomic_load_explicit(&writer->syncs, memory_order_relaxed),
      .error = atomic_load_explicit(&writer->error, memory_order_relaxed),
      .tracks = used < recorder->options.tracks ? used : recorder->options.tracks};
  info.laps = (info.blocks + info.lost_blocks) / writer->block_count;
  for (uint32_t i = 0; i < info.tracks; i++) {
    const vlart_track_t *track = &recorder->tracks[i];
    info.events += atomic_load_explicit(&track->events, memory_order_relaxed);
    info.bytes += atomic_load_explicit(&track->bytes, memory_order_relaxed);
    info.lost_events += atomic_load_explicit(&track->lost_events, memory_order_relaxed);
    info.lost_bytes += atomic_load_explicit(&track->lost_bytes, memory_order_relaxed);
  }
  return vlart_copy_out(out_info, &info, sizeof info);
}
