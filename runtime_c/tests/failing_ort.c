/* ONNX Runtime whose n-th call fails, as where there is no memory: a library that hands on to the real one, and counts
   what was made and not released. Loaded in place of it by test_engines.c; only the functions of ort_abi.h exist. */
#include <dlfcn.h>
#include <string.h>

#include "failing_engine.h"
#include "onnxruntime/ort_abi.h"

enum { FUNCTIONS = 200, OUT_OF_MEMORY_CODE = 1 };

static failing_engine_t state;
static ort_api_t real;
static const char *(*real_version)(void);
static ort_function_t table[FUNCTIONS];

failing_engine_t *failing_engine_state(void) { return &state; }

static bool fails(void) {
  state.calls++;
  if (state.instead != NULL) {
    if (state.calls == state.at) {
      state.instead();
    }
    return false;
  }
  return state.at > 0 && (state.calls == state.at || (state.lasting && state.calls > state.at));
}

static OrtStatus *refused(void) {
  OrtStatus *(*create)(int, const char *) = (OrtStatus * (*)(int, const char *)) real[0];
  state.live++;
  return create(OUT_OF_MEMORY_CODE, "told to fail");
}

static OrtStatus *counted(OrtStatus *status, bool makes) {
  state.live += status != NULL ? 1 : makes;
  return status;
}

#define PASS(name, makes, parameters, arguments)                               \
  static OrtStatus *pass_##name parameters {                                   \
    return fails() ? refused() : counted(ORT_FN(real, name) arguments, makes); \
  }
PASS(CreateEnv, true, (int level, const char *name, OrtEnv **out), (level, name, out))
// clang-format off
PASS(CreateSessionOptions, true, (OrtSessionOptions **out), (out))
PASS(SetOptimizedModelFilePath, false, (OrtSessionOptions *o, const char *path), (o, path))
PASS(SetSessionGraphOptimizationLevel, false, (OrtSessionOptions *o, int level), (o, level))
PASS(SetIntraOpNumThreads, false, (OrtSessionOptions *o, int n), (o, n))
PASS(SetInterOpNumThreads, false, (OrtSessionOptions *o, int n), (o, n))
PASS(SessionGetInputCount, false, (const OrtSession *s, size_t *out), (s, out))
PASS(SessionGetOutputCount, false, (const OrtSession *s, size_t *out), (s, out))
PASS(SessionGetInputTypeInfo, true, (const OrtSession *s, size_t i, OrtTypeInfo **out), (s, i, out))
PASS(SessionGetOutputTypeInfo, true, (const OrtSession *s, size_t i, OrtTypeInfo **out), (s, i, out))
PASS(SessionGetInputName, true, (const OrtSession *s, size_t i, OrtAllocator *a, char **out),
     (s, i, a, out))
PASS(SessionGetOutputName, true, (const OrtSession *s, size_t i, OrtAllocator *a, char **out),
     (s, i, a, out))
PASS(CreateTensorWithDataAsOrtValue, true,
     (const OrtMemoryInfo *m, void *data, size_t bytes, const int64_t *dims, size_t rank, int dtype,
      OrtValue **out),
     (m, data, bytes, dims, rank, dtype, out))
PASS(CastTypeInfoToTensorInfo, false, (const OrtTypeInfo *t, const OrtTensorInfo **out), (t, out))
PASS(GetTensorElementType, false, (const OrtTensorInfo *t, int *out), (t, out))
PASS(GetDimensionsCount, false, (const OrtTensorInfo *t, size_t *out), (t, out))
PASS(GetDimensions, false, (const OrtTensorInfo *t, int64_t *out, size_t n), (t, out, n))
PASS(CreateCpuMemoryInfo, true, (int a, int m, OrtMemoryInfo **out), (a, m, out))
PASS(GetAllocatorWithDefaultOptions, false, (OrtAllocator **out), (out))
PASS(AddSessionConfigEntry, false, (OrtSessionOptions *o, const char *k, const char *v), (o, k, v))
PASS(RunWithBinding, false, (OrtSession *s, const OrtRunOptions *o, const OrtIoBinding *b), (s, o, b))
PASS(CreateIoBinding, true, (OrtSession *s, OrtIoBinding **out), (s, out))
PASS(BindInput, false, (OrtIoBinding *b, const char *name, const OrtValue *v), (b, name, v))
PASS(BindOutput, false, (OrtIoBinding *b, const char *name, const OrtValue *v), (b, name, v))
PASS(AddInitializer, false, (OrtSessionOptions *o, const char *name, const OrtValue *v), (o, name, v))
PASS(CreatePrepackedWeightsContainer, true, (OrtPrepackedWeights **out), (out))
PASS(CreateSessionFromArrayWithPrepackedWeightsContainer, true,
     (const OrtEnv *e, const void *model, size_t bytes, const OrtSessionOptions *o,
      OrtPrepackedWeights *p, OrtSession **out),
     (e, model, bytes, o, p, out))
// clang-format on

/* Frees what it is given, and reports an error all the same: the memory is gone either way. */
static OrtStatus *pass_AllocatorFree(OrtAllocator *allocator, void *memory) {
  bool now = fails();
  OrtStatus *status = counted(ORT_FN(real, AllocatorFree)(allocator, memory), false);
  state.live--;
  return now && status == NULL ? refused() : status;
}

#define RELEASE(name, type)                 \
  static void pass_##name(type *released) { \
    state.live -= released != NULL;         \
    ORT_FN(real, name)(released);           \
  }
RELEASE(ReleaseEnv, OrtEnv)
RELEASE(ReleaseStatus, OrtStatus)
RELEASE(ReleaseMemoryInfo, OrtMemoryInfo)
RELEASE(ReleaseSession, OrtSession)
RELEASE(ReleaseValue, OrtValue)
RELEASE(ReleaseTypeInfo, OrtTypeInfo)
RELEASE(ReleaseSessionOptions, OrtSessionOptions)
RELEASE(ReleaseIoBinding, OrtIoBinding)
RELEASE(ReleasePrepackedWeightsContainer, OrtPrepackedWeights)

#define PUT(name) table[ORT_AT_##name] = (ort_function_t)pass_##name
static void fill(void) {
  table[ORT_AT_GetErrorMessage] = real[ORT_AT_GetErrorMessage];
  PUT(CreateEnv), PUT(CreateSessionOptions), PUT(SetOptimizedModelFilePath);
  PUT(SetSessionGraphOptimizationLevel);
  PUT(SetIntraOpNumThreads), PUT(SetInterOpNumThreads), PUT(SessionGetInputCount);
  PUT(SessionGetOutputCount), PUT(SessionGetInputTypeInfo), PUT(SessionGetOutputTypeInfo);
  PUT(SessionGetInputName), PUT(SessionGetOutputName), PUT(CreateTensorWithDataAsOrtValue);
  PUT(CastTypeInfoToTensorInfo), PUT(GetTensorElementType), PUT(GetDimensionsCount);
  PUT(GetDimensions), PUT(CreateCpuMemoryInfo), PUT(AllocatorFree);
  PUT(GetAllocatorWithDefaultOptions), PUT(AddSessionConfigEntry), PUT(RunWithBinding);
  PUT(CreateIoBinding), PUT(BindInput), PUT(BindOutput), PUT(AddInitializer);
  PUT(CreatePrepackedWeightsContainer);
  PUT(CreateSessionFromArrayWithPrepackedWeightsContainer);
  PUT(ReleaseEnv), PUT(ReleaseStatus), PUT(ReleaseMemoryInfo), PUT(ReleaseSession);
  PUT(ReleaseValue), PUT(ReleaseTypeInfo), PUT(ReleaseSessionOptions), PUT(ReleaseIoBinding);
  PUT(ReleasePrepackedWeightsContainer);
}

bool failing_engine_load(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const ort_api_base_t *(*get_base)(void) = NULL;
  void *symbol = library == NULL ? NULL : dlsym(library, "OrtGetApiBase");
  memcpy(&get_base, &symbol, sizeof get_base);
  real = get_base == NULL ? NULL : get_base()->get_api(ORT_API_VERSION);
  if (real != NULL) {
    real_version = get_base()->get_version_string;
    fill();
  }
  return real != NULL;
}

static ort_api_t get_api(uint32_t version) { return version == ORT_API_VERSION ? table : NULL; }

static const char *get_version(void) { return real_version(); }

__attribute__((visibility("default"))) const ort_api_base_t *OrtGetApiBase(void);
const ort_api_base_t *OrtGetApiBase(void) {
  static const ort_api_base_t base = {get_api, get_version};
  return &base;
}
