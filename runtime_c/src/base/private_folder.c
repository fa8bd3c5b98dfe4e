#include "base/private_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OWNER_ONLY = 0700 };

int vlart_private_open(int at, const char *path, int *out_fd) {
  *out_fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (*out_fd < 0) {
    return errno;
  }
  struct stat info;
  int error = fstat(*out_fd, &info) != 0 ? errno : 0;
  if (error == 0 && (info.st_uid != geteuid() || (info.st_mode & (S_IRWXG | S_IRWXO)) != 0)) {
    error = EPERM;
  }
  if (error != 0) {
    close(*out_fd);
    *out_fd = -1;
  }
  return error;
}

int vlart_private_make(const char *path, int *out_fd) {
  int error = vlart_private_open(AT_FDCWD, path, out_fd);
  if (error == ENOENT) { /* another process may make it meanwhile */
    error = mkdir(path, OWNER_ONLY) != 0 && errno != EEXIST ? errno : 0;
    if (error == 0) {
      error = vlart_private_open(AT_FDCWD, path, out_fd);
    }
  }
  return error;
}

void vlart_private_remove(int at, const char *name) {
  int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    (void)unlinkat(at, name, 0); /* a file or a link of that name */
    return;
  }
  DIR *folder = fdopendir(fd);
  if (folder == NULL) {
    close(fd);
    return;
  }
  for (const struct dirent *file; (file = readdir(folder)) != NULL;) {
    if (strcmp(file->d_name, ".") != 0 && strcmp(file->d_name, "..") != 0) {
      (void)unlinkat(fd, file->d_name, 0);
    }
  }
  closedir(folder);
  (void)unlinkat(at, name, AT_REMOVEDIR);
}
