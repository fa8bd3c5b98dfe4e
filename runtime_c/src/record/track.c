#include "record/track.h"

#include <string.h>

#include "base/clock.h"

size_t vlart_event_bytes(size_t payload) {
  size_t whole = sizeof(vlart_event_record_t) + payload;
  return (whole + VLART_EVENT_ALIGN - 1) / VLART_EVENT_ALIGN * VLART_EVENT_ALIGN;
}

/* Bytes at a place of the stream, in two pieces where the ring ends between. */
static void copy_in(vlart_track_t *track, size_t at, const void *data, size_t bytes) {
  size_t place = at % track->capacity;
  size_t first = bytes < track->capacity - place ? bytes : track->capacity - place;
  if (first > 0) {
    memcpy(track->ring + place, data, first);
  }
  if (bytes > first) {
    memcpy(track->ring, (const uint8_t *)data + first, bytes - first);
  }
}

/* An event for which there is room; seen by the recorder when `head` is published. */
static size_t append(vlart_track_t *track, size_t at, uint32_t kind, uint64_t now,
                     const vlart_track_part_t *parts, size_t count) {
  static const uint8_t padding[VLART_EVENT_ALIGN] = {0};
  size_t payload = 0;
  for (size_t i = 0; i < count; i++) {
    payload += parts[i].bytes;
  }
  vlart_event_record_t event = {.bytes = (uint32_t)payload,
                                .kind = kind,
                                .track = track->index,
                                .role = track->role,
                                .lane = track->lane,
                                .sequence = ++track->sequence,
                                .time_ns = now};
  size_t end = at + vlart_event_bytes(payload);
  copy_in(track, at, &event, sizeof event);
  at += sizeof event;
  for (size_t i = 0; i < count; i++) {
    copy_in(track, at, parts[i].data, parts[i].bytes);
    at += parts[i].bytes;
  }
  copy_in(track, at, padding, end - at);
  return end;
}

/* One thread writes it, others read it. */
static void count_one(atomic_ullong *counter, uint64_t by) {
  uint64_t before = atomic_load_explicit(counter, memory_order_relaxed);
  atomic_store_explicit(counter, before + by, memory_order_relaxed);
}

static bool lose(vlart_track_t *track, size_t bytes) {
  track->sequence++;
  if (track->lost.events == 0) {
    track->lost.first = track->sequence;
  }
  track->lost.events++;
  track->lost.bytes += bytes;
  count_one(&track->lost_events, 1);
  count_one(&track->lost_bytes, bytes);
  return false;
}

bool vlart_track_put(vlart_track_t *track, uint32_t kind, const vlart_track_part_t *parts,
                     size_t count) {
  size_t payload = 0;
  for (size_t i = 0; i < count; i++) {
    payload += parts[i].bytes;
  }
  size_t bytes = vlart_event_bytes(payload);
  size_t telling = track->lost.events > 0 ? vlart_event_bytes(sizeof track->lost) : 0;
  size_t head = atomic_load_explicit(&track->head, memory_order_relaxed);
  size_t room = track->capacity - (head - atomic_load_explicit(&track->tail, memory_order_acquire));
  if (payload > UINT32_MAX || bytes > room || telling > room - bytes) {
    return lose(track, bytes);
  }
  uint64_t now = vlart_now_ns();
  if (telling > 0) {
    vlart_track_part_t lost = {&track->lost, sizeof track->lost};
    head = append(track, head, VLART_EVENT_KIND_LOSS, now, &lost, 1);
    track->lost = (vlart_loss_event_record_t){0};
    count_one(&track->events, 1);
  }
  head = append(track, head, kind, now, parts, count);
  track->since_keyframe += bytes;
  count_one(&track->events, 1);
  count_one(&track->bytes, bytes + telling);
  atomic_store_explicit(&track->head, head, memory_order_release);
  return true;
}

bool vlart_track_note(vlart_track_t *track, uint32_t kind, vlart_note_event_record_t note) {
  vlart_track_part_t part = {&note, sizeof note};
  return vlart_track_put(track, kind, &part, 1);
}

size_t vlart_track_waiting(const vlart_track_t *track) {
  return atomic_load_explicit(&track->head, memory_order_acquire) -
         atomic_load_explicit(&track->tail, memory_order_relaxed);
}

size_t vlart_track_piece(const vlart_track_t *track, size_t at, size_t most,
                         const uint8_t **out_data) {
  size_t place = (atomic_load_explicit(&track->tail, memory_order_relaxed) + at) % track->capacity;
  size_t to_end = track->capacity - place;
  *out_data = track->ring + place;
  return most < to_end ? most : to_end;
}

void vlart_track_taken(vlart_track_t *track, size_t bytes) {
  size_t tail = atomic_load_explicit(&track->tail, memory_order_relaxed);
  atomic_store_explicit(&track->tail, tail + bytes, memory_order_release);
}
