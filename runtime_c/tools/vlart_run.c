/* vlart-run: loads a bundle, replays frames, proves that it gives the recorded outputs. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/diag.h"
#include "command_line.h"
#include "run.h"
#include "signed.h"
#include "watched_child.h"

enum {
  UNSAID = 1000000, /* of the option warm_up */
  READING_EVERY_MS = 500
};

static const char usage[] =
    "usage: vlart-run BUNDLE [options]\n"
    "\n"
    "Runs a compiled policy on this machine. A bundle carries golden frames: inputs\n"
    "and the outputs that the original policy gave for them. Start with\n"
    "\n"
    "  vlart-run my.vlab --self-test --ort LIB\n"
    "\n"
    "which exits with 0 only if every value is within its tolerance. LIB is ONNX\n"
    "Runtime's library; `pip install onnxruntime` brings it as\n"
    "site-packages/onnxruntime/capi/libonnxruntime.so.VERSION.\n"
    "\n"
    "  --ort LIB      path of ONNX Runtime's library\n"
    "                 (default: the loader's libonnxruntime.so.1)\n"
    "  --openvino LIB path of libopenvino_c.so, for stages of OpenVINO; `pip install\n"
    "                 openvino` brings it as site-packages/openvino/libs/\n"
    "                 libopenvino_c.so.VERSION (default: the loader's)\n"
    "  --openvino-device D\n"
    "                 what runs them: CPU (default), GPU or NPU\n"
    "  --tvm LIB      path of libtvm_runtime.so, for stages that TVM compiled\n"
    "  --tvm-ffi LIB  path of libtvm_ffi.so\n"
    "  --tvm-cuda LIB path of libtvm_runtime_cuda.so, for stages that TVM compiled for\n"
    "                 the GPU (default of the three: the loader's)\n"
    "  --signers FILE take only a bundle that one of these signed, TVM stages included\n"
    "                 (a list as ssh-keygen's ALLOWED SIGNERS)\n"
    "  --keep-engines with signers, take engines, which no signature binds: you know\n"
    "                 that vlart-build built them here\n"
    "  --native-code  load TVM stages, which are machine code, of a bundle that no\n"
    "                 signer vouches for\n"
    "  --tensorrt LIB path of libvlart_tensorrt.so, for stages on a Jetson's GPU, once\n"
    "                 vlart-build built their engines (default: the loader's)\n"
    "  --whole-tick   all that a tick runs is one launch, where engines can do that\n"
    "  --stand-in     run stages of TensorRT and OpenVINO with ONNX Runtime instead: shows\n"
    "                 that they compute the right thing, not how long these take\n"
    "  --threads N    threads of each engine (default: the engine's choice)\n"
    "  --parallel N   stages that may run at the same time, each in so many threads\n"
    "                 (default: one, or as the plan was timed)\n"
    "  --weight-cache DIR\n"
    "                 keep what ONNX Runtime packs of weights in this folder of your own\n"
    "                 (made if need be), and start from there next time; takes twice the\n"
    "                 weights on the disk; not with --signers\n"
    "  --self-test    compare with what the frames expect\n"
    "  --frames FILE  run these frames instead of the bundle's golden ones\n"
    "  --repeat N     replay the frames N times (default 1)\n"
    "  --warm-up N    before that, replay them N times without keeping the times\n"
    "                 (default 0; with --profile 2)\n"
    "  --profile FILE write all times there, with clocks, temperatures, power, throttling\n"
    "                 and memory before, during (between replans, every half second)\n"
    "                 and after, where the machine says so (with --repeat 50, unless\n"
    "                 given); `vlacompile report --profile FILE` draws it,\n"
    "                 `vlacompile profile --compare` compares two\n"
    "  --record FILE  record inputs, chunks, actions and times there, for `vlacompile\n"
    "                 replay` and `vlacompile export`; the file must not exist\n"
    "  --record-mib N size of that file, whose oldest part is overwritten (default 64)\n"
    "  --backbone B   of a bundle with several backbones the one to run (default: the\n"
    "                 first one; with --self-test all of them)\n"
    "  --sensors DIR  DIR has the machine's sys and proc, as a container may have its\n"
    "                 host's (default: /)\n"
    "  --cold         forget all results before every frame, so that every stage\n"
    "                 runs; without it a stage runs only if its inputs changed\n"
    "  --fresh        count what is observed as new in every frame, as on a robot: all\n"
    "                 runs but what depends on the instruction alone; no deadline\n"
    "  --seconds N    end the run if nothing was done for N seconds: opening, or one frame\n"
    "                 (default 300; 0: never)\n"
    "  --memory MIB   memory that the run may take besides the mapped files (default: 4096\n"
    "                 and three times what the bundle holds; 0: any)\n"
    "  --json         one JSON object instead of text\n"
    "\n"
    "Exit status: 0 done, 1 failed (four lines say what, where, why and how to fix\n"
    "it), 2 wrong usage.\n";

/* Returns the argument that is wrong, or NULL. */
static const char *read_options(int argc, char **argv, run_options_t *options) {
  const tool_option_t known[] = {
      {"--ort", .text = &options->ort},
      {"--openvino", .text = &options->openvino},
      {"--openvino-device", .text = &options->device},
      {"--tvm", .text = &options->tvm},
      {"--tvm-ffi", .text = &options->tvm_ffi},
      {"--tvm-cuda", .text = &options->tvm_cuda},
      {"--tensorrt", .text = &options->tensorrt},
      {"--signers", .text = &options->signers},
      {"--weight-cache", .text = &options->weight_cache},
      {"--frames", .text = &options->frames},
      {"--profile", .text = &options->profile},
      {"--record", .text = &options->record},
      {"--record-mib", .count = &options->record_mib, .least = 1, .most = 1 << 20},
      {"--backbone", .text = &options->backbone},
      {"--sensors", .text = &options->sensors},
      {"--warm-up", .count = &options->warm_up, .most = UNSAID - 1},
      {"--threads", .count = &options->threads, .most = 1000000000},
      {"--parallel", .count = &options->parallel, .most = 1000000000},
      {"--seconds", .count = &options->seconds, .most = 1000000000},
      {"--memory", .count = &options->memory_mib, .most = 1000000000},
      {"--repeat", .count = &options->repeat, .least = 1, .most = 1000000000},
      {"--self-test", .flag = &options->self_test},
      {"--whole-tick", .flag = &options->whole_tick},
      {"--stand-in", .flag = &options->stand_in},
      {"--keep-engines", .flag = &options->keep_engines},
      {"--native-code", .flag = &options->native_code},
      {"--cold", .flag = &options->cold},
      {"--fresh", .flag = &options->fresh},
      {"--json", .flag = &options->json},
  };
  const char *wrong =
      tool_read_options(argc, argv, known, sizeof known / sizeof known[0], &options->bundle);
  if (wrong != NULL) {
    return wrong;
  }
  options->repeat = options->repeat > 0 ? options->repeat : options->profile != NULL ? 50 : 1;
  if (options->warm_up == UNSAID) {
    options->warm_up = options->profile != NULL ? 2 : 0;
  }
  if (options->profile != NULL && options->self_test) {
    return "--profile with --self-test: comparing takes time";
  }
  if (options->weight_cache != NULL && options->signers != NULL) {
    return "--weight-cache with --signers: no signature binds the cache";
  }
  return NULL;
}

static vlart_status_t select_backbone(run_t *run, vlart_diag_t *diag) {
  uint32_t backbone = run->options->self_test ? VLART_BACKBONE_ALL : 0;
  if (run->options->backbone != NULL &&
      vlart_bundle_find_backbone(run->bundle, run->options->backbone, &backbone) !=
          VLART_STATUS_OK) {
    vlart_fail(diag, VLART_STATUS_NOT_FOUND, "the bundle has no such backbone",
               "vlart-dump prints its backbones");
    vlart_where(diag, "--backbone %s", run->options->backbone);
    vlart_why(diag, "it has %u", run->info.backbone_count);
    return VLART_STATUS_NOT_FOUND;
  }
  return vlart_session_select(run->session, backbone, diag);
}

static vlart_status_t open_session(run_t *run, vlart_diag_t *diag) {
  size_t bytes = 0;
  const char *signers = run->options->signers;
  vlart_status_t status =
      tool_open_bundle(run->options->bundle, signers, run->options->keep_engines,
                       &run->bundle_arena, &run->bundle, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  run->info.struct_size = sizeof run->info;
  vlart_bundle_info(run->bundle, &run->info);
  watched_limit_memory(run);
  status = run_load_frames(run, diag);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  vlart_session_options_t options = {.struct_size = sizeof options,
                                     .ort_library = run->options->ort,
                                     .threads = run->options->threads,
                                     .openvino_library = run->options->openvino,
                                     .openvino_device = run->options->device,
                                     .parallel = run->options->parallel,
                                     .tvm_ffi_library = run->options->tvm_ffi,
                                     .tvm_library = run->options->tvm,
                                     .tvm_cuda_library = run->options->tvm_cuda,
                                     .tensorrt_library = run->options->tensorrt,
                                     .whole_tick = run->options->whole_tick,
                                     .stand_in = run->options->stand_in,
                                     .native_code = run->options->native_code || signers != NULL};
  run->weight_cache = (vlart_weight_cache_t){.struct_size = sizeof run->weight_cache,
                                             .folder = run->options->weight_cache};
  options.weight_cache = run->weight_cache.folder != NULL ? &run->weight_cache : NULL;
  status = vlart_session_required_bytes(run->bundle, &options, diag, &bytes);
  if (status != VLART_STATUS_OK) {
    return status;
  }
  run->session_arena = tool_allocate(bytes, 1);
  status =
      vlart_session_init(run->bundle, &options, run->session_arena, bytes, diag, &run->session);
  vlart_sensor_options_t recorded = {.struct_size = sizeof recorded,
                                     .accept = VLART_ACCEPT_RECORDED};
  if (status == VLART_STATUS_OK) {
    status = vlart_session_sensors(run->session, &recorded, diag);
  }
  if (status == VLART_STATUS_OK) {
    status = run_begin_recording(run, diag);
  }
  return status == VLART_STATUS_OK ? select_backbone(run, diag) : status;
}

static void release(run_t *run) {
  vlart_session_close(run->session);
  vlart_recorder_close(run->recorder);
  vlart_bundle_close(run->bundle);
  for (uint32_t i = 0; run->stages != NULL && i < run->info.stage_count; i++) {
    free(run->stages[i].ms);
  }
  free(run->writes.ms);
  free(run->steps.ms);
  free(run->pops.ms);
  free(run->same.ms);
  free(run->other.ms);
  free(run->stages);
  free(run->verdicts);
  free(run->actions);
  free(run->action_counts);
  free(run->frames_data);
  free(run->during);
  free(run->session_arena);
  free(run->recorder_arena);
  free(run->bundle_arena);
}

static void advance(run_t *run) {
  atomic_fetch_add_explicit(&run->progress->parts, 1, memory_order_relaxed);
}

static int work(void *user, run_progress_t *progress) {
  const run_options_t *options = user;
  run_t run = {.options = options, .progress = progress, .advanced = advance};
  vlart_diag_t diag = {.struct_size = sizeof diag};
  vlart_status_t status = open_session(&run, &diag);
  if (status == VLART_STATUS_OK) {
    advance(&run);
    if (options->profile != NULL) {
      run_read_sensors(options->sensors, run.before, sizeof run.before);
      run.during = tool_allocate(RUN_READINGS, sizeof *run.during);
      run.between = run_read_during;
      run.reading_every_ms = READING_EVERY_MS;
    }
    status = run_replay(&run, &diag);
    if (status == VLART_STATUS_OK) {
      status = run_end_recording(&run, &diag);
    }
    if (options->profile != NULL) {
      run_read_sensors(options->sensors, run.after, sizeof run.after);
    }
  }
  if (status == VLART_STATUS_OK && options->profile != NULL) {
    status = run_write_profile(&run, &diag);
  }
  if (options->json) {
    run_print_json(&run, status, &diag);
  } else if (status == VLART_STATUS_OK || status == VLART_STATUS_SELF_TEST_FAILED) {
    run_print_text(&run);
  }
  if (status == VLART_STATUS_OK && options->self_test && !options->json) {
    printf("self-test passed: %u values in %u frames\n", run.verdict_count, run.frames.frame_count);
  }
  int ended = tool_end(status == VLART_STATUS_OK ? 0 : 1);
  if (status != VLART_STATUS_OK && !options->json) {
    tool_print_failure(status, &diag);
  }
  release(&run);
  return ended;
}

int main(int argc, char **argv) {
  run_options_t options = {
      .warm_up = UNSAID, .sensors = "", .seconds = WATCHED_SECONDS, .memory_mib = RUN_UNSAID};
  tool_begin();
  if (tool_wants_help(argc, argv)) {
    fputs(usage, stdout);
    return tool_end(0);
  }
  const char *wrong = read_options(argc, argv, &options);
  if (wrong != NULL) {
    return tool_wrong_usage("vlart-run", wrong, usage);
  }
  vlart_diag_t diag = {.struct_size = sizeof diag};
  watched_end_t end = watched_run(work, &options, options.seconds);
  tool_end_as_child(end.status);
  if (watched_ended(&end, "the run", options.bundle, options.seconds, &diag)) {
    return WEXITSTATUS(end.status);
  }
  if (options.json) {
    run_t nothing = {.options = &options};
    run_print_json(&nothing, diag.status, &diag);
    return tool_end(1);
  }
  return tool_print_failure(diag.status, &diag);
}
