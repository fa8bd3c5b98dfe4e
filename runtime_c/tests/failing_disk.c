#include "failing_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

disk_t disk;

int __real_open(const char *path, int flags, ...);
ssize_t __real_write(int fd, const void *data, size_t bytes);
int __real_fsync(int fd);
int __real_rename(const char *from, const char *to);
int __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_write(int fd, const void *data, size_t bytes);
int __wrap_fsync(int fd);
int __wrap_rename(const char *from, const char *to);

/* True: the step fails. Does not return where power is cut. */
static bool step(void) {
  disk.steps++;
  if (disk.mode == DISK_WORKS || disk.steps != disk.at) {
    return false;
  }
  if (disk.mode == DISK_CUT) {
    longjmp(disk.power, 1);
  }
  errno = disk.error;
  return true;
}

int __wrap_open(const char *path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = (mode_t)va_arg(arguments, int);
    va_end(arguments);
  }
  bool writes = (flags & O_ACCMODE) != O_RDONLY;
  if ((writes || (flags & O_DIRECTORY) != 0) && step()) {
    return -1;
  }
  disk.content_kept = disk.content_kept && !writes;
  return __real_open(path, flags, mode);
}

ssize_t __wrap_write(int fd, const void *data, size_t bytes) {
  if (fd > 2 && step()) {
    return -1;
  }
  return __real_write(fd, data, disk.most > 0 && bytes > disk.most ? disk.most : bytes);
}

int __wrap_fsync(int fd) {
  struct stat info;
  if (step() || fstat(fd, &info) != 0) {
    return -1;
  }
  if (S_ISDIR(info.st_mode)) {
    disk.renamed = disk.renamed && disk.directory_lies;
  } else {
    disk.content_kept = !disk.file_lies;
  }
  return __real_fsync(fd);
}

int __wrap_rename(const char *from, const char *to) {
  if (step()) {
    return -1;
  }
  disk.renamed = true;
  return __real_rename(from, to);
}
