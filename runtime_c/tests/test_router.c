/* A router: decisions, its log, no allocation, and its state through power cuts, failing disks and
   damage. Usage: test_router TABLE.bin DIRECTORY. Linked with --wrap of malloc and of what writes
   files (failing_disk.h). */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "check.h"
#include "count_allocations.h"
#include "failing_disk.h"
#include "vlart/vlart.h"

#define STOVE "turn on the stove"

static vlart_diag_t diag = {.struct_size = sizeof diag};
static const char *table;
static char state[512];
static void *arena;
static size_t arena_bytes;

static vlart_status_t open_router(const char *path, vlart_router_t **out) {
  vlart_router_options_t options = {
      .struct_size = sizeof options, .state = path, .log_capacity = 4};
  return vlart_router_init(table, &options, arena, arena_bytes, &diag, out);
}

static vlart_decision_t decide(vlart_router_t *router, const char *text) {
  vlart_decision_t decision = {.struct_size = sizeof decision};
  CHECK_STATUS(vlart_router_decide(router, text, NULL, 0, &diag, &decision), OK);
  return decision;
}

/* ---- files of the state: each of .0, .1, .tmp with its content, or absent ------------------- */

enum { SLOTS = 3, ROOM = 4096 };

typedef struct {
  bool there;
  size_t bytes;
  uint8_t data[ROOM];
} file_t;

typedef struct {
  file_t files[SLOTS];
} files_t;

static const char *path_of(int slot) {
  static char path[600];
  static const char *const endings[SLOTS] = {".0", ".1", ".tmp"};
  snprintf(path, sizeof path, "%s%s", state, endings[slot]);
  return path;
}

static void read_files(files_t *out) {
  for (int i = 0; i < SLOTS; i++) {
    FILE *file = fopen(path_of(i), "rb");
    out->files[i].there = file != NULL;
    out->files[i].bytes = file != NULL ? fread(out->files[i].data, 1, ROOM, file) : 0;
    if (file != NULL) {
      fclose(file);
    }
  }
}

static void write_files(const files_t *files) {
  disk = (disk_t){.mode = DISK_WORKS};
  for (int i = 0; i < SLOTS; i++) {
    remove(path_of(i));
    if (files->files[i].there) {
      FILE *file = fopen(path_of(i), "wb");
      CHECK(file != NULL);
      CHECK(fwrite(files->files[i].data, 1, files->files[i].bytes, file) == files->files[i].bytes);
      CHECK(fclose(file) == 0);
    }
  }
}

static void no_files(void) {
  static const files_t none;
  write_files(&none);
}

/* ---- decisions ------------------------------------------------------------------------------ */

static void test_decisions(void) {
  vlart_router_t *router;
  CHECK_STATUS(open_router(NULL, &router), OK);
  uint64_t before = allocations;
  vlart_decision_t d = decide(router, "  Turn ON the stove! ");
  CHECK(d.by == VLART_BY_TEXT && d.route == 2 && d.cluster == 1 && d.level == VLART_LEVEL_TASK);
  CHECK(d.backbone_count == 2 && strcmp(vlart_router_backbone(router, d.backbone), "light") == 0);
  CHECK(d.probability[1] == 1.0 && d.probability[0] > 0.5 && d.probability[0] < 0.7);
  d = decide(router, "put the bowl on the stove");
  CHECK(strcmp(vlart_router_backbone(router, d.backbone), "heavy") == 0);
  CHECK(d.probability[0] < d.tau);
  const float near[3] = {0.0f, 1.5f, 1.0f};
  const float far[3] = {-1.0f, 0.1f, -1.0f};
  CHECK_STATUS(vlart_router_decide(router, "light the stove", near, 3, &diag, &d), OK);
  CHECK(d.by == VLART_BY_EMBEDDING && d.cluster == 1 && d.level == VLART_LEVEL_CLUSTER);
  CHECK(fabs(d.similarity - 1.0) < 1e-6);
  CHECK_STATUS(vlart_router_decide(router, "light the stove", far, 3, &diag, &d), OK);
  CHECK(d.by == VLART_BY_NOTHING && d.cluster == VLART_NONE && d.level == VLART_LEVEL_ALL);
  CHECK(allocations == before);
  const float bad[3] = {0.0f, NAN, 1.0f};
  CHECK_STATUS(vlart_router_decide(router, "x", bad, 3, &diag, &d), NOT_FINITE);
  CHECK_STATUS(vlart_router_decide(router, "x", near, 2, &diag, &d), BAD_ARGUMENT);
  CHECK_STATUS(vlart_router_decide(router, "?!", NULL, 0, &diag, &d), BAD_ARGUMENT);
  char text[600];
  memset(text, 'a', sizeof text);
  text[513] = '\0';
  CHECK_STATUS(vlart_router_decide(router, text, NULL, 0, &diag, &d), BAD_ARGUMENT);
  text[512] = '\0';
  CHECK_STATUS(vlart_router_decide(router, text, NULL, 0, &diag, &d), OK);
}

static void test_outcomes_and_log(void) {
  vlart_router_t *router;
  CHECK_STATUS(open_router(NULL, &router), OK);
  CHECK_STATUS(vlart_router_report_outcome(router, 1, &diag), BAD_ARGUMENT);
  vlart_decision_t first = decide(router, STOVE);
  for (int i = 0; i < 10; i++) { /* the light one fails until the heavy one is taken */
    vlart_decision_t d = decide(router, STOVE);
    CHECK_STATUS(vlart_router_report_outcome(router, d.backbone, &diag), OK);
  }
  vlart_decision_t later = decide(router, STOVE);
  CHECK(first.backbone == 0 && later.backbone == 1);
  CHECK(later.alpha[0] == first.alpha[0] && later.beta[0] > first.beta[0] + 0.5);
  CHECK_STATUS(vlart_router_report_outcome(router, 2, &diag), BAD_ARGUMENT);
  CHECK_STATUS(vlart_router_report_outcome(router, 1, &diag), OK);
  CHECK_STATUS(vlart_router_report_outcome(router, 1, &diag), BAD_ARGUMENT);
  vlart_router_info_t info = {.struct_size = sizeof info};
  CHECK_STATUS(vlart_router_info(router, &info), OK);
  CHECK(info.log_count == 4 && info.log_dropped == later.sequence - 4);
  vlart_decision_t d = {.struct_size = sizeof d};
  for (uint64_t i = later.sequence - 3; i <= later.sequence; i++) {
    CHECK_STATUS(vlart_router_drain(router, &d), OK);
    CHECK(d.sequence == i && strcmp(d.text, STOVE) == 0);
  }
  CHECK(d.outcome == VLART_OUTCOME_SUCCESS && d.alpha[1] == later.alpha[1]);
  CHECK_STATUS(vlart_router_drain(router, &d), NOT_FOUND);
}

/* Old outcomes count half, so that the parameters stay within what the integral takes. */
static void test_counts_are_bounded(void) {
  vlart_router_t *router;
  CHECK_STATUS(open_router(NULL, &router), OK);
  for (int i = 0; i < 9000; i++) {
    decide(router, "put the bowl on the plate");
    CHECK_STATUS(vlart_router_report_outcome(router, 1, &diag), OK);
  }
  vlart_decision_t d = decide(router, "put the bowl on the plate");
  CHECK(d.alpha[0] > 2000.0 && d.alpha[0] < 4200.0 && d.probability[0] > 0.9);
}

/* ---- the state ------------------------------------------------------------------------------ */

/* Generation and alpha of the light backbone, read by a new router. */
static double successes_on_disk(uint64_t *out_generation) {
  vlart_router_t *router;
  disk = (disk_t){.mode = DISK_WORKS};
  CHECK_STATUS(open_router(state, &router), OK);
  vlart_router_info_t info = {.struct_size = sizeof info};
  CHECK_STATUS(vlart_router_info(router, &info), OK);
  *out_generation = info.generation;
  vlart_decision_t d = decide(router, "put the bowl on the plate");
  return d.alpha[0];
}

/* Saves `count` successes on the plate; false where power was cut. */
static bool save_outcomes(vlart_router_t *router, int count) {
  if (setjmp(disk.power) != 0) {
    return false;
  }
  for (int i = 0; i < count; i++) {
    decide(router, "put the bowl on the plate");
    CHECK_STATUS(vlart_router_report_outcome(router, 1, &diag), OK);
  }
  return true;
}

/* After a crash: with `variant` 0 all that happened is there; 1: the pending rename is not; 2, 3,
   4: it is, but what was not synced is cut to nothing, to half, or holds zeros. False where that
   cannot happen. */
static bool crash(const files_t *before, int variant) {
  files_t now;
  read_files(&now);
  bool renamed = disk.renamed;
  bool kept = disk.content_kept;
  bool in_temporary = now.files[2].there; /* what was written last */
  if (variant == 1) {
    if (!renamed) {
      return false;
    }
    now.files[0] = before->files[0];
    now.files[1] = before->files[1];
  }
  if (variant > 1) {
    if (kept) {
      return false;
    }
    for (int i = 0; i < SLOTS; i++) {
      file_t *file = &now.files[i];
      bool changed = file->bytes != before->files[i].bytes ||
                     memcmp(file->data, before->files[i].data, file->bytes) != 0;
      if (file->there && (in_temporary ? i == 2 : changed)) {
        memset(file->data, 0, variant == 4 ? file->bytes : 0);
        file->bytes = variant == 2 ? 0 : variant == 3 ? file->bytes / 2 : file->bytes;
      }
    }
  }
  write_files(&now);
  return true;
}

/* Cuts power at every step of the save after `earlier` saves. Returns how many crashes lost an
   outcome whose save had returned OK, which must not happen where fsync tells the truth. */
static int cut_everywhere(int earlier, bool file_lies, bool directory_lies) {
  int lost = 0;
  bool finished = false;
  for (int at = 1; !finished; at++) {
    CHECK(at < 100);
    for (int variant = 0; variant < 5; variant++) {
      vlart_router_t *router;
      no_files();
      CHECK_STATUS(open_router(state, &router), OK);
      CHECK(save_outcomes(router, earlier));
      static files_t before;
      memset(&before, 0, sizeof before);
      read_files(&before);
      uint64_t generation;
      double old = successes_on_disk(&generation);
      CHECK(generation == (uint64_t)earlier);
      CHECK_STATUS(open_router(state, &router), OK);
      disk = (disk_t){.mode = DISK_CUT,
                      .at = at,
                      .most = 100,
                      .file_lies = file_lies,
                      .directory_lies = directory_lies,
                      .content_kept = true};
      finished = save_outcomes(router, 1);
      if (!crash(&before, variant)) {
        continue;
      }
      double after = successes_on_disk(&generation);
      bool is_old = after == old && generation == (uint64_t)earlier;
      bool is_new = fabs(after - old - 1.0) < 1e-9 && generation == (uint64_t)earlier + 1;
      CHECK(is_old || is_new); /* never a part, whatever the disk does */
      lost += finished && !is_new;
      CHECK_STATUS(open_router(state, &router), OK); /* and it goes on from there */
      CHECK(save_outcomes(router, 1));
      CHECK(successes_on_disk(&generation) > after + 0.9);
    }
  }
  return lost;
}

static void test_power_cuts(void) {
  for (int earlier = 1; earlier < 4; earlier++) {
    CHECK(cut_everywhere(earlier, false, false) == 0);
  }
  /* Controls: without either fsync the test must see a loss. */
  CHECK(cut_everywhere(2, true, false) > 0);
  CHECK(cut_everywhere(2, false, true) > 0);
}

static void test_first_save_cut(void) {
  for (int at = 1; at < 20; at++) {
    vlart_router_t *router;
    no_files();
    CHECK_STATUS(open_router(state, &router), OK);
    disk = (disk_t){.mode = DISK_CUT, .at = at, .most = 100};
    bool finished = save_outcomes(router, 1);
    uint64_t generation;
    successes_on_disk(&generation);
    CHECK(generation <= 1 && (!finished || generation == 1));
  }
}

/* A step that fails is told; the outcome is kept and saved with the next one. */
static void test_failing_disk(void) {
  bool finished = false;
  for (int at = 1; !finished; at++) {
    CHECK(at < 100);
    vlart_router_t *router;
    no_files();
    CHECK_STATUS(open_router(state, &router), OK);
    CHECK(save_outcomes(router, 2));
    uint64_t generation;
    double old = successes_on_disk(&generation);
    CHECK_STATUS(open_router(state, &router), OK);
    disk = (disk_t){.mode = DISK_FAILS, .at = at, .error = at % 2 ? ENOSPC : EIO, .most = 100};
    decide(router, "put the bowl on the plate");
    vlart_status_t status = vlart_router_report_outcome(router, 1, &diag);
    finished = disk.steps < at;
    CHECK(status == (finished ? VLART_STATUS_OK : VLART_STATUS_IO));
    CHECK(finished || (strlen(diag.where) > 0 && strstr(diag.why, "failed with errno") != NULL));
    disk = (disk_t){.mode = DISK_WORKS};
    CHECK(save_outcomes(router, 1)); /* the same router, the disk works again */
    CHECK(fabs(successes_on_disk(&generation) - old - 2.0) < 1e-9);
  }
}

static void test_damaged_state(void) {
  vlart_router_t *router;
  no_files();
  CHECK_STATUS(open_router(state, &router), OK);
  CHECK(save_outcomes(router, 2)); /* generation 1 in .0, generation 2 in .1 */
  static files_t good;
  read_files(&good);
  uint64_t generation;
  double newest = successes_on_disk(&generation);
  CHECK(generation == 2);
  size_t bytes = good.files[1].bytes;
  CHECK(bytes > 100 && good.files[0].bytes == bytes);
  for (size_t at = 0; at < bytes; at++) {
    for (int cut = 0; cut < 2; cut++) { /* a changed byte, then a file that ends there */
      static files_t bad;
      bad = good;
      bad.files[1].data[at] ^= 0x41;
      bad.files[1].bytes = cut ? at : bytes;
      write_files(&bad);
      if (!cut && at >= 8 && at < 16) { /* of another version or another table */
        CHECK_STATUS(open_router(state, &router), VERSION);
        continue;
      }
      CHECK_STATUS(open_router(state, &router), OK);
      vlart_router_info_t info = {.struct_size = sizeof info};
      CHECK_STATUS(vlart_router_info(router, &info), OK);
      CHECK(info.recovered == 1 && info.generation == 1);
      CHECK(fabs(successes_on_disk(&generation) - newest + 1.0) < 1e-9);
      bad.files[0].there = false; /* and without the older one it is refused */
      write_files(&bad);
      CHECK_STATUS(open_router(state, &router), CORRUPT);
    }
  }
  static files_t longer;
  longer = good;
  longer.files[1].bytes = bytes + 1;
  write_files(&longer);
  CHECK_STATUS(open_router(state, &router), OK);
  CHECK(successes_on_disk(&generation) < newest && generation == 1);
  write_files(&good);
  CHECK(successes_on_disk(&generation) == newest && generation == 2);
}

static void test_arena(void) {
  vlart_router_t *router;
  vlart_router_options_t options = {.struct_size = sizeof options, .log_capacity = 4};
  CHECK_STATUS(vlart_router_init(table, &options, arena, arena_bytes - 64, &diag, &router),
               OUT_OF_MEMORY);
  CHECK(router == NULL);
  options.log_capacity = 70000;
  CHECK_STATUS(vlart_router_init(table, &options, arena, arena_bytes, &diag, &router),
               BAD_ARGUMENT);
  CHECK_STATUS(vlart_router_init("/no/such/table", NULL, arena, arena_bytes, &diag, &router), IO);
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  table = argv[1];
  snprintf(state, sizeof state, "%s/router_state", argv[2]);
  vlart_router_options_t options = {.struct_size = sizeof options, .log_capacity = 4};
  CHECK_STATUS(vlart_router_required_bytes(table, &options, &diag, &arena_bytes), OK);
  arena = test_take(arena_bytes);
  test_arena();
  test_decisions();
  test_outcomes_and_log();
  test_counts_are_bounded();
  test_power_cuts();
  test_first_save_cut();
  test_failing_disk();
  test_damaged_state();
  no_files();
  CHECK(allocations == 0);
  test_give(arena);
  return 0;
}
