#include "base/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { AT_ONCE = 8 << 20 }; /* bytes; a multiple of every page size */

static int open_part(int dir_fd, const char *part, bool last, int *out_fd) {
  struct stat info;
  if (fstatat(dir_fd, part, &info, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno;
  }
  if (S_ISLNK(info.st_mode)) {
    return ELOOP;
  }
  if (last ? !S_ISREG(info.st_mode) : !S_ISDIR(info.st_mode)) {
    return last ? EINVAL : ENOTDIR;
  }
  int kind = last ? O_NONBLOCK : O_DIRECTORY;
  *out_fd = openat(dir_fd, part, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | kind);
  return *out_fd < 0 ? errno : 0;
}

/* One part of the path after the other, none of them a link. */
static int open_below(int dir_fd, const char *path, int *out_fd) {
  int at = dir_fd, error = 0;
  while (error == 0) {
    char part[NAME_MAX + 1];
    size_t length = strcspn(path, "/");
    bool last = path[length] == '\0';
    int next = -1;
    error = length == 0 ? ENOENT : length > NAME_MAX ? ENAMETOOLONG : 0;
    if (error == 0) {
      memcpy(part, path, length);
      part[length] = '\0';
      error = open_part(at, part, last, &next);
    }
    if (at != dir_fd) {
      close(at);
    }
    at = next;
    path += length + 1;
    if (last || error != 0) {
      break;
    }
  }
  *out_fd = at;
  return error;
}

int vlart_file_map(int dir_fd, const char *path, vlart_map_t *out_map) {
  *out_map = (vlart_map_t){0};
  int fd = -1;
  int error = open_below(dir_fd, path, &fd);
  if (error != 0) {
    return error;
  }
  struct stat info;
  error = fstat(fd, &info) != 0 ? errno : S_ISREG(info.st_mode) ? 0 : EINVAL;
  if (error == 0) {
    *out_map = (vlart_map_t){
        .device = info.st_dev,
        .number = info.st_ino,
        .changed_ns = (int64_t)info.st_ctim.tv_sec * 1000000000 + info.st_ctim.tv_nsec};
  }
  if (error == 0 && info.st_size > 0) {
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    error = data == MAP_FAILED ? errno : 0;
    if (error == 0) {
      out_map->data = data;
      out_map->bytes = (size_t)info.st_size;
    }
  }
  close(fd);
  return error;
}

static void forget(const uint8_t *data, size_t bytes) {
  (void)madvise((void *)(uintptr_t)data, bytes, MADV_DONTNEED);
}

uint32_t vlart_file_crc32(const vlart_map_t *map, const vlart_crc32_table_t *table) {
  uint32_t crc = 0;
  for (size_t at = 0; at < map->bytes; at += AT_ONCE) {
    size_t bytes = map->bytes - at < AT_ONCE ? map->bytes - at : AT_ONCE;
    crc = vlart_crc32(table, crc, map->data + at, bytes);
    forget(map->data + at, bytes);
  }
  return crc;
}

void vlart_file_forget(const vlart_map_t *map) {
  if (map->data != NULL) {
    forget(map->data, map->bytes);
  }
}

void vlart_file_unmap(vlart_map_t *map) {
  if (map->data != NULL) {
    munmap((void *)(uintptr_t)map->data, map->bytes);
  }
  *map = (vlart_map_t){0};
}

const char *vlart_file_fault(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR: return "there is no such file or directory";
    case EACCES:
    case EPERM: return "the permissions do not allow it";
    case EINVAL: return "it is no regular file";
    case ELOOP: return "its path leads through a symbolic link";
    default: return NULL;
  }
}
