/* vlart-dump: prints the plan of a bundle as text, the same text as its plan.txt, or the record of its engines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle/bundle.h"
#include "command_line.h"
#include "lock_text.h"
#include "plan_text.h"
#include "tensorrt/trt_lock.h"

static const char usage[] =
    "usage: vlart-dump [--engines] BUNDLE\n"
    "\n"
    "Prints BUNDLE/plan.bin as text: files, weights, values, sources, stages and\n"
    "the action, as libvlart reads them. The text is that of BUNDLE/plan.txt:\n"
    "\n"
    "  vlart-dump my.vlab | diff - my.vlab/plan.txt\n"
    "\n"
    "The plan is validated; files are checked for presence and size, not content\n"
    "(vlart-run checks that too).\n"
    "\n"
    "  --engines    print BUNDLE/engines/lock.bin instead: what vlart-build built,\n"
    "               from what, on which board, and what proved it\n";

static int dump_engines(const char *dir) {
  vlart_diag_t diag = {.struct_size = sizeof diag};
  vlart_trt_lock_t lock;
  vlart_status_t status = vlart_trt_lock_open(dir, &lock, &diag);
  if (status == VLART_STATUS_OK) {
    vlart_lock_print(stdout, &lock.content);
  }
  vlart_trt_lock_close(&lock);
  return status == VLART_STATUS_OK ? 0 : tool_print_failure(status, &diag);
}

static int dump_plan(const char *dir) {
  vlart_diag_t diag = {.struct_size = sizeof diag};
  vlart_open_options_t options = {.struct_size = sizeof options, .skip_file_checksums = 1};
  size_t bytes = 0;
  if (vlart_bundle_required_bytes(dir, &diag, &bytes) != VLART_STATUS_OK) {
    return tool_print_failure(diag.status, &diag);
  }
  void *arena = malloc(bytes);
  vlart_bundle_t *bundle = NULL;
  vlart_status_t status = vlart_bundle_open(dir, &options, arena, bytes, &diag, &bundle);
  if (status != VLART_STATUS_OK) {
    free(arena);
    return tool_print_failure(diag.status, &diag);
  }
  vlart_plan_print(stdout, &bundle->plan);
  vlart_bundle_close(bundle);
  free(arena);
  return 0;
}

int main(int argc, char **argv) {
  tool_begin();
  if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
    fputs(usage, stdout);
    return tool_end(0);
  }
  bool engines = argc == 3 && strcmp(argv[1], "--engines") == 0;
  if (argc != (engines ? 3 : 2) || argv[argc - 1][0] == '-') {
    fputs(usage, stderr);
    return 2;
  }
  return tool_end(engines ? dump_engines(argv[2]) : dump_plan(argv[1]));
}
