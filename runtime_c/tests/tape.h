/* Recordings in tests: a recorder of a robot's bundle, and its file as it is read. */
#ifndef VLART_TESTS_TAPE_H
#define VLART_TESTS_TAPE_H

#include "robot.h"

typedef struct {
  vlart_recorder_t *recorder;
  void *arena;
  const void *plan;
  size_t plan_bytes;
} tape_t;

/* The content of a file, and the log in it. */
typedef struct {
  uint8_t *data;
  size_t bytes;
  void *arena;
  vlart_log_t *log;
  vlart_log_info_t info;
} read_t;

/* Numbers that are missing in the sequences of all tracks, and what loss events tell of them. */
typedef struct {
  uint64_t missing;
  uint64_t told;
  uint64_t blocks;
} losses_t;

extern char tape_path[1024];

/* "DIR/NAME.vlog" from here on, which is removed. */
void tape_name(const char *dir, const char *name);

/* options: without struct_size and path. */
tape_t tape_make(const robot_t *r, vlart_recorder_options_t options);
vlart_recorder_info_t tape_info(const tape_t *tape);
vlart_recorder_info_t tape_end(tape_t *tape);

/* data: becomes the log's. */
read_t read_data(uint8_t *data, size_t bytes);
read_t read_file(void);
void read_close(read_t *r);
bool read_next(const read_t *r, vlart_log_event_t *event);

/* How many events of a kind there are. */
unsigned read_count(const read_t *r, uint32_t kind);
losses_t read_losses(const read_t *r);

/* Writes a number of the tick into the first source. */
void tape_tick(const robot_t *r, uint64_t tick);
void tape_wait(long ms);

#endif
