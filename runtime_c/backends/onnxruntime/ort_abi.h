/* The part of ONNX Runtime's C ABI that this backend calls, declared by position.

   The library exports OrtGetApiBase; its GetApi(version) gives a table of function pointers to
   which every release only appends. A position and a signature are therefore facts that hold for
   all later versions; these were executed against 1.32.0 on x86-64 and aarch64. Asking for API 18
   accepts every library since 1.18. */
#ifndef VLART_ORT_ABI_H
#define VLART_ORT_ABI_H

#include <stddef.h>
#include <stdint.h>

#define ORT_API_VERSION 18u

typedef struct OrtStatus OrtStatus; /* NULL is success */
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtIoBinding OrtIoBinding;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorInfo OrtTensorInfo;
typedef struct OrtPrepackedWeights OrtPrepackedWeights;

typedef void (*ort_function_t)(void);
typedef const ort_function_t *ort_api_t;

typedef struct {
  ort_api_t (*get_api)(uint32_t version);
  const char *(*get_version_string)(void);
} ort_api_base_t;

enum {
  ORT_LOG_FATAL = 4,
  ORT_OPTIMIZE_NOTHING = 0,
  ORT_OPTIMIZE_BASIC = 1,
  ORT_OPTIMIZE_ALL = 99,
  ORT_DEVICE_ALLOCATOR = 0,
  ORT_MEMORY_DEFAULT = 0
};

/* ORT(position, result, name, parameters): a position and a function type. */
#define ORT(position, result, name, ...) \
  enum { ORT_AT_##name = position };     \
  typedef result (*ort_##name##_t)(__VA_ARGS__)

/* The function `name` of a table. */
#define ORT_FN(api, name) ((ort_##name##_t)(api)[ORT_AT_##name])

ORT(2, const char *, GetErrorMessage, const OrtStatus *);
ORT(3, OrtStatus *, CreateEnv, int log_level, const char *name, OrtEnv **);
ORT(10, OrtStatus *, CreateSessionOptions, OrtSessionOptions **);
ORT(11, OrtStatus *, SetOptimizedModelFilePath, OrtSessionOptions *, const char *path);
ORT(23, OrtStatus *, SetSessionGraphOptimizationLevel, OrtSessionOptions *, int);
ORT(24, OrtStatus *, SetIntraOpNumThreads, OrtSessionOptions *, int);
ORT(25, OrtStatus *, SetInterOpNumThreads, OrtSessionOptions *, int);
ORT(30, OrtStatus *, SessionGetInputCount, const OrtSession *, size_t *);
ORT(31, OrtStatus *, SessionGetOutputCount, const OrtSession *, size_t *);
ORT(33, OrtStatus *, SessionGetInputTypeInfo, const OrtSession *, size_t, OrtTypeInfo **);
ORT(34, OrtStatus *, SessionGetOutputTypeInfo, const OrtSession *, size_t, OrtTypeInfo **);
ORT(36, OrtStatus *, SessionGetInputName, const OrtSession *, size_t, OrtAllocator *, char **);
ORT(37, OrtStatus *, SessionGetOutputName, const OrtSession *, size_t, OrtAllocator *, char **);
ORT(49, OrtStatus *, CreateTensorWithDataAsOrtValue, const OrtMemoryInfo *, void *data,
    size_t bytes, const int64_t *dims, size_t rank, int dtype, OrtValue **);
ORT(55, OrtStatus *, CastTypeInfoToTensorInfo, const OrtTypeInfo *, const OrtTensorInfo **);
ORT(60, OrtStatus *, GetTensorElementType, const OrtTensorInfo *, int *dtype);
ORT(61, OrtStatus *, GetDimensionsCount, const OrtTensorInfo *, size_t *);
ORT(62, OrtStatus *, GetDimensions, const OrtTensorInfo *, int64_t *dims, size_t count);
ORT(69, OrtStatus *, CreateCpuMemoryInfo, int allocator, int memory, OrtMemoryInfo **);
ORT(76, OrtStatus *, AllocatorFree, OrtAllocator *, void *);
ORT(78, OrtStatus *, GetAllocatorWithDefaultOptions, OrtAllocator **);
ORT(92, void, ReleaseEnv, OrtEnv *);
ORT(93, void, ReleaseStatus, OrtStatus *);
ORT(94, void, ReleaseMemoryInfo, OrtMemoryInfo *);
ORT(95, void, ReleaseSession, OrtSession *);
ORT(96, void, ReleaseValue, OrtValue *);
ORT(98, void, ReleaseTypeInfo, OrtTypeInfo *);
ORT(100, void, ReleaseSessionOptions, OrtSessionOptions *);
ORT(130, OrtStatus *, AddSessionConfigEntry, OrtSessionOptions *, const char *, const char *);
ORT(133, OrtStatus *, RunWithBinding, OrtSession *, const OrtRunOptions *, const OrtIoBinding *);
ORT(134, OrtStatus *, CreateIoBinding, OrtSession *, OrtIoBinding **);
ORT(135, void, ReleaseIoBinding, OrtIoBinding *);
ORT(136, OrtStatus *, BindInput, OrtIoBinding *, const char *, const OrtValue *);
ORT(137, OrtStatus *, BindOutput, OrtIoBinding *, const char *, const OrtValue *);
ORT(150, OrtStatus *, AddInitializer, OrtSessionOptions *, const char *, const OrtValue *);
ORT(166, OrtStatus *, CreatePrepackedWeightsContainer, OrtPrepackedWeights **);
ORT(167, void, ReleasePrepackedWeightsContainer, OrtPrepackedWeights *);
ORT(169, OrtStatus *, CreateSessionFromArrayWithPrepackedWeightsContainer, const OrtEnv *,
    const void *model, size_t bytes, const OrtSessionOptions *, OrtPrepackedWeights *,
    OrtSession **);

#endif
