/* The file of a recording: cuts a stream of events into blocks and writes each once. One thread. */
#ifndef VLART_BLOCK_WRITER_H
#define VLART_BLOCK_WRITER_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/crc32.h"
#include "vlart/vlart.h"

#define VLART_BLOCK_ROOM (VLART_RECORDING_BLOCK - (uint32_t)sizeof(vlart_block_record_t))
#define VLART_BATCH_BLOCKS 64u /* written by one call at most */

typedef struct {
  vlart_crc32_table_t table;
  int fd;
  uint64_t head_bytes;
  uint64_t block_count;
  uint64_t recording;
  uint64_t sequence; /* of the block that is being filled */
  uint8_t *batch;    /* [VLART_BATCH_BLOCKS * VLART_RECORDING_BLOCK] */
  uint32_t ready;    /* blocks of it that are whole */
  uint32_t used;     /* bytes in the one behind */
  uint32_t first;    /* where its first event begins, or VLART_NONE */
  uint64_t since_ns; /* when its first byte came */
  uint64_t synced_ns;
  bool unsynced;                  /* something was written since */
  uint64_t told;                  /* events of its own */
  vlart_loss_event_record_t lost; /* so far: what tells it may be lost itself */
  bool untold;
  atomic_ullong blocks;
  atomic_ullong lost_blocks;
  atomic_ullong syncs;
  atomic_uint error;
} vlart_block_writer_t;

/* [init] The file with its head, on the disk when it returns OK. `log`: without its checksums. */
vlart_status_t vlart_block_writer_open(vlart_block_writer_t *writer, const char *path,
                                       vlart_log_record_t log, const void *plan,
                                       vlart_diag_t *diag);
void vlart_block_writer_close(vlart_block_writer_t *writer);

/* An event begins with the next byte. */
void vlart_block_writer_begin(vlart_block_writer_t *writer, uint64_t now_ns);
void vlart_block_writer_put(vlart_block_writer_t *writer, const void *data, size_t bytes);

/* Tells what was lost, or that the wall clock was set, as an event of the writer's own. */
void vlart_block_writer_tell(vlart_block_writer_t *writer, vlart_loss_event_record_t lost,
                             uint32_t track, uint32_t role, uint64_t now_ns);
void vlart_block_writer_tell_clock(vlart_block_writer_t *writer, vlart_clock_event_record_t clock,
                                   uint64_t now_ns);

/* Hands whole blocks to the system; `all`: and the one that is being filled, which ends with what it has. */
void vlart_block_writer_flush(vlart_block_writer_t *writer, bool all);
void vlart_block_writer_sync(vlart_block_writer_t *writer, uint64_t now_ns);

#endif
