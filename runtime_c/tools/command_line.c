#include "command_line.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/diag.h"

void *tool_allocate(size_t count, size_t bytes) {
  void *memory = calloc(count, bytes);
  if (memory == NULL) {
    fputs("out of memory\n", stderr);
    exit(1);
  }
  return memory;
}

bool tool_read_count(const char *text, uint32_t most, uint32_t *out_count) {
  char *end;
  unsigned long number = text == NULL ? 0 : strtoul(text, &end, 10);
  if (text == NULL || *text < '0' || *text > '9' || *end != '\0' || number > most) {
    return false;
  }
  *out_count = (uint32_t)number;
  return true;
}

int tool_print_failure(vlart_status_t status, const vlart_diag_t *diag) {
  fprintf(stderr, "what:  %s [%s]\nwhere: %s\nwhy:   %s\nfix:   %s\n", diag->what,
          vlart_status_name(status), diag->where, diag->why, diag->fix);
  return 1;
}

int tool_wrong_usage(const char *program, const char *argument, const char *usage) {
  char shown[256];
  vlart_show(shown, sizeof shown, argument);
  fprintf(stderr, "%s: wrong usage at: %s\n\n%s", program, shown, usage);
  return 2;
}

void tool_begin(void) {
  int file;
  do {
    file = open("/dev/null", O_RDWR); /* the lowest number that is free */
  } while (file >= 0 && file <= STDERR_FILENO);
  if (file >= 0) {
    close(file);
  }
}

int tool_end(int exit_status) {
  bool failed_before = ferror(stdout) != 0;
  if (failed_before) { /* whoever printed did not look at errno: the same file says it again */
    clearerr(stdout);
    fputc('\n', stdout);
  }
  errno = 0;
  int reason = fflush(stdout) == 0 ? 0 : errno;
  if (reason == 0 && !failed_before) {
    return exit_status;
  }
  const char *why = reason != 0 ? strerror(reason) : "a part of it was not written";
  vlart_diag_t diag = {.struct_size = sizeof diag};
  vlart_fail(&diag, VLART_STATUS_IO, "the result cannot be written",
             "free space where the output goes, then run this again");
  vlart_where(&diag, "stdout");
  vlart_why(&diag, "%s", why);
  return tool_print_failure(diag.status, &diag);
}

void tool_end_as_child(int status) {
  struct pollfd output = {.fd = STDOUT_FILENO};
  bool closed = poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0;
  if (closed && WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE) {
    raise(SIGPIPE);
  }
}

bool tool_find_row(const char *path, const char *key, char *out, size_t bytes) {
  char row[256];
  FILE *file = fopen(path, "r");
  bool found = false;
  while (file != NULL && !found && fgets(row, sizeof row, file) != NULL) {
    const char *colon = strchr(row, ':');
    if (colon != NULL && strncmp(row, key, strlen(key)) == 0) {
      snprintf(out, bytes, "%s", colon + 1 + strspn(colon + 1, " \t"));
      out[strcspn(out, "\r\n")] = '\0';
      found = true;
    }
  }
  if (file != NULL) {
    fclose(file);
  }
  return found;
}
