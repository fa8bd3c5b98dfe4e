/* Files of engines/: written beside, synced, renamed; so a cut leaves the old one or the new one. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/crc32.h"
#include "build.h"
#include "sha256.h"

static bool sync_directory(const char *dir) {
  int fd = openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool good = fd >= 0 && fsync(fd) == 0;
  if (fd >= 0) {
    close(fd);
  }
  return good;
}

static bool write_synced(const char *path, const void *data, size_t bytes) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const char *from = data;
  bool good = fd >= 0;
  for (size_t done = 0; good && done < bytes;) {
    ssize_t more = write(fd, from + done, bytes - done);
    good = more > 0 || (more < 0 && errno == EINTR);
    done += more > 0 ? (size_t)more : 0;
  }
  good = good && fsync(fd) == 0;
  if (fd >= 0) {
    good = close(fd) == 0 && good;
  }
  return good;
}

bool build_publish(const char *dir, const char *path) {
  char from[VLART_TRT_PATH_BYTES + 512], to[VLART_TRT_PATH_BYTES + 512];
  char engines[VLART_TRT_PATH_BYTES + 512];
  snprintf(to, sizeof to, "%s/%s", dir, path);
  snprintf(from, sizeof from, "%s/%s.tmp", dir, path);
  snprintf(engines, sizeof engines, "%s/engines", dir);
  return rename(from, to) == 0 && sync_directory(engines);
}

/* A path that ends in .tmp already is only written: its caller publishes it once it is checked. */
bool build_write(const char *dir, const char *path, const void *data, size_t bytes) {
  char to[VLART_TRT_PATH_BYTES + 512];
  size_t length = strlen(path);
  bool beside = length > 4 && strcmp(path + length - 4, ".tmp") == 0;
  snprintf(to, sizeof to, "%s/%s%s", dir, path, beside ? "" : ".tmp");
  return write_synced(to, data, bytes) && (beside || build_publish(dir, path));
}

bool build_hash(const build_t *build, const char *path, const char *suffix, uint64_t *out_bytes,
                uint32_t *out_crc32, uint8_t out_sha256[32]) {
  char full[300];
  vlart_map_t map;
  snprintf(full, sizeof full, "%s%s", path, suffix);
  if (vlart_trt_map(build->bundle->dir, full, &map, NULL) != VLART_STATUS_OK) {
    return false;
  }
  vlart_crc32_table_t table;
  vlart_crc32_init(&table);
  *out_bytes = map.bytes;
  *out_crc32 = vlart_crc32(&table, 0, map.data, map.bytes);
  tool_sha256(map.data, map.bytes, out_sha256);
  vlart_file_unmap(&map);
  return true;
}
