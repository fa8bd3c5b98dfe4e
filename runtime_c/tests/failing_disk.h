/* A disk whose power can be cut at any step. Linked with --wrap=open,write,fsync,rename: a step is
   an open for writing or of a directory, a write, an fsync or a rename. */
#ifndef FAILING_DISK_H
#define FAILING_DISK_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum { DISK_WORKS, DISK_FAILS, DISK_CUT } disk_mode_t;

/* What a save did, and what of it is certain to survive. */
typedef struct {
  disk_mode_t mode;
  int at;              /* the step that fails or at which power is cut, 1, 2, ... */
  int error;           /* errno of a step that fails */
  uint64_t most;       /* bytes that one write takes; 0: all */
  bool file_lies;      /* fsync of a file keeps nothing: the control */
  bool directory_lies; /* the same of a directory */
  int steps;
  bool content_kept; /* what was written last is on the medium */
  bool renamed;      /* since the last kept directory */
  jmp_buf power;     /* where a cut goes */
} disk_t;

extern disk_t disk;

#endif
