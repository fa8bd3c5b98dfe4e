/* [init] Folders that are of this user alone: nobody else writes into them or reads them. */
#ifndef VLART_PRIVATE_FOLDER_H
#define VLART_PRIVATE_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

/* Opens a folder; 0 or an errno. ELOOP or ENOTDIR: it is a link or no folder; EPERM: it is another user's, or others may
   look into it. `path` is below the folder `at`, or AT_FDCWD. */
int vlart_private_open(int at, const char *path, int *out_fd);

/* The same of a path; a folder that does not exist is made, with mode 0700. */
int vlart_private_make(const char *path, int *out_fd);

/* Writes the path of this user's folder for caches, "$XDG_CACHE_HOME/vlart" or "$HOME/.cache/vlart", and makes the
   folder above it. False: neither is set to an absolute path, or it does not fit. */
bool vlart_private_cache(char *out, size_t bytes);

/* Removes a folder below `at`, which is private, with the files in it; or the file or link of that name. A folder in
   which there are folders stays. */
void vlart_private_remove(int at, const char *name);

#endif
