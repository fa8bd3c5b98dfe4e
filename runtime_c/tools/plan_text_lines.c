/* Generated from vlart/bundle/format by `python -m vlart.bundle.format.generate`. */
#include "plan_text_lines.h"

static const char *const plan_lines_0_texts[] = {"plan {name} format {format} target {target} recipe {recipe}"};
static const char *const plan_lines_1_texts[] = {"arena {arena_bytes}"};
static const char *const plan_lines_2_texts[] = {"board {name} sm={compute_capability} jetpack={jetpack} l4t={l4t} tensorrt={tensorrt} timing_cache={timing_cache}"};
static const char *const plan_lines_3_texts[] = {"concurrency threads={threads} parallel={parallel}"};
static const char *const plan_lines_4_texts[] = {"file {#} {path} {kind} bytes={bytes} crc32={crc32}"};
static const char *const plan_lines_5_texts[] = {"weight @{#} {name} {dtype}[{dims}] file={file} offset={offset} bytes={bytes}"};
static const char *const plan_lines_6_texts[] = {[VLART_STORAGE_ARENA] = "value %{#} {name} {dtype}[{dims}] arena+{offset}", [VLART_STORAGE_WEIGHT] = "value %{#} {name} {dtype}[{dims}] weight={weight}"};
static const char *const plan_lines_7_texts[] = {"source {value} {update} clock={clock_hz}"};
static const char *const plan_lines_8_texts[] = {"history {source} frames={frames}"};
static const char *const plan_lines_9_texts[] = {"delay {input} -> {output}"};
static const char *const plan_lines_10_texts[] = {"carried {value} <- {next} initial={initial} until={until}"};
static const char *const plan_lines_11_texts[] = {"text {tokens} mask={mask} tokenizer={tokenizer} max_bytes={max_bytes}"};
static const char *const plan_lines_12_texts[] = {"instruction {source} {text}{*stored}"};
static const char *const plan_lines_13_texts[] = {"lane {name} clock={clock_hz} max_age_ms={max_age_ms}{*index}"};
static const char *const plan_lines_14_texts[] = {"guard {source} {outside} low={low} high={high} not_finite={not_finite} max_age_us={max_age_us}"};
static const char *const plan_lines_15_texts[] = {"token_range {source} rows={rows}"};
static const char *const plan_lines_16_texts[] = {"backbone {backbone} {value}"};
static const char *const plan_lines_17_texts[] = {"bucket {mask} {side} length={length}"};
static const char *const plan_lines_18_texts[] = {"stage {#} {name} {backend} file={artefact} iterations={iterations} flops={flops} weight_bytes={weight_bytes}"};
static const char *const plan_lines_18_lines_0_texts[] = {"  depends{*dep}"};
static const char *const plan_lines_18_lines_1_texts[] = {"{port} {value} {mode}"};
static const char *const plan_lines_18_lines_2_texts[] = {"{port} {value} {mode}"};
static const char *const plan_lines_18_lines_3_texts[] = {"{port} {weight}"};
static const char *const plan_lines_18_lines_4_texts[] = {"carry {initial} -> {result} scratch {scratch} in={input} out={output}"};
static const char *const plan_lines_18_lines_5_texts[] = {"sampling form={form} iterations={iterations} solver={solver} written={written} error={error} budget={budget}"};
static const char *const plan_lines_18_lines_6_texts[] = {"end {condition} must_end={must_end}"};
static const char *const plan_lines_18_lines_7_texts[] = {"precision {group} {scheme} by={decider} layers={layers} error={error} time_us={time_us} bytes={bytes}"};
static const char *const plan_lines_18_lines_8_texts[] = {"build flags={flags} level={level} aux_streams={aux_streams} workspace={workspace_bytes} weights={weight_bytes} engine={engine_bytes_min}..{engine_bytes_max} activations={activation_bytes} int8_gemms={int8_gemms} int4_dequants={int4_dequants} attentions={attentions}"};
static const char *const plan_lines_19_texts[] = {"action {action_value} chunk={chunk_steps} execute={execute_steps} dim={action_dim} deadline_us={deadline_us}"};
static const char *const plan_lines_19_lines_0_texts[] = {"  low{*low}"};
static const char *const plan_lines_19_lines_1_texts[] = {"  high{*high}"};
static const char *const plan_lines_19_lines_2_texts[] = {[VLART_DECODE_KIND_LOOKUP] = "lookup {table} direction={direction} outside={outside} first={index[0/2]} rows={index[1/2]}", [VLART_DECODE_KIND_PIECES] = "pieces {table} direction={direction} outside={outside} first={index[0/1]} symbols={symbols} offset={offset} stop={stop} length={length}", [VLART_DECODE_KIND_BASIS] = "basis {table}", [VLART_DECODE_KIND_AFFINE] = "affine scale={float[0/2]} offset={float[1/2]}", [VLART_DECODE_KIND_DELTA] = "delta {value} element={index[0/1]}"};
static const char *const plan_lines_19_lines_3_texts[] = {[VLART_CONSUME_QUEUE] = NULL, [VLART_CONSUME_ENSEMBLE] = "ensemble decay={decay}", [VLART_CONSUME_REALTIME] = "realtime delay={delay} schedule={schedule} horizon={horizon} previous={previous} weights={weights} chunk={chunk}"};
static const char *const plan_lines_19_lines_4_texts[] = {"rate_limit {rule} step={step}"};

static const plan_line_t plan_lines_18_lines[] = {
  {.section = VLART_SECTION_STAGES, .texts = plan_lines_18_lines_0_texts, .of = PLAN_LINE_SELF},
  {.section = VLART_SECTION_BINDINGS, .texts = plan_lines_18_lines_1_texts, .of = PLAN_LINE_SPAN, .lead = "  in ", .field = "input"},
  {.section = VLART_SECTION_BINDINGS, .texts = plan_lines_18_lines_2_texts, .of = PLAN_LINE_SPAN, .lead = "  out ", .field = "output"},
  {.section = VLART_SECTION_INITIALIZERS, .texts = plan_lines_18_lines_3_texts, .of = PLAN_LINE_SPAN, .lead = "  init ", .field = "initializer"},
  {.section = VLART_SECTION_CARRIES, .texts = plan_lines_18_lines_4_texts, .of = PLAN_LINE_SPAN, .lead = "  ", .field = "carry"},
  {.section = VLART_SECTION_SAMPLINGS, .texts = plan_lines_18_lines_5_texts, .of = PLAN_LINE_OWNED, .lead = "  ", .field = "stage"},
  {.section = VLART_SECTION_LOOP_ENDS, .texts = plan_lines_18_lines_6_texts, .of = PLAN_LINE_OWNED, .lead = "  ", .field = "stage"},
  {.section = VLART_SECTION_PRECISIONS, .texts = plan_lines_18_lines_7_texts, .of = PLAN_LINE_OWNED, .lead = "  ", .field = "stage"},
  {.section = VLART_SECTION_BUILDS, .texts = plan_lines_18_lines_8_texts, .of = PLAN_LINE_OWNED, .lead = "  ", .field = "stage"},
};

static const plan_line_t plan_lines_19_lines[] = {
  {.section = VLART_SECTION_POLICY, .texts = plan_lines_19_lines_0_texts, .of = PLAN_LINE_SELF, .when = "low"},
  {.section = VLART_SECTION_POLICY, .texts = plan_lines_19_lines_1_texts, .of = PLAN_LINE_SELF, .when = "high"},
  {.section = VLART_SECTION_DECODES, .texts = plan_lines_19_lines_2_texts, .of = PLAN_LINE_EVERY, .lead = "  decode ", .by = "kind"},
  {.section = VLART_SECTION_CONSUMPTION, .texts = plan_lines_19_lines_3_texts, .of = PLAN_LINE_EVERY, .lead = "  consume ", .by = "consume"},
  {.section = VLART_SECTION_RATE_LIMITS, .texts = plan_lines_19_lines_4_texts, .of = PLAN_LINE_EVERY, .lead = "  "},
};

const plan_line_t plan_lines[] = {
  {.section = VLART_SECTION_POLICY, .texts = plan_lines_0_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_POLICY, .texts = plan_lines_1_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_BOARD, .texts = plan_lines_2_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_CONCURRENCY, .texts = plan_lines_3_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_FILES, .texts = plan_lines_4_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_WEIGHTS, .texts = plan_lines_5_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_VALUES, .texts = plan_lines_6_texts, .of = PLAN_LINE_EVERY, .by = "storage"},
  {.section = VLART_SECTION_SOURCES, .texts = plan_lines_7_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_HISTORIES, .texts = plan_lines_8_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_DELAYS, .texts = plan_lines_9_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_CARRIED, .texts = plan_lines_10_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_TEXTS, .texts = plan_lines_11_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_INSTRUCTIONS, .texts = plan_lines_12_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_LANES, .texts = plan_lines_13_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_GUARDS, .texts = plan_lines_14_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_TOKEN_RANGES, .texts = plan_lines_15_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_CHUNKS, .texts = plan_lines_16_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_BUCKETS, .texts = plan_lines_17_texts, .of = PLAN_LINE_EVERY},
  {.section = VLART_SECTION_STAGES, .texts = plan_lines_18_texts, .of = PLAN_LINE_EVERY, .lines = plan_lines_18_lines, .line_count = sizeof plan_lines_18_lines / sizeof plan_lines_18_lines[0]},
  {.section = VLART_SECTION_POLICY, .texts = plan_lines_19_texts, .of = PLAN_LINE_EVERY, .when = "action_value", .lines = plan_lines_19_lines, .line_count = sizeof plan_lines_19_lines / sizeof plan_lines_19_lines[0]},
};

const uint32_t plan_line_count = sizeof plan_lines / sizeof plan_lines[0];

const char *const plan_item_texts[VLART_SECTION_ID_LIMIT] = {
  [VLART_SECTION_STORED] = "{value}={weight}",
};
