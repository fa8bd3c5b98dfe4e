#include "record/block_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/diag.h"

/* Everything, or errno of what the system refused. */
static int write_at(int fd, const uint8_t *data, size_t bytes, uint64_t at) {
  while (bytes > 0) {
    ssize_t done = pwrite(fd, data, bytes, (off_t)at);
    if (done <= 0 && errno == EINTR) {
      continue;
    }
    if (done <= 0) {
      return done == 0 ? ENOSPC : errno;
    }
    data += done;
    bytes -= (size_t)done;
    at += (uint64_t)done;
  }
  return 0;
}

/* strerror is not for several threads. */
static const char *error_words(int error) {
  switch (error) {
    case ENOSPC: return "No space left on the disk";
    case EDQUOT: return "the user's share of the disk is used up";
    case EACCES:
    case EPERM: return "this user has no right to write there";
    case ENOENT: return "no such directory";
    case ENOTDIR: return "a part of its path is no directory";
    case ENAMETOOLONG: return "a name in its path is too long";
    case ELOOP: return "its path leads through links in a circle";
    case EEXIST: return "it exists";
    case EROFS: return "the file system is read-only";
    case EFBIG: return "larger than a file may be here: ulimit -f, or the file system";
    case EMFILE:
    case ENFILE: return "too many files are open";
    case EIO: return "the disk failed";
    default: return "see errno(3)";
  }
}

static vlart_status_t refuse(const char *path, const char *what, int error, vlart_diag_t *diag) {
  bool there = error == EEXIST;
  vlart_fail(
      diag, VLART_STATUS_IO,
      there ? "there is a file where the recording would be" : "the recording cannot be made",
      there ? "name another file: a recording is never written over"
            : "look at the path, its rights and the free space, or record into a smaller file");
  vlart_where(diag, "%s", path);
  vlart_why(diag, "%s failed with errno %u (%s)", what, (unsigned)error, error_words(error));
  return VLART_STATUS_IO;
}

/* Whether the process may make a file of this size: to try means SIGXFSZ, which ends a program that is not prepared. */
static bool is_allowed(uint64_t bytes) {
  struct rlimit limit;
  return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
         bytes <= limit.rlim_cur;
}

/* Reserved, so that a disk that fills up later takes nothing away; where the file system cannot do that, only sized. */
static int reserve(int fd, uint64_t bytes) {
  if (!is_allowed(bytes)) {
    return EFBIG;
  }
  if (fallocate(fd, 0, 0, (off_t)bytes) == 0) {
    return 0;
  }
  if (errno != EOPNOTSUPP && errno != ENOSYS) {
    return errno;
  }
  return ftruncate(fd, (off_t)bytes) == 0 ? 0 : errno;
}

/* The name of the file is on the disk, too. */
static int sync_directory(const char *path) {
  char folder[4096] = ".";
  const char *slash = strrchr(path, '/');
  size_t length = slash == NULL ? 0 : (size_t)(slash - path);
  if (length >= sizeof folder) {
    return ENAMETOOLONG;
  }
  if (slash != NULL) {
    memcpy(folder, path, length + (length == 0));
    folder[length + (length == 0)] = '\0';
  }
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    return errno;
  }
  int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error;
}

vlart_status_t vlart_block_writer_open(vlart_block_writer_t *writer, const char *path,
                                       vlart_log_record_t log, const void *plan,
                                       vlart_diag_t *diag) {
  log.plan_crc32 = vlart_crc32(&writer->table, 0, plan, (size_t)log.plan_bytes);
  log.head_crc32 = vlart_crc32(&writer->table, 0, &log, offsetof(vlart_log_record_t, head_crc32));
  writer->head_bytes = log.head_bytes;
  writer->block_count = log.block_count;
  writer->recording = log.recording;
  writer->first = VLART_NONE;
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
  if (fd < 0) {
    return refuse(path, "open", errno, diag);
  }
  const char *what = "reserving its size";
  int error = reserve(fd, log.head_bytes + log.block_count * VLART_RECORDING_BLOCK);
  if (error == 0) {
    what = "writing its head";
    error = write_at(fd, (const uint8_t *)&log, sizeof log, 0);
  }
  if (error == 0) {
    error = write_at(fd, plan, (size_t)log.plan_bytes, sizeof log);
  }
  if (error == 0 && fsync(fd) != 0) {
    error = errno;
  }
  if (error == 0) {
    error = sync_directory(path);
  }
  if (error != 0) {
    close(fd);
    unlink(path);
    return refuse(path, what, error, diag);
  }
  writer->fd = fd;
  return VLART_STATUS_OK;
}

void vlart_block_writer_close(vlart_block_writer_t *writer) { close(writer->fd); }

static void count(atomic_ullong *counter, uint64_t by) {
  atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

/* Blocks of one write: they lie beside each other in the file. */
static void write_blocks(vlart_block_writer_t *writer, uint64_t sequence, uint32_t from,
                         uint32_t blocks) {
  uint64_t at =
      writer->head_bytes + sequence % writer->block_count * (uint64_t)VLART_RECORDING_BLOCK;
  int error = write_at(writer->fd, writer->batch + (size_t)from * VLART_RECORDING_BLOCK,
                       (size_t)blocks * VLART_RECORDING_BLOCK, at);
  if (error == 0) {
    count(&writer->blocks, blocks);
    writer->unsynced = true;
    return;
  }
  count(&writer->lost_blocks, blocks);
  atomic_store_explicit(&writer->error, (unsigned)error, memory_order_relaxed);
  writer->lost.blocks += blocks;
  writer->lost.error = (uint32_t)error;
  writer->untold = true;
}

static void write_batch(vlart_block_writer_t *writer) {
  uint64_t begin = writer->sequence - writer->ready;
  uint32_t done = 0;
  while (done < writer->ready) {
    uint64_t to_end = writer->block_count - (begin + done) % writer->block_count;
    uint32_t left = writer->ready - done;
    uint32_t blocks = left < to_end ? left : (uint32_t)to_end;
    write_blocks(writer, begin + done, done, blocks);
    done += blocks;
  }
  /* The block that is being filled goes to the front. */
  if (writer->ready > 0 && writer->used > 0) {
    memcpy(writer->batch + sizeof(vlart_block_record_t),
           writer->batch + (size_t)writer->ready * VLART_RECORDING_BLOCK +
               sizeof(vlart_block_record_t),
           writer->used);
  }
  writer->ready = 0;
}

static uint8_t *filling(vlart_block_writer_t *writer) {
  return writer->batch + (size_t)writer->ready * VLART_RECORDING_BLOCK;
}

static void end_block(vlart_block_writer_t *writer) {
  uint8_t *at = filling(writer);
  vlart_block_record_t block = {.used = writer->used,
                                .recording = writer->recording,
                                .sequence = writer->sequence,
                                .first = writer->first};
  memset(at + sizeof block + writer->used, 0, VLART_BLOCK_ROOM - writer->used);
  memcpy(at, &block, sizeof block);
  block.crc32 = vlart_crc32(&writer->table, 0, at + sizeof block.crc32,
                            sizeof block - sizeof block.crc32 + writer->used);
  memcpy(at, &block.crc32, sizeof block.crc32);
  writer->sequence++;
  writer->ready++;
  writer->used = 0;
  writer->first = VLART_NONE;
  if (writer->ready == VLART_BATCH_BLOCKS) {
    write_batch(writer);
  }
}

void vlart_block_writer_begin(vlart_block_writer_t *writer, uint64_t now_ns) {
  if (writer->first == VLART_NONE) {
    writer->first = writer->used;
  }
  if (writer->used == 0) {
    writer->since_ns = now_ns;
  }
}

void vlart_block_writer_put(vlart_block_writer_t *writer, const void *data, size_t bytes) {
  const uint8_t *from = data;
  while (bytes > 0) {
    size_t room = VLART_BLOCK_ROOM - writer->used;
    size_t piece = bytes < room ? bytes : room;
    memcpy(filling(writer) + sizeof(vlart_block_record_t) + writer->used, from, piece);
    writer->used += (uint32_t)piece;
    from += piece;
    bytes -= piece;
    if (writer->used == VLART_BLOCK_ROOM) {
      end_block(writer);
    }
  }
}

/* `record`: of a size that needs no padding. */
static void put_event(vlart_block_writer_t *writer, vlart_event_record_t event,
                      const void *record) {
  vlart_block_writer_begin(writer, event.time_ns);
  vlart_block_writer_put(writer, &event, sizeof event);
  vlart_block_writer_put(writer, record, event.bytes);
}

void vlart_block_writer_tell(vlart_block_writer_t *writer, vlart_loss_event_record_t lost,
                             uint32_t track, uint32_t role, uint64_t now_ns) {
  vlart_event_record_t event = {.bytes = sizeof lost,
                                .kind = VLART_EVENT_KIND_LOSS,
                                .track = track,
                                .role = role,
                                .sequence = role == VLART_EVENT_ROLE_WRITER ? ++writer->told : 0,
                                .time_ns = now_ns};
  put_event(writer, event, &lost);
}

void vlart_block_writer_tell_clock(vlart_block_writer_t *writer, vlart_clock_event_record_t clock,
                                   uint64_t now_ns) {
  vlart_event_record_t event = {.bytes = sizeof clock,
                                .kind = VLART_EVENT_KIND_CLOCK,
                                .track = VLART_MAX_TRACKS,
                                .role = VLART_EVENT_ROLE_WRITER,
                                .sequence = ++writer->told,
                                .time_ns = now_ns};
  put_event(writer, event, &clock);
}

void vlart_block_writer_flush(vlart_block_writer_t *writer, bool all) {
  if (all && writer->used > 0) {
    end_block(writer);
  }
  write_batch(writer);
}

void vlart_block_writer_sync(vlart_block_writer_t *writer, uint64_t now_ns) {
  writer->synced_ns = now_ns;
  if (!writer->unsynced) {
    return;
  }
  writer->unsynced = false;
  if (fdatasync(writer->fd) == 0) {
    count(&writer->syncs, 1);
  } else {
    atomic_store_explicit(&writer->error, (unsigned)errno, memory_order_relaxed);
  }
}
