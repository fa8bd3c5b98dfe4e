/* [open] Files below a directory, mapped. */
#ifndef VLART_FILE_MAP_H
#define VLART_FILE_MAP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/crc32.h"

typedef struct {
  const uint8_t *data; /* NULL: not mapped, or empty */
  size_t bytes;
  dev_t device; /* which file it is */
  ino_t number;
  int64_t changed_ns; /* when its content, owner or mode was last set; no call sets this itself */
} vlart_map_t;

/* Maps a regular file below a directory, read-only; 0 or an errno. What is no regular file is refused
   before it is opened, since opening alone can wait (a FIFO) or act (a device): EINVAL. A symbolic link
   in the path, which may lead anywhere: ELOOP. */
int vlart_file_map(int dir_fd, const char *path, vlart_map_t *out_map);

void vlart_file_unmap(vlart_map_t *map);

/* Its CRC-32. Pages are given back as they were read: afterwards none of the file counts as this process's memory. */
uint32_t vlart_file_crc32(const vlart_map_t *map, const vlart_crc32_table_t *table);

/* Gives all its pages back; what is read later comes from the file again. Only advice: where it fails, memory is what
   it was. */
void vlart_file_forget(const vlart_map_t *map);

/* Why vlart_file_map failed, in words; NULL where there are none better than the number. */
const char *vlart_file_fault(int error);

#endif
