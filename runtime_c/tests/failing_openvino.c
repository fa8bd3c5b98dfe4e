/* OpenVINO whose n-th call fails, as where there is no memory: a library that hands on to the real one, and counts what
   was made and not released. Loaded in place of it by test_engines.c. */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "failing_engine.h"
#include "openvino/ov_abi.h"

enum { TOLD = -17 }; /* a status of the library's own */

static failing_engine_t state;
static ov_api_t real;
static bool told; /* whether the last error is ours */

failing_engine_t *failing_engine_state(void) { return &state; }

static bool fails(void) {
  state.calls++;
  told = state.at > 0 && (state.calls == state.at || (state.lasting && state.calls > state.at));
  return told;
}

static int counted(int error, bool makes) {
  state.live += error == 0 && makes;
  return error;
}

#define EXPORT __attribute__((visibility("default")))
#define PASS(name, makes, parameters, arguments) \
  EXPORT int ov_##name parameters;               \
  int ov_##name parameters { return fails() ? TOLD : counted(real.name arguments, makes); }
// clang-format off
PASS(get_openvino_version, true, (OvVersion *out), (out))
PASS(core_create, true, (OvCore **out), (out))
PASS(core_read_model, true, (const OvCore *c, const char *path, const char *weights, OvModel **out),
     (c, path, weights, out))
PASS(compiled_model_inputs_size, false, (const OvCompiledModel *m, size_t *out), (m, out))
PASS(compiled_model_outputs_size, false, (const OvCompiledModel *m, size_t *out), (m, out))
PASS(compiled_model_input_by_index, true, (const OvCompiledModel *m, size_t i, OvPort **out), (m, i, out))
PASS(compiled_model_output_by_index, true, (const OvCompiledModel *m, size_t i, OvPort **out), (m, i, out))
PASS(compiled_model_input_by_name, true, (const OvCompiledModel *m, const char *name, OvPort **out), (m, name, out))
PASS(compiled_model_output_by_name, true, (const OvCompiledModel *m, const char *name, OvPort **out), (m, name, out))
PASS(port_get_any_name, true, (const OvPort *p, char **out), (p, out))
PASS(port_get_element_type, false, (const OvPort *p, int *out), (p, out))
PASS(const_port_get_shape, true, (const OvPort *p, OvShape *out), (p, out))
PASS(tensor_create_from_host_ptr, true, (int type, OvShape shape, void *data, OvTensor **out), (type, shape, data, out))
PASS(tensor_get_byte_size, false, (const OvTensor *t, size_t *out), (t, out))
PASS(compiled_model_create_infer_request, true, (const OvCompiledModel *m, OvRequest **out), (m, out))
PASS(infer_request_set_input_tensor_by_index, false, (OvRequest *r, size_t i, const OvTensor *t), (r, i, t))
PASS(infer_request_set_output_tensor_by_index, false, (OvRequest *r, size_t i, const OvTensor *t), (r, i, t))
PASS(infer_request_infer, false, (OvRequest *r), (r))
// clang-format on

/* At most as many words as the backend gives. */
EXPORT int ov_core_compile_model(const OvCore *core, const OvModel *model, const char *device,
                                 size_t words, OvCompiledModel **out, ...);
int ov_core_compile_model(const OvCore *core, const OvModel *model, const char *device,
                          size_t words, OvCompiledModel **out, ...) {
  const char *given[10] = {NULL};
  va_list list;
  va_start(list, out);
  for (size_t i = 0; i < words && i < 10; i++) {
    given[i] = va_arg(list, const char *);
  }
  va_end(list);
  return fails() ? TOLD
                 : counted(real.core_compile_model(core, model, device, words, out, given[0],
                                                   given[1], given[2], given[3], given[4], given[5],
                                                   given[6], given[7], given[8], given[9]),
                           true);
}

#define RELEASE(name, type)         \
  EXPORT void ov_##name(type *old); \
  void ov_##name(type *old) {       \
    state.live -= old != NULL;      \
    real.name(old);                 \
  }
RELEASE(version_free, OvVersion)
RELEASE(core_free, OvCore)
RELEASE(model_free, OvModel)
RELEASE(compiled_model_free, OvCompiledModel)
RELEASE(output_const_port_free, OvPort)
RELEASE(tensor_free, OvTensor)
RELEASE(infer_request_free, OvRequest)

EXPORT int ov_shape_free(OvShape *shape);
int ov_shape_free(OvShape *shape) {
  state.live--;
  return real.shape_free(shape);
}

EXPORT const char *ov_get_last_err_msg(void);
const char *ov_get_last_err_msg(void) {
  static const char told_text[] = "told to fail";
  state.live++;
  return told ? told_text : real.get_last_err_msg();
}

EXPORT void ov_free(const char *text);
void ov_free(const char *text) {
  state.live--;
  if (strcmp(text, "told to fail") != 0) {
    real.free(text);
  }
}

bool failing_engine_load(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const struct {
    const char *name;
    void *to;
  } wanted[] = {
#define WANTED(name, result, parameters) {"ov_" #name, &real.name},
      OV_FUNCTIONS(WANTED)
#undef WANTED
  };
  for (size_t i = 0; library != NULL && i < sizeof wanted / sizeof *wanted; i++) {
    void *symbol = dlsym(library, wanted[i].name);
    memcpy(wanted[i].to, &symbol, sizeof symbol);
  }
  return library != NULL && real.infer_request_infer != NULL;
}
