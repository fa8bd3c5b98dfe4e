/* vlart-build: turns the TensorRT stages of a bundle into engines, on the board that will run them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/diag.h"
#include "build.h"
#include "command_line.h"
#include "run.h"
#include "signed.h"
#include "tensorrt/trt_engine.h"
#include "watched_child.h"

static const char usage[] =
    "usage: vlart-build BUNDLE [options]\n"
    "\n"
    "Builds the TensorRT engines of a bundle on this board, proves them with the\n"
    "bundle's golden frames, measures them, and records all of it in\n"
    "BUNDLE/engines/lock.bin. Engines run only where they were built: on another\n"
    "board, or after an update of JetPack, run this again.\n"
    "\n"
    "  vlart-build my.vlab --tensorrt DIR/libvlart_tensorrt.so \\\n"
    "    --tensorrt-builder DIR/libvlart_tensorrt_builder.so\n"
    "\n"
    "Both libraries come from `make -C runtime_c tensorrt`. One engine is built at\n"
    "a time, in a process of its own; a build that was cut goes on where it was.\n"
    "\n"
    "  --tensorrt LIB          path of libvlart_tensorrt.so\n"
    "  --tensorrt-builder LIB  path of libvlart_tensorrt_builder.so\n"
    "                          (default of both: the loader's)\n"
    "  --ort LIB               ONNX Runtime's library, for stages that stay on the\n"
    "                          CPU (default: the loader's)\n"
    "  --tvm LIB               libtvm_runtime.so, for stages that TVM compiled, with\n"
    "  --tvm-ffi LIB           libtvm_ffi.so and, if they are for the GPU,\n"
    "  --tvm-cuda LIB          libtvm_runtime_cuda.so (default: the loader's)\n"
    "  --native-code           load stages that TVM compiled, which are machine code,\n"
    "                          of a bundle that no signer vouches for\n"
    "  --signers FILE          take only a bundle that one of these signed (a list\n"
    "                          as ssh-keygen's ALLOWED SIGNERS; default: what\n"
    "                          `vlacompile device enroll` put here, if anything).\n"
    "                          No signature binds engines: all are built anew\n"
    "  --keep-engines          with signers, keep engines that are up to date: you\n"
    "                          know that they were built here\n"
    "  --repeat N              timed replays of the golden frames (default 20)\n"
    "  --seconds N             end the proof if nothing was done for N seconds:\n"
    "                          opening, or one frame (default 300; 0: any)\n"
    "  --memory MIB            memory that the proof may take besides mapped files\n"
    "                          (default: 4096 and three times the bundle; 0: any)\n"
    "  --rebuild               build all engines, also those that are up to date\n"
    "\n"
    "Exit status: 0 engines proved, 1 failed (four lines say what, where, why and\n"
    "how to fix it), 2 wrong usage.\n";

/* Returns the argument that is wrong, or NULL. */
static const char *read_options(int argc, char **argv, build_options_t *options) {
  const tool_option_t known[] = {
      {"--tensorrt", .text = &options->runtime},
      {"--tensorrt-builder", .text = &options->builder},
      {"--ort", .text = &options->ort},
      {"--tvm", .text = &options->tvm},
      {"--tvm-ffi", .text = &options->tvm_ffi},
      {"--tvm-cuda", .text = &options->tvm_cuda},
      {"--signers", .text = &options->signers},
      {"--repeat", .count = &options->repeat, .most = 1000000},
      {"--seconds", .count = &options->seconds, .most = 1000000000},
      {"--memory", .count = &options->memory_mib, .most = 1000000000},
      {"--rebuild", .flag = &options->rebuild},
      {"--keep-engines", .flag = &options->keep_engines},
      {"--native-code", .flag = &options->native_code},
  };
  return tool_read_options(argc, argv, known, sizeof known / sizeof known[0], &options->bundle);
}

static void print_engine(const build_t *build, uint32_t index, const char *how) {
  const build_engine_t *engine = &build->engines[index];
  printf("%s%-30.30s %3u/%-3u %-6s %8.1f MB %7.1f s %8.0f MB\n", isatty(STDOUT_FILENO) ? "\r" : "",
         engine->name, index + 1, build->count, how, (double)engine->bytes * 1e-6, engine->build_s,
         (double)engine->peak_bytes * 1e-6);
  fflush(stdout);
}

/* A size far from the plan's is the only sign of layers that fell back to f32 weights. */
static vlart_status_t check_sizes(const build_engine_t *engine, vlart_diag_t *diag) {
  const build_recipe_t *recipe = &engine->recipe;
  bool small = engine->bytes < recipe->bytes_min;
  bool large = engine->bytes > recipe->bytes_max;
  bool hungry = engine->scratch_bytes > recipe->scratch_max;
  if (!small && !large && !hungry) {
    return VLART_STATUS_OK;
  }
  vlart_fail(diag, VLART_STATUS_BACKEND_FAILED, "an engine is not the one that was planned",
             "look for layers without their planned precision in the .layers.json beside it, and "
             "report it with `vlacompile check --tensorrt`");
  vlart_where(diag, "stage \"%s\", %s", engine->name, engine->file);
  if (hungry) {
    vlart_why(diag, "it needs %llu bytes for activations, at most %llu were planned",
              (unsigned long long)engine->scratch_bytes, (unsigned long long)recipe->scratch_max);
  } else {
    vlart_why(diag, "it has %llu bytes, planned were %llu to %llu; %s",
              (unsigned long long)engine->bytes, (unsigned long long)recipe->bytes_min,
              (unsigned long long)recipe->bytes_max,
              large ? "weights fell back to a wider type" : "weights are missing");
  }
  return VLART_STATUS_BACKEND_FAILED;
}

static vlart_status_t build_engine(build_t *build, uint32_t index, vlart_diag_t *diag) {
  build_engine_t *engine = &build->engines[index];
  vlart_status_t status = build_one(build, engine, diag);
  if (status == VLART_STATUS_OK) status = build_inspect(build, engine, diag);
  bool hashed = status == VLART_STATUS_OK && build_hash(build, engine->file, ".tmp", &engine->bytes,
                                                        &engine->crc32, engine->sha256);
  if (hashed) status = check_sizes(engine, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  if (!hashed || !build_publish(build->bundle->dir, engine->file)) {
    vlart_fail(diag, VLART_STATUS_IO, "an engine cannot be written",
               "check the free space and the rights of the directory engines");
    vlart_where(diag, "%s/%s", build->bundle->dir, engine->file);
    vlart_why(diag, "reading it back or renaming it failed");
    return VLART_STATUS_IO;
  }
  engine->done = true;
  print_engine(build, index, "built");
  return build_write_lock(build, diag);
}

/* A timing cache that came with a bundle decides which kernels an engine has: it is not read. */
static void forget_timings(build_t *build) {
  char path[VLART_TRT_PATH_BYTES];
  snprintf(path, sizeof path, "%s/%s", build->options->bundle, build->timing_cache);
  if (build->timing_cache[0] != '\0' && unlink(path) != 0 && errno != ENOENT) {
    build->timing_cache[0] = '\0';
  }
}

static vlart_status_t build_all(build_t *build, vlart_diag_t *diag) {
  bool foreign = build->options->signers != NULL && !build->options->keep_engines;
  if (!build->options->rebuild && !foreign) {
    build_resume(build);
  }
  if (foreign) {
    forget_timings(build);
  }
  printf("%-30s %7s %-6s %11s %9s %11s\n", "stage", "", "", "engine", "build", "peak memory");
  vlart_status_t status = build_write_lock(build, diag);
  for (uint32_t i = 0; status == VLART_STATUS_OK && i < build->count; i++) {
    if (build->engines[i].done) {
      print_engine(build, i, "kept");
    } else {
      status = build_engine(build, i, diag);
    }
  }
  return status;
}

static vlart_status_t prove(build_t *build, vlart_diag_t *diag) {
  vlart_status_t status = build_prove(build, diag);
  vlart_diag_t unused = {.struct_size = sizeof unused};
  vlart_status_t written = build_write_lock(build, status == VLART_STATUS_OK ? diag : &unused);
  return status != VLART_STATUS_OK ? status : written;
}

static void print_times(const build_t *build) {
  printf("\n%-32s %8s %12s %12s\n", "stage", "runs", "median ms", "p95 ms");
  for (uint32_t i = 0; i < build->count; i++) {
    const build_engine_t *engine = &build->engines[i];
    if (engine->runs > 0) {
      printf("%-32.32s %8zu %12.3f %12.3f\n", engine->name, engine->runs, engine->median_ms,
             engine->p95_ms);
    }
  }
  printf("golden frames: %s; a whole tick as one launch: %s; see %s\n",
         vlart_proof_name(build->golden), vlart_proof_name(build->whole_tick), VLART_TRT_LOCK_FILE);
}

/* What a library and the system say of themselves may be anything. */
static void print_board(const build_t *build) {
  char gpu[13], tensorrt[13], cuda[7], jetpack[9];
  vlart_show(gpu, sizeof gpu, build->facts.gpu);
  vlart_show(tensorrt, sizeof tensorrt, build->facts.tensorrt);
  vlart_show(cuda, sizeof cuda, build->facts.cuda);
  vlart_show(jetpack, sizeof jetpack, build->system.jetpack);
  printf("%.20s on %s: TensorRT %s, CUDA %s, JetPack %s\n",
         vlart_plan_string(&build->bundle->plan, build->bundle->plan.policy->name), gpu, tensorrt,
         cuda, jetpack);
}

static vlart_status_t work(build_t *build, vlart_diag_t *diag) {
  vlart_status_t status = tool_open_bundle(build->options->bundle, build->options->signers, true,
                                           &build->bundle_arena, &build->bundle, diag);
  if (status == VLART_STATUS_OK) status = build_read_plan(build, diag);
  if (status == VLART_STATUS_OK) status = build_probe(build, diag);
  if (status == VLART_STATUS_OK) {
    print_board(build);
    status = vlart_trt_check_board(build->bundle, &build->facts, &build->system, diag);
  }
  if (status == VLART_STATUS_OK) status = build_all(build, diag);
  if (status == VLART_STATUS_OK) status = prove(build, diag);
  return status;
}

int main(int argc, char **argv) {
  build_options_t options = {.runtime = "libvlart_tensorrt.so",
                             .builder = "libvlart_tensorrt_builder.so",
                             .repeat = 20,
                             .seconds = WATCHED_SECONDS,
                             .memory_mib = RUN_UNSAID};
  tool_begin();
  if (tool_wants_help(argc, argv)) {
    fputs(usage, stdout);
    return tool_end(0);
  }
  const char *wrong = read_options(argc, argv, &options);
  if (wrong != NULL) {
    return tool_wrong_usage("vlart-build", wrong, usage);
  }
  options.signers = options.signers != NULL ? options.signers : tool_enrolled();
  build_t build = {.options = &options,
                   .golden = VLART_PROOF_PENDING,
                   .whole_tick = VLART_PROOF_PENDING,
                   .exclusive = -1};
  vlart_diag_t diag = {.struct_size = sizeof diag};
  vlart_status_t status = work(&build, &diag);
  if (status == VLART_STATUS_OK) {
    print_times(&build);
  }
  int ended = tool_end(status == VLART_STATUS_OK ? 0 : 1);
  if (status != VLART_STATUS_OK) {
    tool_print_failure(status, &diag);
  }
  vlart_bundle_close(build.bundle);
  free(build.engines);
  free(build.bundle_arena);
  if (build.exclusive >= 0) {
    close(build.exclusive);
  }
  return ended;
}
