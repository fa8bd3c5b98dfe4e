/* [init] Whether an artefact says of its weights what the plan says: where each of them lies in which file.

   Of ONNX's protocol buffers (onnx.proto3) only what is needed is read: ModelProto.graph, GraphProto.initializer,
   and of a TensorProto its name and external_data. What is malformed agrees with nothing. */
#include <stdlib.h>
#include <string.h>

#include "ort_engine.h"

enum { VARINT = 0, EIGHT_BYTES = 1, MESSAGE = 2, FOUR_BYTES = 5 }; /* wire types */
enum { MODEL_GRAPH = 7, GRAPH_INITIALIZER = 5, TENSOR_NAME = 8, TENSOR_EXTERNAL = 13 };
enum { ENTRY_KEY = 1, ENTRY_VALUE = 2, NUMBER_BYTES = 24 };

typedef struct {
  const uint8_t *at, *end;
} span_t;

typedef struct {
  uint64_t number;
  uint32_t type;
  span_t content; /* of a MESSAGE */
} field_t;

/* What a tensor says of itself; spans are empty where it says nothing. */
typedef struct {
  span_t name, location, offset, length;
  bool external;
} tensor_t;

static bool read_varint(span_t *span, uint64_t *out) {
  *out = 0;
  for (uint32_t shift = 0; shift < 64 && span->at < span->end; shift += 7) {
    uint8_t byte = *span->at++;
    *out |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) {
      return true;
    }
  }
  return false;
}

/* The next field; false at the end, and where the rest makes no sense: then at != end. */
static bool next_field(span_t *span, field_t *out) {
  uint64_t tag, bytes = 0;
  const uint8_t *begin = span->at;
  bool good = span->at < span->end && read_varint(span, &tag);
  if (good) {
    *out = (field_t){.number = tag >> 3, .type = (uint32_t)(tag & 7)};
    switch (out->type) {
      case VARINT: good = read_varint(span, &bytes), bytes = 0; break;
      case EIGHT_BYTES: bytes = 8; break;
      case FOUR_BYTES: bytes = 4; break;
      case MESSAGE: good = read_varint(span, &bytes); break;
      default: good = false;
    }
    good = good && bytes <= (uint64_t)(span->end - span->at);
  }
  if (!good) {
    span->at = begin;
    return false;
  }
  out->content = (span_t){span->at, span->at + bytes};
  span->at += bytes;
  return true;
}

static bool is_text(span_t span, const char *text) {
  size_t bytes = strlen(text);
  return (size_t)(span.end - span.at) == bytes && (bytes == 0 || memcmp(span.at, text, bytes) == 0);
}

static bool is_number(span_t span, uint64_t number) {
  char text[NUMBER_BYTES];
  size_t bytes = (size_t)(span.end - span.at);
  if (bytes == 0 || bytes >= sizeof text || memchr(span.at, 0, bytes) != NULL) {
    return false;
  }
  memcpy(text, span.at, bytes);
  text[bytes] = '\0';
  char *end = NULL;
  return strtoull(text, &end, 10) == number && *end == '\0';
}

static bool read_entry(span_t entry, tensor_t *tensor) {
  span_t key = {0}, value = {0};
  field_t field;
  while (next_field(&entry, &field)) {
    if (field.type == MESSAGE && field.number == ENTRY_KEY) key = field.content;
    if (field.type == MESSAGE && field.number == ENTRY_VALUE) value = field.content;
  }
  if (is_text(key, "location")) tensor->location = value;
  if (is_text(key, "offset")) tensor->offset = value;
  if (is_text(key, "length")) tensor->length = value;
  return entry.at == entry.end;
}

static bool read_tensor(span_t span, tensor_t *out) {
  *out = (tensor_t){0};
  field_t field;
  bool good = true;
  while (good && next_field(&span, &field)) {
    if (field.type == MESSAGE && field.number == TENSOR_NAME) {
      out->name = field.content;
    } else if (field.type == MESSAGE && field.number == TENSOR_EXTERNAL) {
      out->external = true;
      good = read_entry(field.content, out);
    }
  }
  return good && span.at == span.end;
}

static bool agrees(const ort_engine_t *engine, uint32_t index, const tensor_t *tensor) {
  const vlart_plan_t *plan = &engine->bundle->plan;
  const vlart_stage_record_t *stage = vlart_plan_stage(plan, engine->stage);
  const vlart_weight_record_t *weight = vlart_plan_weight(
      plan, vlart_plan_initializer(plan, stage->initializer_begin + index)->weight);
  const char *path = vlart_plan_string(plan, vlart_plan_file(plan, weight->file)->path);
  const char *artefact = vlart_plan_string(plan, vlart_plan_file(plan, stage->artefact)->path);
  const char *name = strrchr(path, '/');
  const char *own = strrchr(artefact, '/');
  bool beside = name != NULL && own != NULL && name - path == own - artefact &&
                memcmp(path, artefact, (size_t)(name - path)) == 0;
  return beside && is_text(tensor->location, name + 1) &&
         is_number(tensor->offset, weight->offset) && is_number(tensor->length, weight->bytes);
}

bool ort_weights_are_named(const ort_engine_t *engine) {
  const vlart_stage_record_t *stage = vlart_plan_stage(&engine->bundle->plan, engine->stage);
  const vlart_map_t *file = &engine->bundle->files[stage->artefact];
  span_t model = {file->data, file->data + file->bytes};
  field_t graph, field;
  tensor_t tensor;
  uint32_t count = stage->initializer_count, found = 0, next = 0;
  while (next_field(&model, &graph)) {
    span_t inside = graph.content;
    while (graph.number == MODEL_GRAPH && graph.type == MESSAGE && next_field(&inside, &field)) {
      if (field.number != GRAPH_INITIALIZER || field.type != MESSAGE) {
        continue;
      }
      if (!read_tensor(field.content, &tensor)) {
        return false;
      }
      if (!tensor.external) {
        continue;
      }
      uint32_t tried =
          0; /* they come in the order of the plan, but for what another emitter writes */
      while (
          tried < count &&
          !is_text(tensor.name, vlart_stage_constant(engine->bundle, engine->stage, next).name)) {
        next = (next + 1) % count;
        tried++;
      }
      if (tried == count || found == count || !agrees(engine, next, &tensor)) {
        return false;
      }
      next = (next + 1) % count;
      found++;
    }
    if (graph.number == MODEL_GRAPH && inside.at != inside.end) {
      return false;
    }
  }
  return model.at == model.end && found == count;
}
