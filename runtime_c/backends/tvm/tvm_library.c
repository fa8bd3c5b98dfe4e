/* [init] TVM's libraries: found and loaded, its functions by name, its errors in our words. */
#include <dlfcn.h>
#include <string.h>

#include "base/diag.h"
#include "tvm_engine.h"

#define TVM_DEFAULT_FFI "libtvm_ffi.so"
#define TVM_DEFAULT_RUNTIME "libtvm_runtime.so"
#define TVM_DEFAULT_CUDA "libtvm_runtime_cuda.so"

static vlart_status_t no_library(const char *path, const char *why, vlart_diag_t *diag) {
  vlart_fail(diag, VLART_STATUS_NO_BACKEND, "TVM's runtime cannot be loaded",
             "`pip install apache-tvm`, then give the paths of tvm_ffi/lib/libtvm_ffi.so and "
             "tvm/lib/libtvm_runtime.so (vlart-run: --tvm-ffi, --tvm)");
  vlart_where(diag, "%s", path);
  vlart_why(diag, "%s", why != NULL ? why : "the loader gives no reason");
  return VLART_STATUS_NO_BACKEND;
}

/* A compiled stage looks for the library's functions among the global symbols, so both are loaded
   to be seen; they stay in the process, as their threads and tables do. */
static vlart_status_t load_libraries(tvm_api_t *api, const char *ffi_path, const char *runtime_path,
                                     vlart_diag_t *diag) {
  void *ffi = dlopen(ffi_path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
  if (ffi == NULL) {
    return no_library(ffi_path, dlerror(), diag);
  }
  if (dlopen(runtime_path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE) == NULL) {
    return no_library(runtime_path, dlerror(), diag);
  }
  const struct {
    const char *name;
    void *to;
  } wanted[] = {{"TVMFFIFunctionGetGlobal", &api->get_global},
                {"TVMFFIFunctionCall", &api->call},
                {"TVMFFITensorFromDLPack", &api->from_lent},
                {"TVMFFIObjectDecRef", &api->release},
                {"TVMFFIErrorMoveFromRaised", &api->take_error}};
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
    void *symbol = dlsym(ffi, wanted[i].name);
    if (symbol == NULL) {
      return no_library(ffi_path, "it does not export tvm-ffi's functions", diag);
    }
    memcpy(wanted[i].to, &symbol, sizeof symbol);
  }
  return VLART_STATUS_OK;
}

static vlart_status_t load_gpu_library(const char *path, vlart_diag_t *diag) {
  if (dlopen(path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE) != NULL) {
    return VLART_STATUS_OK;
  }
  const char *why = dlerror();
  vlart_fail(diag, VLART_STATUS_NO_BACKEND, "TVM's runtime for GPUs cannot be loaded",
             "on a device with an NVIDIA GPU and CUDA 13 (JetPack 7.2): `pip install apache-tvm`, "
             "then give the path of tvm/lib/libtvm_runtime_cuda.so (vlart-run: --tvm-cuda)");
  vlart_where(diag, "%s", path);
  vlart_why(diag, "%s", why != NULL ? why : "the loader gives no reason");
  return VLART_STATUS_NO_BACKEND;
}

static vlart_status_t find_global(const tvm_api_t *api, const char *name, void **out_function,
                                  vlart_diag_t *diag) {
  tvm_text_t text = {name, strlen(name)};
  if (api->get_global(&text, out_function) != 0) {
    return tvm_raised(api, name, "*", diag);
  }
  return *out_function != NULL ? VLART_STATUS_OK
                               : no_library(name, "the library has no such function", diag);
}

static vlart_status_t find_functions(tvm_context_t *context, vlart_diag_t *diag) {
  tvm_functions_t *to = &context->functions;
  const struct {
    const char *name;
    void **to;
    bool of_gpus;
  } wanted[] = {{"ffi.ModuleLoadFromFile", &to->load_module, false},
                {"ffi.ModuleGetFunction", &to->get_function, false},
                {"ffi.ArrayGetItem", &to->get_item, false},
                {"ffi.Shape", &to->shape, true},
                {"runtime.TVMTensorAllocWithScope", &to->allocate, true},
                {"runtime.TVMTensorCopyFromBytes", &to->upload, true},
                {"runtime.TVMTensorCopyToBytes", &to->download, true}};
  vlart_status_t status = VLART_STATUS_OK;
  for (size_t i = 0; status == VLART_STATUS_OK && i < sizeof wanted / sizeof *wanted; i++) {
    if (!wanted[i].of_gpus || context->device == TVM_CUDA) {
      status = find_global(&context->api, wanted[i].name, wanted[i].to, diag);
    }
  }
  return status;
}

vlart_status_t tvm_open_on(int32_t device, tvm_context_t *context,
                           const vlart_session_options_t *options, vlart_diag_t *diag) {
  const char *ffi = options->tvm_ffi_library != NULL ? options->tvm_ffi_library : TVM_DEFAULT_FFI;
  const char *runtime = options->tvm_library != NULL ? options->tvm_library : TVM_DEFAULT_RUNTIME;
  const char *gpu =
      options->tvm_cuda_library != NULL ? options->tvm_cuda_library : TVM_DEFAULT_CUDA;
  context->device = device;
  vlart_status_t status = load_libraries(&context->api, ffi, runtime, diag);
  if (status == VLART_STATUS_OK && device == TVM_CUDA) {
    status = load_gpu_library(gpu, diag);
  }
  return status == VLART_STATUS_OK ? find_functions(context, diag) : status;
}

void tvm_close(void *memory) {
  tvm_context_t *context = memory;
  tvm_functions_t *held = &context->functions;
  void **all[] = {&held->download, &held->upload,       &held->allocate,   &held->shape,
                  &held->get_item, &held->get_function, &held->load_module};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    tvm_release(&context->api, all[i]);
  }
  *context = (tvm_context_t){0};
}
