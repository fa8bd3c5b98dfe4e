/* What was learnt since the table was fitted, on disk. Two generations lie side by side and the
   older one is replaced: STATE.tmp is written and synced, renamed over it, and the directory is
   synced. Power may fail between any two of these steps: what is read afterwards is the last
   generation or the new one, never a part.

   A file: magic, version, CRC of the table, generation, number of counts, the counts, CRC-32 of
   all before. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32.h"
#include "base/diag.h"
#include "router/router.h"

#define MAGIC "VLABRSTA"
#define STATE_VERSION 1u

typedef struct {
  char magic[8];
  uint32_t version;
  uint32_t table_crc;
  uint64_t generation;
  uint32_t count;
  uint32_t reserved;
} head_t;

size_t vlart_router_state_bytes(const vlart_router_t *router) {
  size_t count = (size_t)router->route_count * router->backbone_count;
  return sizeof(head_t) + count * sizeof(vlart_outcomes_t) + sizeof(uint64_t);
}

static void name_of(const vlart_router_t *router, const char *ending, char *out) {
  size_t length = strlen(router->path);
  memcpy(out, router->path, length);
  memcpy(out + length, ending, strlen(ending) + 1);
}

static const char *slot_ending(uint32_t slot) { return slot == 0 ? ".0" : ".1"; }

static uint32_t checksum(const void *data, size_t bytes) {
  vlart_crc32_table_t table;
  vlart_crc32_init(&table);
  return vlart_crc32(&table, 0, data, bytes);
}

/* Bytes read, at most `room`; -1: errno. */
static ssize_t read_whole(int fd, uint8_t *out, size_t room) {
  size_t used = 0;
  while (used < room) {
    ssize_t got = read(fd, out + used, room - used);
    if (got == 0) {
      break;
    }
    if (got < 0 && errno != EINTR) {
      return -1;
    }
    used += got > 0 ? (size_t)got : 0;
  }
  return (ssize_t)used;
}

static bool counts_are_sound(const uint8_t *data, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    vlart_outcomes_t counts;
    memcpy(&counts, data + i * sizeof counts, sizeof counts);
    double s = counts.successes;
    double f = counts.failures;
    if (!(s >= 0.0 && f >= 0.0 && s + f <= VLART_OUTCOMES_KEPT)) {
      return false;
    }
  }
  return true;
}

vlart_state_kind_t vlart_router_read_state(const vlart_router_t *router, const uint8_t *data,
                                           size_t bytes, uint64_t *out_generation) {
  head_t head;
  if (bytes < sizeof head) {
    return VLART_STATE_DAMAGED;
  }
  memcpy(&head, data, sizeof head);
  if (memcmp(head.magic, MAGIC, sizeof head.magic) != 0) {
    return VLART_STATE_DAMAGED;
  }
  if (head.version != STATE_VERSION || head.table_crc != router->table_crc) {
    return VLART_STATE_FOREIGN;
  }
  uint32_t count = router->route_count * router->backbone_count;
  size_t whole = vlart_router_state_bytes(router);
  if (bytes != whole || head.count != count || head.reserved != 0 || head.generation == 0) {
    return VLART_STATE_DAMAGED;
  }
  uint64_t stored;
  memcpy(&stored, data + whole - sizeof stored, sizeof stored);
  if (stored != checksum(data, whole - sizeof stored) ||
      !counts_are_sound(data + sizeof head, count)) {
    return VLART_STATE_DAMAGED;
  }
  *out_generation = head.generation;
  return VLART_STATE_GOOD;
}

/* Reads one generation into router->file. */
static vlart_state_kind_t read_slot(vlart_router_t *router, uint32_t slot,
                                    uint64_t *out_generation) {
  char path[VLART_MAX_STATE_PATH + 8];
  name_of(router, slot_ending(slot), path);
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe would wait for a writer */
  if (fd < 0) {
    return errno == ENOENT ? VLART_STATE_MISSING : VLART_STATE_UNREADABLE;
  }
  size_t bytes = vlart_router_state_bytes(router);
  struct stat info;
  bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  ssize_t got = regular ? read_whole(fd, router->file, bytes) : -1;
  close(fd);
  if (got < 0) {
    return VLART_STATE_UNREADABLE;
  }
  uint64_t generation;
  vlart_state_kind_t kind = vlart_router_read_state(router, router->file, (size_t)got, &generation);
  if (kind == VLART_STATE_GOOD && (size_t)info.st_size != bytes) {
    kind = VLART_STATE_DAMAGED;
  }
  *out_generation = kind == VLART_STATE_GOOD ? generation : 0;
  return kind;
}

static vlart_status_t refuse(const vlart_router_t *router, vlart_diag_t *diag,
                             const vlart_state_kind_t kinds[2]) {
  bool unreadable = kinds[0] == VLART_STATE_UNREADABLE || kinds[1] == VLART_STATE_UNREADABLE;
  bool foreign = kinds[0] == VLART_STATE_FOREIGN || kinds[1] == VLART_STATE_FOREIGN;
  vlart_status_t status = unreadable ? VLART_STATUS_IO
                          : foreign  ? VLART_STATUS_VERSION
                                     : VLART_STATUS_CORRUPT;
  vlart_fail(diag, status, "the router's state cannot be used",
             unreadable ? "check the path and the rights"
             : foreign  ? "give each table a state of its own, or remove this one"
                        : "remove both files: what was learnt since the fit is lost");
  vlart_where(diag, "%s.0 and .1", router->path);
  vlart_why(diag, "%s",
            unreadable ? "a file is there and cannot be read"
            : foreign  ? "it belongs to another routing table or version"
                       : "no generation is whole");
  return status;
}

vlart_status_t vlart_router_load(vlart_router_t *router, vlart_diag_t *diag) {
  vlart_state_kind_t kinds[2];
  uint64_t generations[2] = {0, 0};
  for (uint32_t slot = 0; slot < 2; slot++) {
    kinds[slot] = read_slot(router, slot, &generations[slot]);
  }
  if (kinds[0] == VLART_STATE_UNREADABLE || kinds[1] == VLART_STATE_UNREADABLE ||
      kinds[0] == VLART_STATE_FOREIGN || kinds[1] == VLART_STATE_FOREIGN) {
    return refuse(router, diag, kinds);
  }
  if (kinds[0] != VLART_STATE_GOOD && kinds[1] != VLART_STATE_GOOD) {
    router->slot = 1; /* the first generation goes to slot 0 */
    return kinds[0] == VLART_STATE_MISSING && kinds[1] == VLART_STATE_MISSING
               ? VLART_STATUS_OK
               : refuse(router, diag, kinds);
  }
  router->slot = generations[1] > generations[0] ? 1 : 0;
  router->recovered = kinds[1 - router->slot] == VLART_STATE_DAMAGED;
  vlart_state_kind_t again = read_slot(router, router->slot, &router->generation);
  if (again != VLART_STATE_GOOD) { /* it was good a moment ago: it is there, and nothing is lost */
    again = again == VLART_STATE_MISSING ? VLART_STATE_UNREADABLE : again;
    return refuse(router, diag, (const vlart_state_kind_t[2]){again, again});
  }
  memcpy(router->seen, router->file + sizeof(head_t),
         (size_t)router->route_count * router->backbone_count * sizeof *router->seen);
  return VLART_STATUS_OK;
}

static vlart_status_t io_error(vlart_diag_t *diag, const char *path, const char *call) {
  unsigned error = (unsigned)errno;
  vlart_fail(diag, VLART_STATUS_IO, "the router's state cannot be saved",
             "make room or mend the path; the outcome is kept and saved with the next one");
  vlart_where(diag, "%s", path);
  vlart_why(diag, "%s failed with errno %u", call, error);
  return VLART_STATUS_IO;
}

static bool write_whole(int fd, const uint8_t *data, size_t bytes) {
  while (bytes > 0) {
    ssize_t done = write(fd, data, bytes);
    if (done < 0 && errno != EINTR) {
      return false;
    }
    data += done > 0 ? done : 0;
    bytes -= done > 0 ? (size_t)done : 0;
  }
  return true;
}

/* STATE.tmp, whole and on disk. */
static vlart_status_t write_temporary(const vlart_router_t *router, const char *path,
                                      vlart_diag_t *diag) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) {
    return io_error(diag, path, "open");
  }
  const char *failed = NULL;
  if (!write_whole(fd, router->file, vlart_router_state_bytes(router))) {
    failed = "write";
  } else if (fsync(fd) != 0) {
    failed = "fsync";
  }
  vlart_status_t status = failed == NULL ? VLART_STATUS_OK : io_error(diag, path, failed);
  if (close(fd) != 0 && failed == NULL) {
    status = io_error(diag, path, "close");
  }
  return status;
}

static vlart_status_t sync_directory(const char *path, vlart_diag_t *diag) {
  char dir[VLART_MAX_STATE_PATH + 8];
  const char *slash = strrchr(path, '/');
  size_t length = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
  memcpy(dir, length == 0 ? "." : path, length == 0 ? 1 : length);
  dir[length == 0 ? 1 : length] = '\0';
  int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    return io_error(diag, dir, "open");
  }
  vlart_status_t status = fsync(fd) == 0 ? VLART_STATUS_OK : io_error(diag, dir, "fsync");
  close(fd);
  return status;
}

static void fill_file(vlart_router_t *router) {
  size_t bytes = vlart_router_state_bytes(router);
  head_t head = {.version = STATE_VERSION,
                 .table_crc = router->table_crc,
                 .generation = router->generation + 1,
                 .count = router->route_count * router->backbone_count};
  memcpy(head.magic, MAGIC, sizeof head.magic);
  memcpy(router->file, &head, sizeof head);
  memcpy(router->file + sizeof head, router->seen, head.count * sizeof *router->seen);
  uint64_t crc = checksum(router->file, bytes - sizeof crc);
  memcpy(router->file + bytes - sizeof crc, &crc, sizeof crc);
}

vlart_status_t vlart_router_save(vlart_router_t *router, vlart_diag_t *diag) {
  char temporary[VLART_MAX_STATE_PATH + 8];
  char final[VLART_MAX_STATE_PATH + 8];
  name_of(router, ".tmp", temporary);
  name_of(router, slot_ending(1 - router->slot), final);
  fill_file(router);
  vlart_status_t status = write_temporary(router, temporary, diag);
  if (status == VLART_STATUS_OK && rename(temporary, final) != 0) {
    status = io_error(diag, final, "rename");
  }
  if (status == VLART_STATUS_OK) {
    status = sync_directory(final, diag);
  }
  if (status == VLART_STATUS_OK) {
    router->generation++;
    router->slot = 1 - router->slot;
  }
  return status;
}
