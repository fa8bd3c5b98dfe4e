/* Generated from vlart/bundle/format by `python -m vlart.bundle.format.generate`. */
#include "container/record_fields.h"

#include <stddef.h>

static const vlart_member_t dtype_members[] = {
  {VLART_DTYPE_F32, "f32"},
  {VLART_DTYPE_U8, "u8"},
  {VLART_DTYPE_I8, "i8"},
  {VLART_DTYPE_I32, "i32"},
  {VLART_DTYPE_I64, "i64"},
  {VLART_DTYPE_BOOL, "bool"},
  {VLART_DTYPE_F16, "f16"},
  {VLART_DTYPE_F64, "f64"},
  {VLART_DTYPE_BF16, "bf16"},
};
static const vlart_enum_t dtype_enum = {dtype_members, 9};
static const vlart_member_t update_members[] = {
  {VLART_UPDATE_STATIC, "static"},
  {VLART_UPDATE_TASK, "task"},
  {VLART_UPDATE_OBSERVATION, "observation"},
  {VLART_UPDATE_STEP, "step"},
  {VLART_UPDATE_TICK, "tick"},
};
static const vlart_enum_t update_enum = {update_members, 5};
static const vlart_member_t backend_members[] = {
  {VLART_BACKEND_ONNXRUNTIME, "onnxruntime"},
  {VLART_BACKEND_TENSORRT, "tensorrt"},
  {VLART_BACKEND_TVM, "tvm"},
  {VLART_BACKEND_LIBRARY, "library"},
  {VLART_BACKEND_TVM_CUDA, "tvm_cuda"},
  {VLART_BACKEND_OPENVINO, "openvino"},
};
static const vlart_enum_t backend_enum = {backend_members, 6};
static const vlart_member_t storage_members[] = {
  {VLART_STORAGE_ARENA, "arena"},
  {VLART_STORAGE_WEIGHT, "weight"},
};
static const vlart_enum_t storage_enum = {storage_members, 2};
static const vlart_member_t binding_mode_members[] = {
  {VLART_BINDING_MODE_WHOLE, "whole"},
  {VLART_BINDING_MODE_ROW, "row"},
  {VLART_BINDING_MODE_CARRY, "carry"},
};
static const vlart_enum_t binding_mode_enum = {binding_mode_members, 3};
static const vlart_member_t lifetime_members[] = {
  {VLART_LIFETIME_EPISODE, "episode"},
  {VLART_LIFETIME_TASK, "task"},
};
static const vlart_enum_t lifetime_enum = {lifetime_members, 2};
static const vlart_member_t loop_form_members[] = {
  {VLART_LOOP_FORM_STEPS, "steps"},
  {VLART_LOOP_FORM_FUSED, "fused"},
};
static const vlart_enum_t loop_form_enum = {loop_form_members, 2};
static const vlart_member_t scheme_members[] = {
  {VLART_SCHEME_FP32, "fp32"},
  {VLART_SCHEME_FP16, "fp16"},
  {VLART_SCHEME_INT8, "int8"},
  {VLART_SCHEME_INT4, "int4"},
};
static const vlart_enum_t scheme_enum = {scheme_members, 4};
static const vlart_member_t decider_members[] = {
  {VLART_DECIDER_DEFAULT, "default"},
  {VLART_DECIDER_RULE, "rule"},
  {VLART_DECIDER_OPTIMISER, "optimiser"},
};
static const vlart_enum_t decider_enum = {decider_members, 3};
static const vlart_member_t build_flag_members[] = {
  {VLART_BUILD_FLAG_STRONGLY_TYPED, "strongly_typed"},
  {VLART_BUILD_FLAG_NO_TF32, "no_tf32"},
};
static const vlart_enum_t build_flag_enum = {build_flag_members, 2};
static const vlart_member_t file_kind_members[] = {
  {VLART_FILE_KIND_STAGE, "stage"},
  {VLART_FILE_KIND_WEIGHTS, "weights"},
  {VLART_FILE_KIND_GOLDEN, "golden"},
  {VLART_FILE_KIND_TOKENIZER, "tokenizer"},
};
static const vlart_enum_t file_kind_enum = {file_kind_members, 4};
static const vlart_member_t decode_kind_members[] = {
  {VLART_DECODE_KIND_LOOKUP, "lookup"},
  {VLART_DECODE_KIND_PIECES, "pieces"},
  {VLART_DECODE_KIND_BASIS, "basis"},
  {VLART_DECODE_KIND_AFFINE, "affine"},
  {VLART_DECODE_KIND_DELTA, "delta"},
};
static const vlart_enum_t decode_kind_enum = {decode_kind_members, 5};
static const vlart_member_t outside_members[] = {
  {VLART_OUTSIDE_CLIP, "clip"},
  {VLART_OUTSIDE_ZERO, "zero"},
  {VLART_OUTSIDE_REFUSE, "refuse"},
  {VLART_OUTSIDE_SKIP, "skip"},
};
static const vlart_enum_t outside_enum = {outside_members, 4};
static const vlart_member_t symbols_members[] = {
  {VLART_SYMBOLS_INTEGERS, "integers"},
  {VLART_SYMBOLS_UTF8, "utf8"},
};
static const vlart_enum_t symbols_enum = {symbols_members, 2};
static const vlart_member_t length_members[] = {
  {VLART_LENGTH_EXACT, "exact"},
  {VLART_LENGTH_FIT, "fit"},
};
static const vlart_enum_t length_enum = {length_members, 2};
static const vlart_member_t consume_members[] = {
  {VLART_CONSUME_QUEUE, "queue"},
  {VLART_CONSUME_ENSEMBLE, "ensemble"},
  {VLART_CONSUME_REALTIME, "realtime"},
};
static const vlart_enum_t consume_enum = {consume_members, 3};
static const vlart_member_t schedule_members[] = {
  {VLART_SCHEDULE_ZEROS, "zeros"},
  {VLART_SCHEDULE_ONES, "ones"},
  {VLART_SCHEDULE_LINEAR, "linear"},
  {VLART_SCHEDULE_EXP, "exp"},
};
static const vlart_enum_t schedule_enum = {schedule_members, 4};
static const vlart_member_t token_model_members[] = {
  {VLART_TOKEN_MODEL_WORDPIECE, "wordpiece"},
  {VLART_TOKEN_MODEL_BPE, "bpe"},
};
static const vlart_enum_t token_model_enum = {token_model_members, 2};
static const vlart_member_t text_step_members[] = {
  {VLART_TEXT_STEP_MAP, "map"},
  {VLART_TEXT_STEP_ORDER, "order"},
  {VLART_TEXT_STEP_COMPOSE, "compose"},
  {VLART_TEXT_STEP_REPLACE, "replace"},
  {VLART_TEXT_STEP_PREPEND, "prepend"},
  {VLART_TEXT_STEP_CUT, "cut"},
  {VLART_TEXT_STEP_CUT_BERT, "cut_bert"},
  {VLART_TEXT_STEP_CUT_DIGITS, "cut_digits"},
  {VLART_TEXT_STEP_CUT_WORDS, "cut_words"},
};
static const vlart_enum_t text_step_enum = {text_step_members, 9};
static const vlart_member_t text_side_members[] = {
  {VLART_TEXT_SIDE_RIGHT, "right"},
  {VLART_TEXT_SIDE_LEFT, "left"},
};
static const vlart_enum_t text_side_enum = {text_side_members, 2};
static const vlart_member_t guard_rule_members[] = {
  {VLART_GUARD_RULE_COUNT, "count"},
  {VLART_GUARD_RULE_REFUSE, "refuse"},
};
static const vlart_enum_t guard_rule_enum = {guard_rule_members, 2};
static const vlart_member_t proof_members[] = {
  {VLART_PROOF_NONE, "none"},
  {VLART_PROOF_PENDING, "pending"},
  {VLART_PROOF_PASSED, "passed"},
  {VLART_PROOF_FAILED, "failed"},
  {VLART_PROOF_UNSUPPORTED, "unsupported"},
};
static const vlart_enum_t proof_enum = {proof_members, 5};
static const vlart_member_t rate_rule_members[] = {
  {VLART_RATE_RULE_CLIP, "clip"},
  {VLART_RATE_RULE_REFUSE, "refuse"},
};
static const vlart_enum_t rate_rule_enum = {rate_rule_members, 2};

static const vlart_field_t policy_fields[] = {
  {.name = "name", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_policy_record_t, name)},
  {.name = "target", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_policy_record_t, target)},
  {.name = "recipe", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_policy_record_t, recipe)},
  {.name = "action_value", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_policy_record_t, action_value), .optional = true, .section = VLART_SECTION_VALUES},
  {.name = "chunk_steps", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_policy_record_t, chunk_steps)},
  {.name = "execute_steps", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_policy_record_t, execute_steps)},
  {.name = "action_dim", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_policy_record_t, action_dim)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_policy_record_t, reserved)},
  {.name = "low", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_policy_record_t, low_begin), .section = VLART_SECTION_FLOATS},
  {.name = "high", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_policy_record_t, high_begin), .section = VLART_SECTION_FLOATS},
  {.name = "deadline_us", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_policy_record_t, deadline_us)},
  {.name = "arena_bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_policy_record_t, arena_bytes)},
};

static const vlart_field_t files_fields[] = {
  {.name = "path", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_file_record_t, path)},
  {.name = "kind", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_file_record_t, kind), .of = &file_kind_enum},
  {.name = "crc32", .kind = VLART_KIND_CHECKSUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_file_record_t, crc32)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_file_record_t, reserved)},
  {.name = "bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_file_record_t, bytes)},
};

static const vlart_field_t values_fields[] = {
  {.name = "name", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_value_record_t, name)},
  {.name = "dtype", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_value_record_t, dtype), .of = &dtype_enum},
  {.name = "rank", .kind = VLART_KIND_RANK, .type = VLART_TYPE_U32, .offset = offsetof(vlart_value_record_t, rank)},
  {.name = "storage", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_value_record_t, storage), .of = &storage_enum},
  {.name = "dims", .kind = VLART_KIND_DIMS, .type = VLART_TYPE_U64, .offset = offsetof(vlart_value_record_t, dims)},
  {.name = "bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_value_record_t, bytes)},
  {.name = "offset", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_value_record_t, offset)},
  {.name = "weight", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_value_record_t, weight), .optional = true, .section = VLART_SECTION_WEIGHTS},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_value_record_t, reserved)},
};

static const vlart_field_t sources_fields[] = {
  {.name = "value", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_source_record_t, value), .section = VLART_SECTION_VALUES},
  {.name = "update", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_source_record_t, update), .of = &update_enum},
  {.name = "clock_hz", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F32, .offset = offsetof(vlart_source_record_t, clock_hz)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_source_record_t, reserved)},
};

static const vlart_field_t weights_fields[] = {
  {.name = "name", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_weight_record_t, name)},
  {.name = "file", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_weight_record_t, file), .optional = true, .section = VLART_SECTION_FILES},
  {.name = "dtype", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_weight_record_t, dtype), .of = &dtype_enum},
  {.name = "rank", .kind = VLART_KIND_RANK, .type = VLART_TYPE_U32, .offset = offsetof(vlart_weight_record_t, rank)},
  {.name = "dims", .kind = VLART_KIND_DIMS, .type = VLART_TYPE_U64, .offset = offsetof(vlart_weight_record_t, dims)},
  {.name = "offset", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_weight_record_t, offset)},
  {.name = "bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_weight_record_t, bytes)},
};

static const vlart_field_t stages_fields[] = {
  {.name = "name", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_stage_record_t, name)},
  {.name = "backend", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_stage_record_t, backend), .of = &backend_enum, .later = true},
  {.name = "artefact", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_stage_record_t, artefact), .optional = true, .section = VLART_SECTION_FILES},
  {.name = "iterations", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_stage_record_t, iterations)},
  {.name = "dep", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_stage_record_t, dep_begin), .section = VLART_SECTION_INDICES, .items = VLART_SECTION_SOURCES},
  {.name = "input", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_stage_record_t, input_begin), .section = VLART_SECTION_BINDINGS},
  {.name = "output", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_stage_record_t, output_begin), .section = VLART_SECTION_BINDINGS},
  {.name = "initializer", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_stage_record_t, initializer_begin), .section = VLART_SECTION_INITIALIZERS},
  {.name = "carry", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_stage_record_t, carry_begin), .section = VLART_SECTION_CARRIES},
  {.name = "flops", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_stage_record_t, flops)},
  {.name = "weight_bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_stage_record_t, weight_bytes)},
};

static const vlart_field_t bindings_fields[] = {
  {.name = "port", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_binding_record_t, port)},
  {.name = "value", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_binding_record_t, value), .section = VLART_SECTION_VALUES},
  {.name = "mode", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_binding_record_t, mode), .of = &binding_mode_enum},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_binding_record_t, reserved)},
};

static const vlart_field_t initializers_fields[] = {
  {.name = "port", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_initializer_record_t, port)},
  {.name = "weight", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_initializer_record_t, weight), .section = VLART_SECTION_WEIGHTS},
};

static const vlart_field_t carries_fields[] = {
  {.name = "initial", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_carry_record_t, initial), .section = VLART_SECTION_VALUES},
  {.name = "result", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_carry_record_t, result), .section = VLART_SECTION_VALUES},
  {.name = "scratch", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_carry_record_t, scratch), .section = VLART_SECTION_VALUES},
  {.name = "input", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_carry_record_t, input), .section = VLART_SECTION_BINDINGS, .within = "input"},
  {.name = "output", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_carry_record_t, output), .section = VLART_SECTION_BINDINGS, .within = "output"},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_carry_record_t, reserved)},
};

static const vlart_field_t delays_fields[] = {
  {.name = "input", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_delay_record_t, input), .section = VLART_SECTION_VALUES},
  {.name = "output", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_delay_record_t, output), .section = VLART_SECTION_VALUES},
};

static const vlart_field_t histories_fields[] = {
  {.name = "source", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_history_record_t, source), .section = VLART_SECTION_SOURCES},
  {.name = "frames", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_history_record_t, frames)},
};

static const vlart_field_t lanes_fields[] = {
  {.name = "name", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lane_record_t, name)},
  {.name = "clock_hz", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F32, .offset = offsetof(vlart_lane_record_t, clock_hz)},
  {.name = "max_age_ms", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lane_record_t, max_age_ms)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lane_record_t, reserved)},
  {.name = "index", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lane_record_t, index_begin), .section = VLART_SECTION_INDICES, .items = VLART_SECTION_SOURCES},
};

static const vlart_field_t samplings_fields[] = {
  {.name = "stage", .kind = VLART_KIND_OWNER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_sampling_record_t, stage), .section = VLART_SECTION_STAGES},
  {.name = "form", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_sampling_record_t, form), .of = &loop_form_enum},
  {.name = "iterations", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_sampling_record_t, iterations)},
  {.name = "written", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_sampling_record_t, written)},
  {.name = "solver", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_sampling_record_t, solver)},
  {.name = "error", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F32, .offset = offsetof(vlart_sampling_record_t, error)},
  {.name = "budget", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F32, .offset = offsetof(vlart_sampling_record_t, budget)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_sampling_record_t, reserved)},
};

static const vlart_field_t precisions_fields[] = {
  {.name = "stage", .kind = VLART_KIND_OWNER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_precision_record_t, stage), .section = VLART_SECTION_STAGES},
  {.name = "group", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_precision_record_t, group)},
  {.name = "scheme", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_precision_record_t, scheme), .of = &scheme_enum},
  {.name = "decider", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_precision_record_t, decider), .of = &decider_enum},
  {.name = "layers", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_precision_record_t, layers)},
  {.name = "error", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F32, .offset = offsetof(vlart_precision_record_t, error)},
  {.name = "time_us", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F32, .offset = offsetof(vlart_precision_record_t, time_us)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_precision_record_t, reserved)},
  {.name = "bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_precision_record_t, bytes)},
};

static const vlart_field_t builds_fields[] = {
  {.name = "stage", .kind = VLART_KIND_OWNER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_build_record_t, stage), .section = VLART_SECTION_STAGES},
  {.name = "flags", .kind = VLART_KIND_BITS, .type = VLART_TYPE_U32, .offset = offsetof(vlart_build_record_t, flags), .of = &build_flag_enum},
  {.name = "level", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_build_record_t, level)},
  {.name = "aux_streams", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_build_record_t, aux_streams)},
  {.name = "int8_gemms", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_build_record_t, int8_gemms)},
  {.name = "int4_dequants", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_build_record_t, int4_dequants)},
  {.name = "attentions", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_build_record_t, attentions)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_build_record_t, reserved)},
  {.name = "workspace_bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_build_record_t, workspace_bytes)},
  {.name = "weight_bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_build_record_t, weight_bytes)},
  {.name = "engine_bytes_min", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_build_record_t, engine_bytes_min)},
  {.name = "engine_bytes_max", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_build_record_t, engine_bytes_max)},
  {.name = "activation_bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_build_record_t, activation_bytes)},
};

static const vlart_field_t board_fields[] = {
  {.name = "name", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_board_record_t, name)},
  {.name = "compute_capability", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_board_record_t, compute_capability)},
  {.name = "jetpack", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_board_record_t, jetpack)},
  {.name = "l4t", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_board_record_t, l4t)},
  {.name = "tensorrt", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_board_record_t, tensorrt)},
  {.name = "timing_cache", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_board_record_t, timing_cache)},
};

static const vlart_field_t frames_fields[] = {
  {.name = "label", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_frame_record_t, label)},
  {.name = "begins", .kind = VLART_KIND_FLAG, .type = VLART_TYPE_U32, .offset = offsetof(vlart_frame_record_t, begins)},
  {.name = "write", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_frame_record_t, write_begin), .section = VLART_SECTION_TENSORS},
  {.name = "expect", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_frame_record_t, expect_begin), .section = VLART_SECTION_TENSORS},
};

static const vlart_field_t tensors_fields[] = {
  {.name = "name", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tensor_record_t, name)},
  {.name = "dtype", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tensor_record_t, dtype), .of = &dtype_enum},
  {.name = "rank", .kind = VLART_KIND_RANK, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tensor_record_t, rank)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tensor_record_t, reserved)},
  {.name = "dims", .kind = VLART_KIND_DIMS, .type = VLART_TYPE_U64, .offset = offsetof(vlart_tensor_record_t, dims)},
  {.name = "offset", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_tensor_record_t, offset)},
  {.name = "bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_tensor_record_t, bytes)},
  {.name = "max_abs", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F32, .offset = offsetof(vlart_tensor_record_t, max_abs)},
  {.name = "rel_l2", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F32, .offset = offsetof(vlart_tensor_record_t, rel_l2)},
  {.name = "cosine", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F32, .offset = offsetof(vlart_tensor_record_t, cosine)},
  {.name = "reserved2", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_F32, .offset = offsetof(vlart_tensor_record_t, reserved2)},
};

static const vlart_field_t references_fields[] = {
  {.name = "frame", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_reference_record_t, frame), .section = VLART_SECTION_FRAMES},
  {.name = "tensor", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_reference_record_t, tensor), .section = VLART_SECTION_TENSORS},
};

static const vlart_field_t limits_fields[] = {
  {.name = "tensor", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_limit_record_t, tensor), .section = VLART_SECTION_TENSORS},
  {.name = "column", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_limit_record_t, column_begin), .section = VLART_SECTION_FLOATS},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_limit_record_t, reserved)},
};

static const vlart_field_t decodes_fields[] = {
  {.name = "kind", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_decode_record_t, kind), .of = &decode_kind_enum},
  {.name = "outside", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_decode_record_t, outside), .of = &outside_enum},
  {.name = "symbols", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_decode_record_t, symbols), .of = &symbols_enum},
  {.name = "length", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_decode_record_t, length), .of = &length_enum},
  {.name = "table", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_decode_record_t, table), .optional = true, .section = VLART_SECTION_WEIGHTS},
  {.name = "value", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_decode_record_t, value), .optional = true, .section = VLART_SECTION_VALUES},
  {.name = "float", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_decode_record_t, float_begin), .section = VLART_SECTION_FLOATS},
  {.name = "index", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_decode_record_t, index_begin), .section = VLART_SECTION_INDICES},
  {.name = "direction", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_I64, .offset = offsetof(vlart_decode_record_t, direction)},
  {.name = "offset", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_I64, .offset = offsetof(vlart_decode_record_t, offset)},
  {.name = "stop", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_I64, .offset = offsetof(vlart_decode_record_t, stop), .optional = true},
};

static const vlart_field_t consumption_fields[] = {
  {.name = "consume", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_consumption_record_t, consume), .of = &consume_enum},
  {.name = "decay", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F32, .offset = offsetof(vlart_consumption_record_t, decay)},
  {.name = "delay", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_consumption_record_t, delay)},
  {.name = "schedule", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_consumption_record_t, schedule), .of = &schedule_enum},
  {.name = "horizon", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_consumption_record_t, horizon)},
  {.name = "previous", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_consumption_record_t, previous), .optional = true, .section = VLART_SECTION_VALUES},
  {.name = "weights", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_consumption_record_t, weights), .optional = true, .section = VLART_SECTION_VALUES},
  {.name = "chunk", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_consumption_record_t, chunk), .optional = true, .section = VLART_SECTION_VALUES},
};

static const vlart_field_t router_fields[] = {
  {.name = "prior_success", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_router_record_t, prior_success)},
  {.name = "prior_failure", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_router_record_t, prior_failure)},
  {.name = "strength", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_router_record_t, strength)},
  {.name = "delta", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_router_record_t, delta)},
  {.name = "tau", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_router_record_t, tau)},
  {.name = "nearest_text", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_router_record_t, nearest_text)},
  {.name = "nearest_embedding", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_router_record_t, nearest_embedding)},
  {.name = "cluster_count", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_router_record_t, cluster_count)},
  {.name = "text_dim", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_router_record_t, text_dim)},
  {.name = "embedding_dim", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_router_record_t, embedding_dim)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_router_record_t, reserved)},
  {.name = "text_weight", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_router_record_t, text_weight_begin), .section = VLART_SECTION_FLOATS},
  {.name = "text_centroid", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_router_record_t, text_centroid_begin), .section = VLART_SECTION_FLOATS},
  {.name = "embedding_centroid", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_router_record_t, embedding_centroid_begin), .section = VLART_SECTION_FLOATS},
};

static const vlart_field_t backbones_fields[] = {
  {.name = "name", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_backbone_record_t, name)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_backbone_record_t, reserved)},
  {.name = "task_ms", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_backbone_record_t, task_ms)},
  {.name = "replan_ms", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_backbone_record_t, replan_ms)},
  {.name = "replans_failed", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_backbone_record_t, replans_failed)},
};

static const vlart_field_t routes_fields[] = {
  {.name = "text", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_route_record_t, text), .optional = true},
  {.name = "cluster", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_route_record_t, cluster)},
};

static const vlart_field_t evidence_fields[] = {
  {.name = "successes", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_evidence_record_t, successes)},
  {.name = "failures", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_evidence_record_t, failures)},
  {.name = "replans", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_evidence_record_t, replans)},
};

static const vlart_field_t tokenizer_fields[] = {
  {.name = "model", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, model), .of = &token_model_enum},
  {.name = "token_count", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, token_count)},
  {.name = "unknown", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, unknown)},
  {.name = "fuse_unknown", .kind = VLART_KIND_FLAG, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, fuse_unknown)},
  {.name = "longest_word", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, longest_word)},
  {.name = "normalise", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, normalise)},
  {.name = "transform", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, transform)},
  {.name = "split", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, split)},
  {.name = "prefix", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, prefix_begin), .section = VLART_SECTION_INDICES},
  {.name = "suffix", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, suffix_begin), .section = VLART_SECTION_INDICES},
  {.name = "byte", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, byte_begin), .section = VLART_SECTION_INDICES},
  {.name = "word", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, word_begin), .section = VLART_SECTION_ENTRY_IDS},
  {.name = "rest", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, rest_begin), .section = VLART_SECTION_ENTRY_IDS},
  {.name = "letter", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, letter_begin), .section = VLART_SECTION_ENTRY_IDS},
  {.name = "raw", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, raw_begin), .section = VLART_SECTION_ENTRY_IDS},
  {.name = "normalised", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, normalised_begin), .section = VLART_SECTION_ENTRY_IDS},
  {.name = "pad", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, pad)},
  {.name = "pad_side", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, pad_side), .of = &text_side_enum},
  {.name = "truncate", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, truncate), .optional = true, .of = &text_side_enum},
  {.name = "ending", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, ending)},
  {.name = "ending_bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, ending_bytes)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_tokenizer_record_t, reserved)},
};

static const vlart_field_t steps_fields[] = {
  {.name = "kind", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_step_record_t, kind), .of = &text_step_enum},
  {.name = "option", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_step_record_t, option)},
  {.name = "span", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_step_record_t, span_begin), .section = VLART_SECTION_SPANS},
  {.name = "find", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_step_record_t, find)},
  {.name = "find_bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_step_record_t, find_bytes)},
  {.name = "put", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_step_record_t, put)},
  {.name = "put_bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_step_record_t, put_bytes)},
};

static const vlart_field_t spans_fields[] = {
  {.name = "first", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_span_record_t, first)},
  {.name = "last", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_span_record_t, last)},
  {.name = "action", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_span_record_t, action)},
  {.name = "argument", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_span_record_t, argument)},
};

static const vlart_field_t added_fields[] = {
  {.name = "id", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_added_record_t, id)},
  {.name = "strip_left", .kind = VLART_KIND_FLAG, .type = VLART_TYPE_U32, .offset = offsetof(vlart_added_record_t, strip_left)},
  {.name = "strip_right", .kind = VLART_KIND_FLAG, .type = VLART_TYPE_U32, .offset = offsetof(vlart_added_record_t, strip_right)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_added_record_t, reserved)},
};

static const vlart_field_t compositions_fields[] = {
  {.name = "first", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_composition_record_t, first)},
  {.name = "second", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_composition_record_t, second)},
  {.name = "composed", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_composition_record_t, composed)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_composition_record_t, reserved)},
};

static const vlart_field_t texts_fields[] = {
  {.name = "tokenizer", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_text_record_t, tokenizer), .optional = true, .section = VLART_SECTION_FILES},
  {.name = "tokens", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_text_record_t, tokens), .section = VLART_SECTION_SOURCES},
  {.name = "mask", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_text_record_t, mask), .optional = true, .section = VLART_SECTION_SOURCES},
  {.name = "max_bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_text_record_t, max_bytes)},
};

static const vlart_field_t instructions_fields[] = {
  {.name = "text", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_instruction_record_t, text)},
  {.name = "source", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_instruction_record_t, source), .section = VLART_SECTION_SOURCES},
  {.name = "stored", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_instruction_record_t, stored_begin), .section = VLART_SECTION_STORED},
};

static const vlart_field_t stored_fields[] = {
  {.name = "value", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_stored_record_t, value), .section = VLART_SECTION_VALUES},
  {.name = "weight", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_stored_record_t, weight), .section = VLART_SECTION_WEIGHTS},
};

static const vlart_field_t rate_limits_fields[] = {
  {.name = "rule", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_rate_limit_record_t, rule), .of = &rate_rule_enum},
  {.name = "step", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_rate_limit_record_t, step_begin), .section = VLART_SECTION_FLOATS},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_rate_limit_record_t, reserved)},
};

static const vlart_field_t token_ranges_fields[] = {
  {.name = "source", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_token_range_record_t, source), .section = VLART_SECTION_SOURCES},
  {.name = "rows", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_token_range_record_t, rows)},
};

static const vlart_field_t loop_ends_fields[] = {
  {.name = "stage", .kind = VLART_KIND_OWNER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_loop_end_record_t, stage), .section = VLART_SECTION_STAGES},
  {.name = "condition", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_loop_end_record_t, condition), .section = VLART_SECTION_VALUES},
  {.name = "must_end", .kind = VLART_KIND_FLAG, .type = VLART_TYPE_U32, .offset = offsetof(vlart_loop_end_record_t, must_end)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_loop_end_record_t, reserved)},
};

static const vlart_field_t concurrency_fields[] = {
  {.name = "threads", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_concurrency_record_t, threads)},
  {.name = "parallel", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_concurrency_record_t, parallel)},
};

static const vlart_field_t carried_fields[] = {
  {.name = "value", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_carried_record_t, value), .section = VLART_SECTION_VALUES},
  {.name = "next", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_carried_record_t, next), .section = VLART_SECTION_VALUES},
  {.name = "initial", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_carried_record_t, initial), .optional = true, .section = VLART_SECTION_WEIGHTS},
  {.name = "until", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_carried_record_t, until), .of = &lifetime_enum},
};

static const vlart_field_t buckets_fields[] = {
  {.name = "mask", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_bucket_record_t, mask), .section = VLART_SECTION_SOURCES},
  {.name = "side", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_bucket_record_t, side), .of = &text_side_enum},
  {.name = "length", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_bucket_record_t, length)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_bucket_record_t, reserved)},
};

static const vlart_field_t guards_fields[] = {
  {.name = "source", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_guard_record_t, source), .section = VLART_SECTION_SOURCES},
  {.name = "outside", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_guard_record_t, outside), .of = &guard_rule_enum},
  {.name = "low", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_guard_record_t, low_begin), .section = VLART_SECTION_FLOATS},
  {.name = "high", .kind = VLART_KIND_SPAN, .type = VLART_TYPE_U32, .offset = offsetof(vlart_guard_record_t, high_begin), .section = VLART_SECTION_FLOATS},
  {.name = "not_finite", .kind = VLART_KIND_FLAG, .type = VLART_TYPE_U32, .offset = offsetof(vlart_guard_record_t, not_finite)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_guard_record_t, reserved)},
  {.name = "max_age_us", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_guard_record_t, max_age_us)},
};

static const vlart_field_t chunks_fields[] = {
  {.name = "backbone", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_chunk_record_t, backbone)},
  {.name = "value", .kind = VLART_KIND_INDEX, .type = VLART_TYPE_U32, .offset = offsetof(vlart_chunk_record_t, value), .section = VLART_SECTION_VALUES},
};

static const vlart_field_t lock_fields[] = {
  {.name = "memory_bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_lock_record_t, memory_bytes)},
  {.name = "plan_crc32", .kind = VLART_KIND_CHECKSUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, plan_crc32)},
  {.name = "golden", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, golden), .of = &proof_enum},
  {.name = "whole_tick", .kind = VLART_KIND_ENUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, whole_tick), .of = &proof_enum},
  {.name = "compute_capability", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, compute_capability)},
  {.name = "multiprocessors", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, multiprocessors)},
  {.name = "model", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, model)},
  {.name = "jetpack", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, jetpack)},
  {.name = "l4t", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, l4t)},
  {.name = "tensorrt", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, tensorrt)},
  {.name = "cuda", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, cuda)},
  {.name = "gpu", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, gpu)},
  {.name = "power_mode", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, power_mode)},
  {.name = "gpu_mhz", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, gpu_mhz)},
  {.name = "gpu_max_mhz", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, gpu_max_mhz)},
  {.name = "emc_mhz", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, emc_mhz)},
  {.name = "cpu_mhz", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, cpu_mhz)},
  {.name = "cpu_max_mhz", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, cpu_max_mhz)},
  {.name = "reserved", .kind = VLART_KIND_RESERVED, .type = VLART_TYPE_U32, .offset = offsetof(vlart_lock_record_t, reserved)},
};

static const vlart_field_t engines_fields[] = {
  {.name = "bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_engine_record_t, bytes)},
  {.name = "scratch_bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_engine_record_t, scratch_bytes)},
  {.name = "build_peak_bytes", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_engine_record_t, build_peak_bytes)},
  {.name = "build_s", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_engine_record_t, build_s)},
  {.name = "runs", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U64, .offset = offsetof(vlart_engine_record_t, runs)},
  {.name = "median_ms", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_engine_record_t, median_ms)},
  {.name = "p95_ms", .kind = VLART_KIND_FLOAT, .type = VLART_TYPE_F64, .offset = offsetof(vlart_engine_record_t, p95_ms)},
  {.name = "stage", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_engine_record_t, stage)},
  {.name = "file", .kind = VLART_KIND_STRING, .type = VLART_TYPE_U32, .offset = offsetof(vlart_engine_record_t, file)},
  {.name = "crc32", .kind = VLART_KIND_CHECKSUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_engine_record_t, crc32)},
  {.name = "stage_crc32", .kind = VLART_KIND_CHECKSUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_engine_record_t, stage_crc32)},
  {.name = "weights_crc32", .kind = VLART_KIND_CHECKSUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_engine_record_t, weights_crc32)},
  {.name = "recipe_crc32", .kind = VLART_KIND_CHECKSUM, .type = VLART_TYPE_U32, .offset = offsetof(vlart_engine_record_t, recipe_crc32)},
  {.name = "sha256", .kind = VLART_KIND_NUMBER, .type = VLART_TYPE_U32, .offset = offsetof(vlart_engine_record_t, sha256)},
};

const vlart_fields_t vlart_record_fields[VLART_SECTION_ID_LIMIT] = {
  [VLART_SECTION_POLICY] = {"policy", policy_fields, sizeof policy_fields / sizeof policy_fields[0]},
  [VLART_SECTION_FILES] = {"files", files_fields, sizeof files_fields / sizeof files_fields[0]},
  [VLART_SECTION_VALUES] = {"values", values_fields, sizeof values_fields / sizeof values_fields[0]},
  [VLART_SECTION_SOURCES] = {"sources", sources_fields, sizeof sources_fields / sizeof sources_fields[0]},
  [VLART_SECTION_WEIGHTS] = {"weights", weights_fields, sizeof weights_fields / sizeof weights_fields[0]},
  [VLART_SECTION_STAGES] = {"stages", stages_fields, sizeof stages_fields / sizeof stages_fields[0]},
  [VLART_SECTION_BINDINGS] = {"bindings", bindings_fields, sizeof bindings_fields / sizeof bindings_fields[0]},
  [VLART_SECTION_INITIALIZERS] = {"initializers", initializers_fields, sizeof initializers_fields / sizeof initializers_fields[0]},
  [VLART_SECTION_CARRIES] = {"carries", carries_fields, sizeof carries_fields / sizeof carries_fields[0]},
  [VLART_SECTION_DELAYS] = {"delays", delays_fields, sizeof delays_fields / sizeof delays_fields[0]},
  [VLART_SECTION_HISTORIES] = {"histories", histories_fields, sizeof histories_fields / sizeof histories_fields[0]},
  [VLART_SECTION_LANES] = {"lanes", lanes_fields, sizeof lanes_fields / sizeof lanes_fields[0]},
  [VLART_SECTION_SAMPLINGS] = {"samplings", samplings_fields, sizeof samplings_fields / sizeof samplings_fields[0]},
  [VLART_SECTION_PRECISIONS] = {"precisions", precisions_fields, sizeof precisions_fields / sizeof precisions_fields[0]},
  [VLART_SECTION_BUILDS] = {"builds", builds_fields, sizeof builds_fields / sizeof builds_fields[0]},
  [VLART_SECTION_BOARD] = {"board", board_fields, sizeof board_fields / sizeof board_fields[0]},
  [VLART_SECTION_FRAMES] = {"frames", frames_fields, sizeof frames_fields / sizeof frames_fields[0]},
  [VLART_SECTION_TENSORS] = {"tensors", tensors_fields, sizeof tensors_fields / sizeof tensors_fields[0]},
  [VLART_SECTION_REFERENCES] = {"references", references_fields, sizeof references_fields / sizeof references_fields[0]},
  [VLART_SECTION_LIMITS] = {"limits", limits_fields, sizeof limits_fields / sizeof limits_fields[0]},
  [VLART_SECTION_DECODES] = {"decodes", decodes_fields, sizeof decodes_fields / sizeof decodes_fields[0]},
  [VLART_SECTION_CONSUMPTION] = {"consumption", consumption_fields, sizeof consumption_fields / sizeof consumption_fields[0]},
  [VLART_SECTION_ROUTER] = {"router", router_fields, sizeof router_fields / sizeof router_fields[0]},
  [VLART_SECTION_BACKBONES] = {"backbones", backbones_fields, sizeof backbones_fields / sizeof backbones_fields[0]},
  [VLART_SECTION_ROUTES] = {"routes", routes_fields, sizeof routes_fields / sizeof routes_fields[0]},
  [VLART_SECTION_EVIDENCE] = {"evidence", evidence_fields, sizeof evidence_fields / sizeof evidence_fields[0]},
  [VLART_SECTION_TOKENIZER] = {"tokenizer", tokenizer_fields, sizeof tokenizer_fields / sizeof tokenizer_fields[0]},
  [VLART_SECTION_STEPS] = {"steps", steps_fields, sizeof steps_fields / sizeof steps_fields[0]},
  [VLART_SECTION_SPANS] = {"spans", spans_fields, sizeof spans_fields / sizeof spans_fields[0]},
  [VLART_SECTION_ADDED] = {"added", added_fields, sizeof added_fields / sizeof added_fields[0]},
  [VLART_SECTION_COMPOSITIONS] = {"compositions", compositions_fields, sizeof compositions_fields / sizeof compositions_fields[0]},
  [VLART_SECTION_TEXTS] = {"texts", texts_fields, sizeof texts_fields / sizeof texts_fields[0]},
  [VLART_SECTION_INSTRUCTIONS] = {"instructions", instructions_fields, sizeof instructions_fields / sizeof instructions_fields[0]},
  [VLART_SECTION_STORED] = {"stored", stored_fields, sizeof stored_fields / sizeof stored_fields[0]},
  [VLART_SECTION_RATE_LIMITS] = {"rate_limits", rate_limits_fields, sizeof rate_limits_fields / sizeof rate_limits_fields[0]},
  [VLART_SECTION_TOKEN_RANGES] = {"token_ranges", token_ranges_fields, sizeof token_ranges_fields / sizeof token_ranges_fields[0]},
  [VLART_SECTION_LOOP_ENDS] = {"loop_ends", loop_ends_fields, sizeof loop_ends_fields / sizeof loop_ends_fields[0]},
  [VLART_SECTION_CONCURRENCY] = {"concurrency", concurrency_fields, sizeof concurrency_fields / sizeof concurrency_fields[0]},
  [VLART_SECTION_CARRIED] = {"carried", carried_fields, sizeof carried_fields / sizeof carried_fields[0]},
  [VLART_SECTION_BUCKETS] = {"buckets", buckets_fields, sizeof buckets_fields / sizeof buckets_fields[0]},
  [VLART_SECTION_GUARDS] = {"guards", guards_fields, sizeof guards_fields / sizeof guards_fields[0]},
  [VLART_SECTION_CHUNKS] = {"chunks", chunks_fields, sizeof chunks_fields / sizeof chunks_fields[0]},
  [VLART_SECTION_LOCK] = {"lock", lock_fields, sizeof lock_fields / sizeof lock_fields[0]},
  [VLART_SECTION_ENGINES] = {"engines", engines_fields, sizeof engines_fields / sizeof engines_fields[0]},
};
