/* A double of the two CUDA libraries that TVM's runtime for GPUs calls (libcuda.so.1 and
   libcudart.so.13 are both linked from this file), so that stages compiled for a GPU run through
   libvlart where there is none. Stands for one device of compute capability 8.7.

   Its memory is readable only during a copy and a launch: whoever takes a device's address for one of
   the host's ends there. Kernels are not the machine code that is loaded but the same source compiled
   for this processor (cuda_threads.h): FAKE_CUDA_KERNELS/HASH.so, HASH is FNV-1a over the machine
   code's container. FAKE_CUDA_FAILS names a function that fails. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cuda.h>
#include <cuda_runtime_api.h>

#define MEMORY_BYTES (64u << 20)
#define ALIGNMENT 256u
#define NAME_BYTES 4096u

static uint8_t *memory;
static size_t taken;

static bool fails(const char *function) {
  const char *named = getenv("FAKE_CUDA_FAILS");
  return named != NULL && strcmp(named, function) == 0;
}

/* ---- libcudart ------------------------------------------------------------------------------- */

cudaError_t cudaMalloc(void **out_memory, size_t bytes) {
  if (memory == NULL) {
    memory = mmap(NULL, MEMORY_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  size_t size = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  if (memory == MAP_FAILED || size > MEMORY_BYTES - taken || fails("cudaMalloc")) {
    return cudaErrorMemoryAllocation;
  }
  *out_memory = memory + taken;
  taken += size;
  return cudaSuccess;
}

static void reach(int access) {
  if (memory != NULL && mprotect(memory, MEMORY_BYTES, access) != 0) {
    abort();
  }
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
  (void)kind, (void)stream;
  if (fails("cudaMemcpyAsync")) {
    return cudaErrorInvalidValue;
  }
  reach(PROT_READ | PROT_WRITE);
  memcpy(to, from, bytes);
  reach(PROT_NONE);
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *out_count) {
  *out_count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int *out_device) {
  *out_device = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *out_value, enum cudaDeviceAttr attribute, int device) {
  (void)device;
  *out_value = attribute == cudaDevAttrComputeCapabilityMajor   ? 8
               : attribute == cudaDevAttrComputeCapabilityMinor ? 7
               : attribute == cudaDevAttrWarpSize               ? 32
                                                                : 1024;
  return cudaSuccess;
}

const char *cudaGetErrorName(cudaError_t error) {
  return error == cudaSuccess ? "cudaSuccess" : "cudaErrorOfTheDouble";
}

const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "the double was told to fail";
}

/* What TVM's library is linked with and has no meaning here. */
#define DOES_NOTHING(name, ...) \
  cudaError_t name(__VA_ARGS__) { return cudaSuccess; }
#pragma GCC diagnostic ignored "-Wunused-parameter"
DOES_NOTHING(cudaEventCreate, cudaEvent_t *event)
DOES_NOTHING(cudaEventDestroy, cudaEvent_t event)
DOES_NOTHING(cudaEventElapsedTime, float *ms, cudaEvent_t begin, cudaEvent_t end)
DOES_NOTHING(cudaEventRecord, cudaEvent_t event, cudaStream_t stream)
DOES_NOTHING(cudaEventSynchronize, cudaEvent_t event)
DOES_NOTHING(cudaFree, void *pointer)
DOES_NOTHING(cudaFreeHost, void *pointer)
DOES_NOTHING(cudaGetDeviceProperties, struct cudaDeviceProp *out, int device)
DOES_NOTHING(cudaGetLastError, void)
DOES_NOTHING(cudaGraphDestroy, cudaGraph_t graph)
DOES_NOTHING(cudaGraphExecDestroy, cudaGraphExec_t graph)
DOES_NOTHING(cudaGraphInstantiate, cudaGraphExec_t *out, cudaGraph_t graph,
             unsigned long long flags)
DOES_NOTHING(cudaGraphLaunch, cudaGraphExec_t graph, cudaStream_t stream)
DOES_NOTHING(cudaMallocHost, void **out, size_t bytes)
DOES_NOTHING(cudaMemGetInfo, size_t *unused, size_t *all)
DOES_NOTHING(cudaMemcpyPeerAsync, void *to, int a, const void *from, int b, size_t n,
             cudaStream_t s)
DOES_NOTHING(cudaPeekAtLastError, void)
DOES_NOTHING(cudaSetDevice, int device)
DOES_NOTHING(cudaStreamBeginCapture, cudaStream_t stream, enum cudaStreamCaptureMode mode)
DOES_NOTHING(cudaStreamCreate, cudaStream_t *out)
DOES_NOTHING(cudaStreamCreateWithFlags, cudaStream_t *out, unsigned flags)
DOES_NOTHING(cudaStreamDestroy, cudaStream_t stream)
DOES_NOTHING(cudaStreamEndCapture, cudaStream_t stream, cudaGraph_t *out)
DOES_NOTHING(cudaStreamSynchronize, cudaStream_t stream)
DOES_NOTHING(cudaStreamWaitEvent, cudaStream_t stream, cudaEvent_t event, unsigned flags)

/* ---- libcuda --------------------------------------------------------------------------------- */

/* A module is the library with its kernels, a function the kernel's entry in it. */
struct CUfunc_st {
  void (*call)(void **arguments);
  void (*launch)(void (*call)(void **), void **arguments, const unsigned grid[3],
                 const unsigned block[3]);
};

static uint64_t hash_of(const uint8_t *bytes, size_t count) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < count; i++) {
    hash = (hash ^ bytes[i]) * 0x100000001b3u;
  }
  return hash;
}

CUresult cuModuleLoadData(CUmodule *out_module, const void *image) {
  uint16_t header;
  uint64_t rest;
  memcpy(&header, (const uint8_t *)image + 6, sizeof header);
  memcpy(&rest, (const uint8_t *)image + 8, sizeof rest);
  char path[NAME_BYTES];
  const char *folder = getenv("FAKE_CUDA_KERNELS");
  snprintf(path, sizeof path, "%s/%016llx.so", folder != NULL ? folder : ".",
           (unsigned long long)hash_of(image, header + rest));
  *out_module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  return *out_module != NULL ? CUDA_SUCCESS : CUDA_ERROR_NO_BINARY_FOR_GPU;
}

CUresult cuModuleGetFunction(CUfunction *out_function, CUmodule module, const char *name) {
  char entry[NAME_BYTES];
  snprintf(entry, sizeof entry, "%s_entry", name);
  void *call = dlsym(module, entry), *launch = dlsym(module, "launch");
  CUfunction function = malloc(sizeof *function); /* stays, as the module does */
  if (call == NULL || launch == NULL || function == NULL) {
    free(function);
    return CUDA_ERROR_NOT_FOUND;
  }
  memcpy(&function->call, &call, sizeof call);
  memcpy(&function->launch, &launch, sizeof launch);
  *out_function = function;
  return CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **arguments,
                          void **extra) {
  (void)extra;
  if (fails("cuLaunchKernelEx")) {
    return CUDA_ERROR_LAUNCH_FAILED;
  }
  const unsigned grid[3] = {config->gridDimX, config->gridDimY, config->gridDimZ};
  const unsigned block[3] = {config->blockDimX, config->blockDimY, config->blockDimZ};
  reach(PROT_READ | PROT_WRITE);
  function->launch(function->call, arguments, grid, block);
  reach(PROT_NONE);
  return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module) {
  return module != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuDeviceGetName(char *out_name, int bytes, CUdevice device) {
  snprintf(out_name, (size_t)bytes, "double of device %d", device);
  return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult result, const char **out_name) {
  *out_name = result == CUDA_SUCCESS                   ? "CUDA_SUCCESS"
              : result == CUDA_ERROR_LAUNCH_FAILED     ? "CUDA_ERROR_LAUNCH_FAILED"
              : result == CUDA_ERROR_NO_BINARY_FOR_GPU ? "CUDA_ERROR_NO_BINARY_FOR_GPU"
                                                       : "CUDA_ERROR_OF_THE_DOUBLE";
  return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult result, const char **out_text) {
  return cuGetErrorName(result, out_text);
}

/* Named by TVM's library for a kind of copy that Orin does not have. */
CUresult cuTensorMapEncodeTiled(CUtensorMap *out_map, CUtensorMapDataType type, cuuint32_t rank,
                                void *address, const cuuint64_t *dims, const cuuint64_t *strides,
                                const cuuint32_t *box, const cuuint32_t *steps,
                                CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  return CUDA_ERROR_NOT_SUPPORTED;
}
