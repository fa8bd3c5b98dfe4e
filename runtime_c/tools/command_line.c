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

bool tool_wants_help(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
      return true;
    }
  }
  return false;
}

static bool takes(const tool_option_t *option, const char *value) {
  if (option->flag != NULL) {
    *option->flag = true;
    return true;
  }
  if (option->text != NULL) {
    *option->text = value;
    return value != NULL;
  }
  return tool_read_count(value, option->most, option->count) && *option->count >= option->least;
}

const char *tool_read_options(int argc, char **argv, const tool_option_t *options, size_t count,
                              const char **bundle) {
  for (int i = 1; i < argc; i++) {
    size_t of = 0;
    while (of < count && strcmp(options[of].name, argv[i]) != 0) {
      of++;
    }
    if (of == count && (argv[i][0] == '-' || *bundle != NULL)) {
      return argv[i];
    }
    if (of == count) {
      *bundle = argv[i];
    } else if (!takes(&options[of], i + 1 < argc ? argv[i + 1] : NULL)) {
      return argv[i];
    } else {
      i += options[of].flag == NULL;
    }
  }
  return *bundle == NULL ? "BUNDLE is missing" : NULL;
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
