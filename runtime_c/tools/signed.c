#include "signed.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/diag.h"
#include "base/file_map.h"
#include "command_line.h"
#include "keygen.h"
#include "sha256.h"

#define SUMS "SHA256SUMS"
#define SIGNATURE "SHA256SUMS.sig"
#define NAMESPACE "vlacompile-bundle"

enum {
  PATH_BYTES = 4096,
  DIGITS = 64,
  KEY_CHARACTERS = 64,
  MOST_SUMS = 1 << 24,
  MOST_SIGNERS = 1 << 20,
  MOST_SIGNATURE = 1 << 16,
  MOST_QUESTIONS = 1000 /* to ssh-keygen */
};

typedef struct {
  const char *bundle;
  int dir;
  bool own_engines;
  vlart_map_t sums;
  const char *table; /* the lines of SHA256SUMS behind its comments, which end with `end` */
  const char *end;
  vlart_diag_t *diag;
} list_t;

static vlart_status_t refuse(const list_t *list, const char *what, const char *where,
                             const char *why, const char *fix) {
  vlart_fail(list->diag, VLART_STATUS_UNTRUSTED, what, fix);
  vlart_where(list->diag, "%s/%s", list->bundle, where);
  vlart_why(list->diag, "%s", why);
  return VLART_STATUS_UNTRUSTED;
}

/* A file of the bundle of at most so many bytes. NULL, or what is wrong with it. */
static const char *map_small(const list_t *list, const char *name, size_t most, vlart_map_t *out) {
  int error = vlart_file_map(list->dir, name, out);
  const char *words = error == 0 ? NULL : vlart_file_fault(error);
  return error != 0                             ? words != NULL ? words : strerror(error)
         : out->bytes == 0 || out->bytes > most ? "it is empty, or too large"
                                                : NULL;
}

/* The list of signers, which may be a link: up to a NUL, to be freed; NULL, and what is wrong with it in `why`. */
static char *read_signers(const char *path, const char **why) {
  struct stat info;
  *why = "it is no regular file";
  if (stat(path, &info) != 0) {
    *why = strerror(errno);
    return NULL;
  }
  int fd = S_ISREG(info.st_mode) ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
  char *text = NULL;
  if (fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
    *why = "it has more than 1 MiB";
    if (info.st_size <= MOST_SIGNERS) {
      text = tool_allocate((size_t)info.st_size + 1, 1);
      ssize_t got = 0;
      for (size_t at = 0; (got = read(fd, text + at, (size_t)info.st_size - at)) > 0;) {
        at += (size_t)got;
      }
      for (off_t i = 0; i < info.st_size; i++) {
        text[i] = text[i] == '\0' ? '?' : text[i];
      }
    }
  }
  if (fd >= 0) close(fd);
  return text;
}

typedef struct {
  const list_t *list;
  char signature[32], signers[32]; /* paths of private copies */
  char key[KEY_CHARACTERS + 1];    /* how the signature's key begins, as a list of signers has it */
  keygen_answer_t answer;
  uint32_t questions;
  char why[256]; /* of the first line that has the key and does not count */
} question_t;

static bool ask(question_t *question, char *const *arguments, const void *input, size_t bytes) {
  question->questions++;
  keygen_ask(arguments, input, bytes, &question->answer);
  return question->answer.status == 0;
}

/* What it said, in one line, without the name of a private copy. */
static const char *reason(const question_t *question) {
  char *said = question->answer.said;
  said[strcspn(said, "\r\n")] = '\0';
  const char *text = strncmp(said, "/dev/", 5) == 0 ? strstr(said, ": ") : NULL;
  text = text == NULL ? said : text + 2;
  return text[0] == '\0' ? "ssh-keygen says nothing" : text;
}

/* The key of a signature in armour follows 14 bytes of other things. */
static void read_key(const vlart_map_t *signature, char out[KEY_CHARACTERS + 1]) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  uint8_t bytes[14 + KEY_CHARACTERS / 4 * 3] = {0};
  size_t count = 0;
  uint32_t bits = 0, held = 0;
  bool begins = true, around = false;
  for (size_t i = 0; i < signature->bytes && count < sizeof bytes; i++) {
    char c = (char)signature->data[i];
    around = begins ? c == '-' : around;
    begins = c == '\n';
    const char *digit = around || c == '\0' ? NULL : strchr(digits, c);
    if (digit != NULL) {
      bits = bits << 6 | (uint32_t)(digit - digits);
      held += 6;
      if (held >= 8) {
        held -= 8;
        bytes[count++] = (uint8_t)(bits >> held);
      }
    }
  }
  for (size_t i = 0; i < KEY_CHARACTERS; i++) {
    const uint8_t *from = bytes + 14 + i / 4 * 3;
    uint32_t three = (uint32_t)from[0] << 16 | (uint32_t)from[1] << 8 | from[2];
    out[i] = digits[three >> (18 - 6 * (i % 4)) & 63];
  }
  out[KEY_CHARACTERS] = '\0';
}

/* Whether the signature is of one of the principals of this line of the list. */
static bool signed_by_line(question_t *question, char *line, size_t number) {
  char *find[] = {"ssh-keygen",        "-Y", "find-principals", "-s",
                  question->signature, "-f", "/dev/stdin",      NULL};
  bool good = ask(question, find, line, strlen(line));
  char *principals = good ? strdup(question->answer.out) : NULL, *rest = principals;
  good = false;
  for (char *who; !good && principals != NULL && question->questions < MOST_QUESTIONS &&
                  (who = strtok_r(rest, "\n", &rest)) != NULL;) {
    char *verify[] = {"ssh-keygen",        "-Y", "verify",          "-n", NAMESPACE, "-s",
                      question->signature, "-f", question->signers, "-I", who,       NULL};
    good = ask(question, verify, question->list->sums.data, question->list->sums.bytes);
  }
  free(principals);
  if (!good && question->why[0] == '\0') {
    snprintf(question->why, sizeof question->why, "line %zu: %.200s", number, reason(question));
  }
  return good;
}

/* ssh-keygen finds the first line that has the key, which may be for another purpose: so each is asked for. */
static bool signed_by_one(question_t *question, char *text) {
  size_t number = 0;
  for (char *line = text; *line != '\0';) {
    size_t length = strcspn(line, "\n");
    char *next = line + length + (line[length] != '\0');
    line[length] = '\0';
    number++;
    if (strcasestr(line, question->key) != NULL || strcasestr(line, "cert-authority") != NULL) {
      if (question->questions >= MOST_QUESTIONS) {
        snprintf(question->why, sizeof question->why, "too many lines or principals have its key");
        return false;
      }
      if (signed_by_line(question, line, number)) {
        return true;
      }
    }
    line = next;
  }
  return false;
}

static vlart_status_t ask_all(question_t *question, char *signers) {
  const list_t *list = question->list;
  char *probe[] = {"ssh-keygen", "-Y", "find-principals", NULL};
  ask(question, probe, NULL, 0);
  if (strstr(question->answer.said, "missing signature file") == NULL) {
    return refuse(list, "ssh-keygen is missing or too old", SIGNATURE, reason(question),
                  "install OpenSSH 8.2 or newer (apt-get install openssh-client)");
  }
  char *novalidate[] = {"ssh-keygen", "-Y", "check-novalidate",  "-n",
                        NAMESPACE,    "-s", question->signature, NULL};
  if (!ask(question, novalidate, list->sums.data, list->sums.bytes)) {
    return refuse(list, "the signature does not hold", SIGNATURE, reason(question),
                  "copy the bundle again, or sign it again");
  }
  if (!signed_by_one(question, signers)) {
    return refuse(list, "the bundle is signed by none of the signers", SIGNATURE,
                  question->why[0] != '\0' ? question->why : "none of them has its key",
                  "take it from somebody whom they trust, or enroll the signers anew");
  }
  return VLART_STATUS_OK;
}

/* What ssh-keygen reads: of the signature and of the list, as they were read here. */
static bool copy_both(const vlart_map_t *map, const char *text, FILE *copies[2]) {
  copies[0] = keygen_file(map->data, map->bytes);
  copies[1] = copies[0] == NULL ? NULL : keygen_file(text, strlen(text));
  return copies[1] != NULL;
}

/* ssh-keygen gets private copies of what it reads, so that a pipe or a device in their place is none of its own. */
static vlart_status_t check_signature(const list_t *list, const char *signers) {
  vlart_map_t map;
  const char *wrong = map_small(list, SIGNATURE, MOST_SIGNATURE, &map);
  const char *why = NULL;
  char *text = wrong == NULL ? read_signers(signers, &why) : NULL;
  FILE *copies[2] = {NULL, NULL};
  vlart_status_t status = VLART_STATUS_UNTRUSTED;
  if (wrong != NULL) {
    refuse(list, "the signature cannot be read", SIGNATURE, wrong, "copy the bundle again");
  } else if (text == NULL) {
    vlart_fail(
        list->diag, status, "the list of signers cannot be read",
        "give a file in ssh-keygen's ALLOWED SIGNERS format: PRINCIPAL KEYTYPE KEY on a line");
    vlart_where(list->diag, "%s", signers);
    vlart_why(list->diag, "%s", why);
  } else if (!copy_both(&map, text, copies)) {
    refuse(list, "the signature cannot be judged", SIGNATURE, strerror(errno),
           "make room for temporary files");
  } else {
    question_t question = {.list = list};
    snprintf(question.signature, sizeof question.signature, "/dev/fd/%d", fileno(copies[0]));
    snprintf(question.signers, sizeof question.signers, "/dev/fd/%d", fileno(copies[1]));
    read_key(&map, question.key);
    status = ask_all(&question, text);
    keygen_forget(&question.answer);
  }
  for (int i = 0; i < 2; i++) {
    if (copies[i] != NULL) fclose(copies[i]);
  }
  free(text);
  vlart_file_unmap(&map);
  return status;
}

/* The line "DIGITS  PATH" of a path, or NULL. */
static const char *line_of(const list_t *list, const char *path) {
  size_t length = strlen(path);
  for (const char *line = list->table; line < list->end;) {
    const char *stop = memchr(line, '\n', (size_t)(list->end - line));
    size_t bytes = (size_t)(stop - line);
    if (bytes == DIGITS + 2 + length && memcmp(line + DIGITS + 2, path, length) == 0) {
      return line;
    }
    line = stop + 1;
  }
  return NULL;
}

static vlart_status_t check_file(const list_t *list, const char *line, size_t bytes) {
  char path[PATH_BYTES], hex[DIGITS + 1];
  uint8_t digest[DIGITS / 2];
  if (bytes < DIGITS + 3 || bytes - DIGITS - 2 >= sizeof path ||
      memcmp(line + DIGITS, "  ", 2) != 0) {
    return refuse(list, "what was signed is no list of a bundle's files", SUMS,
                  "a line has another form", "sign the bundle again");
  }
  memcpy(path, line + DIGITS + 2, bytes - DIGITS - 2);
  path[bytes - DIGITS - 2] = '\0';
  vlart_map_t map;
  int error = vlart_file_map(list->dir, path, &map);
  if (error != 0) {
    const char *words = vlart_file_fault(error);
    return refuse(list, "a file is not as it was signed", path,
                  words != NULL ? words : strerror(error), "copy the bundle again");
  }
  tool_sha256(map.data, map.bytes, digest);
  vlart_file_unmap(&map);
  for (size_t i = 0; i < sizeof digest; i++) {
    snprintf(hex + 2 * i, 3, "%02x", digest[i]);
  }
  return memcmp(hex, line, DIGITS) == 0
             ? VLART_STATUS_OK
             : refuse(list, "a file is not as it was signed", path, "its sha256 is another one",
                      "copy the bundle again");
}

static vlart_status_t check_table(list_t *list) {
  static const char *const heads[] = {"# vlacompile-bundle 1\n", "# policy ", "# release "};
  const char *line = (const char *)list->sums.data;
  const char *end = line + list->sums.bytes;
  bool good = list->sums.bytes > 0 && end[-1] == '\n';
  for (size_t i = 0; good && i < sizeof heads / sizeof *heads; i++) {
    good = (size_t)(end - line) > strlen(heads[i]) && memcmp(line, heads[i], strlen(heads[i])) == 0;
    line = good ? (const char *)memchr(line, '\n', (size_t)(end - line)) + 1 : line;
  }
  if (!good) {
    return refuse(list, "what was signed is no list of a bundle's files", SUMS,
                  "its first lines are others", "sign the bundle again, or update this program");
  }
  list->table = line;
  list->end = end;
  vlart_status_t status = VLART_STATUS_OK;
  while (status == VLART_STATUS_OK && line < end) {
    const char *stop = memchr(line, '\n', (size_t)(end - line));
    status = check_file(list, line, (size_t)(stop - line));
    line = stop + 1;
  }
  return status;
}

/* One thing below engines/. A file .building is what keeps two vlart-build apart. */
static vlart_status_t check_engine(const list_t *list, const char *path, const FTSENT *entry) {
  bool lock = strcmp(path, "engines/.building") == 0 && entry->fts_info == FTS_F &&
              entry->fts_statp->st_size == 0;
  bool odd = entry->fts_name[0] == '.' || (entry->fts_info != FTS_F && entry->fts_info != FTS_D);
  if (lock || (!odd && (list->own_engines || entry->fts_info == FTS_D))) {
    return VLART_STATUS_OK;
  }
  return odd ? refuse(list, "engines/ has what no board makes there", path,
                      "links, hidden names and special files do not belong there", "remove it")
             : refuse(list, "engines are bound by no signature", path,
                      "a board makes them, and whoever could write here may have put others there",
                      "remove engines/, or build them here: vlart-build BUNDLE --signers FILE; if "
                      "they "
                      "were: --keep-engines");
}

/* One thing below the bundle's directory: a directory, a file of the list, or the list itself. */
static vlart_status_t check_entry(const list_t *list, const FTSENT *entry) {
  const char *path = entry->fts_path + strlen(list->bundle);
  path += strspn(path, "/");
  switch (entry->fts_info) {
    case FTS_D:
      return strncmp(path, "engines/", 8) == 0 ? check_engine(list, path, entry) : VLART_STATUS_OK;
    case FTS_DP: return VLART_STATUS_OK;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
      return refuse(list, "a directory of the bundle cannot be read", path,
                    strerror(entry->fts_errno), "check the rights, or copy the bundle again");
    default: break;
  }
  if (strncmp(path, "engines/", 8) == 0) {
    return check_engine(list, path, entry);
  }
  bool listed =
      strcmp(path, SUMS) == 0 || strcmp(path, SIGNATURE) == 0 || line_of(list, path) != NULL;
  return listed && entry->fts_info == FTS_F
             ? VLART_STATUS_OK
             : refuse(
                   list, "a file is not in what was signed", path,
                   listed ? "it is no regular file" : "the signature binds every file of a bundle",
                   "remove that file");
}

static vlart_status_t check_besides(const list_t *list) {
  char *roots[] = {(char *)(uintptr_t)list->bundle, NULL};
  FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
  if (walk == NULL) {
    return refuse(list, "a directory of the bundle cannot be read", "", strerror(errno),
                  "check the rights, or copy the bundle again");
  }
  vlart_status_t status = VLART_STATUS_OK;
  for (FTSENT *entry; status == VLART_STATUS_OK && (entry = fts_read(walk)) != NULL;) {
    status = check_entry(list, entry);
  }
  fts_close(walk);
  return status;
}

vlart_status_t tool_require_signed(const char *bundle, const char *signers, bool own_engines,
                                   vlart_diag_t *diag) {
  list_t list = {.bundle = bundle, .own_engines = own_engines, .diag = diag};
  list.dir = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const char *wrong =
      list.dir < 0 ? strerror(errno) : map_small(&list, SUMS, MOST_SUMS, &list.sums);
  vlart_status_t status = VLART_STATUS_OK;
  if (wrong != NULL) {
    status = refuse(&list, "the bundle is not signed", SUMS, wrong,
                    "sign it where it was built: vlacompile sign BUNDLE --key KEY");
  }
  if (status == VLART_STATUS_OK) status = check_signature(&list, signers);
  if (status == VLART_STATUS_OK) status = check_table(&list);
  if (status == VLART_STATUS_OK) status = check_besides(&list);
  vlart_file_unmap(&list.sums);
  if (list.dir >= 0) {
    close(list.dir);
  }
  return status;
}

const char *tool_enrolled(void) {
  static char path[PATH_BYTES];
  const char *home = getenv("HOME");
  int length =
      snprintf(path, sizeof path, "%s/.local/share/vlacompile/signers", home == NULL ? "" : home);
  return home != NULL && (size_t)length < sizeof path && access(path, F_OK) == 0 ? path : NULL;
}

vlart_status_t tool_open_bundle(const char *path, const char *signers, bool own_engines,
                                void **out_arena, vlart_bundle_t **out_bundle, vlart_diag_t *diag) {
  size_t bytes = 0;
  vlart_status_t status = VLART_STATUS_OK;
  if (signers != NULL) {
    status = tool_require_signed(path, signers, own_engines, diag);
  }
  if (status == VLART_STATUS_OK) {
    status = vlart_bundle_required_bytes(path, diag, &bytes);
  }
  if (status != VLART_STATUS_OK) {
    return status;
  }
  *out_arena = tool_allocate(bytes, 1);
  return vlart_bundle_open(path, NULL, *out_arena, bytes, diag, out_bundle);
}
