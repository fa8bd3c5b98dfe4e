/* The check of a signed bundle, on lists, signatures and signers of any content; a target of libFuzzer. ssh-keygen is
   replaced by what the input says that it answered, so that what a forger controls reaches every reader behind it. The
   bundle has one file. Whatever the answers: it passes only if the list has the hash of that file, and a signer was
   named. An input: one byte per answer (FLAGS of them), then list, signature, signers and what ssh-keygen prints, each
   with its length in two bytes. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keygen.h"
#include "sha256.h"
#include "signed.h"

enum { FLAGS = 8, PARTS = 4, MOST = 65535 };
enum { PART_SUMS, PART_SIGNATURE, PART_SIGNERS, PART_SAID };

typedef struct {
  const uint8_t *data;
  size_t bytes;
} part_t;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char folder[] = "/tmp/fuzz_signed.XXXXXX", bundle[64], signers[64];
static const char content[] = "the plan";
static char hash[65];
static const uint8_t *flags;
static part_t said;
static size_t asked;
static bool named; /* a signature was said to hold for one of the signers */
static size_t passed, tried;

FILE *keygen_file(const void *data, size_t bytes) {
  FILE *file = tmpfile();
  if (file != NULL) {
    fwrite(data, 1, bytes, file);
    rewind(file);
  }
  return file;
}

void keygen_forget(keygen_answer_t *answer) {
  free(answer->out);
  free(answer->said);
  *answer = (keygen_answer_t){0};
}

void keygen_ask(char *const *arguments, const void *input, size_t bytes, keygen_answer_t *answer) {
  (void)input;
  (void)bytes;
  keygen_forget(answer);
  uint8_t flag = flags[asked++ % FLAGS];
  bool probe = strcmp(arguments[2], "find-principals") == 0 && arguments[3] == NULL;
  answer->status = flag & 1;
  answer->out = calloc(said.bytes + 1, 1);
  answer->said = calloc(said.bytes + 32, 1);
  if (answer->out == NULL || answer->said == NULL) abort();
  memcpy(answer->out, said.data, said.bytes);
  memcpy(answer->said, said.data, said.bytes);
  if (probe && (flag & 2) == 0) strcpy(answer->said, "missing signature file");
  named = named || (strcmp(arguments[2], "verify") == 0 && answer->status == 0);
}

static void put(const char *name, part_t part) {
  char path[128];
  snprintf(path, sizeof path, "%s/%s", bundle, name);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (fd < 0 || write(fd, part.data, part.bytes) != (ssize_t)part.bytes) abort();
  close(fd);
}

static void end(void) {
  fprintf(stderr, "%zu of %zu bundles passed\n", passed, tried);
  static const char *const names[] = {"SHA256SUMS", "SHA256SUMS.sig", "plan.bin"};
  char path[128];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    snprintf(path, sizeof path, "%s/%s", bundle, names[i]);
    unlink(path);
  }
  unlink(signers);
  rmdir(bundle);
  rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  if (mkdtemp(folder) == NULL) abort();
  snprintf(bundle, sizeof bundle, "%s/a.vlab", folder);
  snprintf(signers, sizeof signers, "%s/signers", folder);
  if (mkdir(bundle, 0700) != 0) abort();
  put("plan.bin", (part_t){(const uint8_t *)content, strlen(content)});
  uint8_t digest[32];
  tool_sha256(content, strlen(content), digest);
  for (size_t i = 0; i < sizeof digest; i++) {
    snprintf(hash + 2 * i, 3, "%02x", digest[i]);
  }
  atexit(end);
  return 0;
}

static bool split(const uint8_t *data, size_t bytes, part_t parts[PARTS]) {
  for (size_t i = 0; i < PARTS; i++) {
    if (bytes < 2) return false;
    size_t length = (size_t)data[0] | (size_t)data[1] << 8;
    if (length > bytes - 2) return false;
    parts[i] = (part_t){data + 2, length};
    data += 2 + length;
    bytes -= 2 + length;
  }
  return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  part_t parts[PARTS];
  if (bytes < FLAGS || !split(data + FLAGS, bytes - FLAGS, parts)) {
    return -1;
  }
  flags = data;
  said = parts[PART_SAID];
  asked = 0;
  named = false;
  put("SHA256SUMS", parts[PART_SUMS]);
  put("SHA256SUMS.sig", parts[PART_SIGNATURE]);
  put("../signers", parts[PART_SIGNERS]);
  vlart_diag_t diag = {.struct_size = sizeof diag};
  vlart_status_t status = tool_require_signed(bundle, signers, (flags[FLAGS - 1] & 4) != 0, &diag);
  bool listed = memmem(parts[PART_SUMS].data, parts[PART_SUMS].bytes, hash, 64) != NULL;
  tried++;
  passed += status == VLART_STATUS_OK;
  if (status == VLART_STATUS_OK ? !(listed && named) : diag.what[0] == '\0') {
    fprintf(stderr, "passed without %s, or refused without a word\n",
            listed ? "a signer" : "a hash");
    abort();
  }
  return 0;
}
