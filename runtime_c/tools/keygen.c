#include "keygen.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "command_line.h"

enum { MOST_SAID = 1 << 20, MOST_S = 60 };

typedef struct {
  int fd; /* -1: it ended */
  char *text;
  size_t length;
} stream_t;

FILE *keygen_file(const void *data, size_t bytes) {
  FILE *file = tmpfile();
  if (file != NULL && ((bytes > 0 && fwrite(data, 1, bytes, file) != bytes) || fflush(file) != 0 ||
                       lseek(fileno(file), 0, SEEK_SET) != 0)) {
    int error = errno;
    fclose(file);
    errno = error;
    return NULL;
  }
  return file;
}

/* The child's process number, or -1 with errno. */
static pid_t start(char *const *arguments, int input, stream_t *out, stream_t *said) {
  int ends[4];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return -1;
  }
  if (pipe2(ends + 2, O_CLOEXEC) != 0) {
    close(ends[0]);
    close(ends[1]);
    return -1;
  }
  pid_t child = fork();
  if (child == 0) {
    dup2(input, 0);
    dup2(ends[1], 1);
    dup2(ends[3], 2);
    execvp(arguments[0], arguments);
    fprintf(stderr, "%s: %s\n", arguments[0], strerror(errno));
    _exit(127);
  }
  close(ends[1]);
  close(ends[3]);
  out->fd = ends[0];
  said->fd = ends[2];
  return child;
}

/* False: it is too long. */
static bool take(stream_t *stream) {
  ssize_t got = read(stream->fd, stream->text + stream->length, MOST_SAID - stream->length);
  if (got > 0) {
    stream->length += (size_t)got;
  } else if (got == 0 || errno != EINTR) {
    close(stream->fd);
    stream->fd = -1;
  }
  return stream->length < MOST_SAID;
}

/* Until both end; NULL, or what is wrong. */
static const char *listen_to(stream_t streams[2], uint64_t until) {
  while (streams[0].fd >= 0 || streams[1].fd >= 0) {
    uint64_t now = vlart_now_ns();
    if (now >= until) {
      return "ssh-keygen does not end";
    }
    struct pollfd polled[2] = {{.fd = streams[0].fd, .events = POLLIN},
                               {.fd = streams[1].fd, .events = POLLIN}};
    int ready = poll(polled, 2, (int)((until - now) / 1000000) + 1);
    for (int i = 0; ready > 0 && i < 2; i++) {
      if (polled[i].revents != 0 && !take(&streams[i])) {
        return "ssh-keygen says more than 1 MiB";
      }
    }
  }
  return NULL;
}

/* Its exit status, or -1. It is killed where something is wrong, or when its time is over. */
static int end(pid_t child, const char *wrong, uint64_t until) {
  int status = -1;
  bool killed = false;
  for (;;) {
    if (!killed && (wrong != NULL || vlart_now_ns() >= until)) {
      kill(child, SIGKILL);
      killed = true;
    }
    pid_t found = waitpid(child, &status, killed ? 0 : WNOHANG);
    if (found == child) {
      return WIFEXITED(status) && !killed ? WEXITSTATUS(status) : -1;
    }
    if (found < 0 && errno != EINTR) {
      return -1;
    }
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
}

void keygen_ask(char *const *arguments, const void *input, size_t bytes, keygen_answer_t *answer) {
  if (answer->out == NULL) {
    answer->out = tool_allocate(MOST_SAID + 1, 1);
    answer->said = tool_allocate(MOST_SAID + 1, 1);
  }
  stream_t streams[2] = {{.fd = -1, .text = answer->out}, {.fd = -1, .text = answer->said}};
  FILE *file = keygen_file(input, bytes);
  pid_t child = file == NULL ? -1 : start(arguments, fileno(file), &streams[0], &streams[1]);
  const char *wrong = child < 0 ? strerror(errno) : NULL;
  answer->status = -1;
  if (child > 0) {
    uint64_t until = vlart_now_ns() + MOST_S * UINT64_C(1000000000);
    wrong = listen_to(streams, until);
    answer->status = end(child, wrong, until);
  }
  for (int i = 0; i < 2; i++) {
    if (streams[i].fd >= 0) close(streams[i].fd);
    streams[i].text[streams[i].length] = '\0';
  }
  if (wrong != NULL) {
    snprintf(answer->said, MOST_SAID, "%s", wrong);
    answer->out[0] = '\0';
  }
  if (file != NULL) fclose(file);
}

void keygen_forget(keygen_answer_t *answer) {
  free(answer->out);
  free(answer->said);
  *answer = (keygen_answer_t){0};
}
