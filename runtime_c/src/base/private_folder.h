/* [init] Folders that are of this user alone: nobody else writes into them or reads them. */
#ifndef VLART_PRIVATE_FOLDER_H
#define VLART_PRIVATE_FOLDER_H

/* Opens a folder; 0 or an errno. ELOOP or ENOTDIR: it is a link or no folder; EPERM: it is another user's, or others may
   look into it. `path` is below the folder `at`, or AT_FDCWD. */
int vlart_private_open(int at, const char *path, int *out_fd);

/* The same of a path; a folder that does not exist is made, with mode 0700. */
int vlart_private_make(const char *path, int *out_fd);

/* Removes a folder below `at`, which is private, with the files in it; or the file or link of that name. A folder in
   which there are folders stays. */
void vlart_private_remove(int at, const char *name);

#endif
