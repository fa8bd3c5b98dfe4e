// libvlart_tensorrt.so: loads and runs engines through NVIDIA's TensorRT 10 and CUDA runtime.
// Compiled against TensorRT's headers (10.3 with CUDA 12.6, 10.16 with CUDA 13.2); never run.
//
// Decides nothing: what is asked for and in which order is trt_backend.c's matter, which is tested.
// Nothing throws: TensorRT's interfaces are noexcept, and this file is built without exceptions.
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <new>

#include "trt_abi.h"
#include "vlart/vlart_layout.h"

namespace {

// TensorRT says why a call failed only to its logger: the last such line is kept.
class Log : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char *message) noexcept override {
    if (severity <= Severity::kERROR) {
      std::snprintf(last_, sizeof last_, "%s", message);
    }
  }
  void forget() { last_[0] = '\0'; }
  bool give(vlart_trt_error_t *error, const char *call) const {
    std::snprintf(error->text, sizeof error->text, "%s: %s", call,
                  last_[0] != '\0' ? last_ : "it gives no reason");
    return false;
  }

 private:
  char last_[440] = {};
};

bool cuda_ok(cudaError_t status, const char *call, vlart_trt_error_t *error) {
  if (status == cudaSuccess) {
    return true;
  }
  std::snprintf(error->text, sizeof error->text, "%s: %s (%s)", call, cudaGetErrorString(status),
                cudaGetErrorName(status));
  return false;
}

}  // namespace

struct vlart_trt_device {
  Log log;
  nvinfer1::IRuntime *runtime = nullptr;
  cudaStream_t stream = nullptr;
};

struct vlart_trt_engine {
  vlart_trt_device *device = nullptr;
  nvinfer1::ICudaEngine *engine = nullptr;
  nvinfer1::IExecutionContext *context = nullptr;
  nvinfer1::IEngineInspector *inspector = nullptr;
};

struct vlart_trt_graph {
  cudaGraphExec_t executable = nullptr;
};

namespace {

void close_device(vlart_trt_device_t *device) {
  delete device->runtime;
  if (device->stream != nullptr) {
    cudaStreamDestroy(device->stream);
  }
  delete device;
}

bool open_device(vlart_trt_device_t **out_device, vlart_trt_error_t *error) {
  auto *device = new (std::nothrow) vlart_trt_device;
  if (device == nullptr) {
    std::snprintf(error->text, sizeof error->text, "out of memory");
    return false;
  }
  int managed = 0;
  bool good = cuda_ok(cudaDeviceGetAttribute(&managed, cudaDevAttrManagedMemory, 0),
                      "cudaDeviceGetAttribute", error) &&
              cuda_ok(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking),
                      "cudaStreamCreateWithFlags", error);
  if (good && managed == 0) {
    std::snprintf(error->text, sizeof error->text, "the GPU has no memory that the host shares");
    good = false;
  }
  if (good) {
    device->runtime = nvinfer1::createInferRuntime(device->log);
    good = device->runtime != nullptr || device->log.give(error, "createInferRuntime");
  }
  if (!good) {
    close_device(device);
    return false;
  }
  *out_device = device;
  return true;
}

void device_facts(const vlart_trt_device_t *, vlart_trt_facts_t *facts) {
  *facts = vlart_trt_facts_t{};
  std::snprintf(facts->tensorrt, sizeof facts->tensorrt, "%d.%d.%d.%d", getInferLibMajorVersion(),
                getInferLibMinorVersion(), getInferLibPatchVersion(), getInferLibBuildVersion());
  int version = 0;
  if (cudaRuntimeGetVersion(&version) == cudaSuccess) {
    std::snprintf(facts->cuda, sizeof facts->cuda, "%d.%d", version / 1000, version % 1000 / 10);
  }
  cudaDeviceProp properties = {};
  if (cudaGetDeviceProperties(&properties, 0) == cudaSuccess) {
    std::snprintf(facts->gpu, sizeof facts->gpu, "%.127s", properties.name);
    facts->compute_capability = static_cast<uint32_t>(properties.major * 10 + properties.minor);
    facts->multiprocessors = static_cast<uint32_t>(properties.multiProcessorCount);
    facts->memory_bytes = properties.totalGlobalMem;
  }
}

void release(vlart_trt_device_t *, void *memory) { cudaFree(memory); }

bool allocate(vlart_trt_device_t *device, size_t bytes, bool shared, void **out_memory,
              vlart_trt_error_t *error) {
  void *memory = nullptr;
  size_t size = bytes > 0 ? bytes : 1;
  bool good = shared ? cuda_ok(cudaMallocManaged(&memory, size, cudaMemAttachGlobal),
                               "cudaMallocManaged", error)
                     : cuda_ok(cudaMalloc(&memory, size), "cudaMalloc", error);
  if (!good) {
    return false;
  }
  if (!cuda_ok(cudaMemsetAsync(memory, 0, size, device->stream), "cudaMemsetAsync", error) ||
      !cuda_ok(cudaStreamSynchronize(device->stream), "cudaStreamSynchronize", error)) {
    cudaFree(memory);
    return false;
  }
  *out_memory = memory;
  return true;
}

bool copy(vlart_trt_device_t *device, void *to, const void *from, size_t bytes,
          vlart_trt_error_t *error) {
  return cuda_ok(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, device->stream),
                 "cudaMemcpyAsync", error);
}

bool wait(vlart_trt_device_t *device, vlart_trt_error_t *error) {
  return cuda_ok(cudaStreamSynchronize(device->stream), "cudaStreamSynchronize", error);
}

bool upload(vlart_trt_device_t *device, void *to, const void *from, size_t bytes,
            vlart_trt_error_t *error) {
  return copy(device, to, from, bytes, error) && wait(device, error);
}

void unload(vlart_trt_engine_t *engine) {
  delete engine->inspector;
  delete engine->context;
  delete engine->engine;
  delete engine;
}

bool load(vlart_trt_device_t *device, const void *data, size_t bytes,
          vlart_trt_engine_t **out_engine, vlart_trt_error_t *error) {
  device->log.forget();
  auto *engine = new (std::nothrow) vlart_trt_engine;
  if (engine == nullptr) {
    std::snprintf(error->text, sizeof error->text, "out of memory");
    return false;
  }
  engine->device = device;
  engine->engine = device->runtime->deserializeCudaEngine(data, bytes);
  if (engine->engine != nullptr) {
    engine->context = engine->engine->createExecutionContext(
        nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED);
  }
  if (engine->context == nullptr) {
    device->log.give(
        error, engine->engine == nullptr ? "deserializeCudaEngine" : "createExecutionContext");
    unload(engine);
    return false;
  }
  *out_engine = engine;
  return true;
}

uint32_t port_count(const vlart_trt_engine_t *engine) {
  return static_cast<uint32_t>(engine->engine->getNbIOTensors());
}

uint32_t dtype_of(nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT: return VLART_DTYPE_F32;
    case nvinfer1::DataType::kHALF: return VLART_DTYPE_F16;
    case nvinfer1::DataType::kBF16: return VLART_DTYPE_BF16;
    case nvinfer1::DataType::kINT8: return VLART_DTYPE_I8;
    case nvinfer1::DataType::kUINT8: return VLART_DTYPE_U8;
    case nvinfer1::DataType::kINT32: return VLART_DTYPE_I32;
    case nvinfer1::DataType::kINT64: return VLART_DTYPE_I64;
    case nvinfer1::DataType::kBOOL: return VLART_DTYPE_BOOL;
    default: return 0;
  }
}

bool port(const vlart_trt_engine_t *engine, uint32_t index, vlart_trt_port_t *out_port,
          vlart_trt_error_t *error) {
  const nvinfer1::ICudaEngine &e = *engine->engine;
  const char *name = e.getIOTensorName(static_cast<int32_t>(index));
  if (name == nullptr || e.getTensorFormat(name) != nvinfer1::TensorFormat::kLINEAR) {
    std::snprintf(error->text, sizeof error->text, "port %u (%s) is not dense and row-major", index,
                  name != nullptr ? name : "without a name");
    return false;
  }
  nvinfer1::Dims dims = e.getTensorShape(name);
  *out_port = vlart_trt_port_t{};
  out_port->name = name;
  out_port->dtype = dtype_of(e.getTensorDataType(name));
  out_port->rank = dims.nbDims < 0 ? 0 : static_cast<uint32_t>(dims.nbDims);
  out_port->output = e.getTensorIOMode(name) == nvinfer1::TensorIOMode::kOUTPUT;
  out_port->host = e.getTensorLocation(name) == nvinfer1::TensorLocation::kHOST;
  for (int32_t d = 0; d < dims.nbDims && d < 8; d++) {
    out_port->dims[d] = dims.d[d];
  }
  return true;
}

const char *layers(vlart_trt_engine_t *engine) {
  if (engine->inspector == nullptr) {
    engine->inspector = engine->engine->createEngineInspector();
  }
  return engine->inspector == nullptr
             ? nullptr
             : engine->inspector->getEngineInformation(nvinfer1::LayerInformationFormat::kJSON);
}

uint64_t scratch_bytes(const vlart_trt_engine_t *engine) {
  int64_t bytes = engine->engine->getDeviceMemorySizeV2();
  return bytes < 0 ? 0 : static_cast<uint64_t>(bytes);
}

void give_scratch(vlart_trt_engine_t *engine, void *memory, uint64_t bytes) {
  engine->context->setDeviceMemoryV2(memory, static_cast<int64_t>(bytes));
}

bool bind(vlart_trt_engine_t *engine, const char *name, void *address, vlart_trt_error_t *error) {
  engine->device->log.forget();
  return engine->context->setTensorAddress(name, address) ||
         engine->device->log.give(error, "setTensorAddress");
}

bool enqueue(vlart_trt_engine_t *engine, vlart_trt_error_t *error) {
  engine->device->log.forget();
  return engine->context->enqueueV3(engine->device->stream) ||
         engine->device->log.give(error, "enqueueV3");
}

bool begin(vlart_trt_device_t *device, vlart_trt_error_t *error) {
  return cuda_ok(cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal),
                 "cudaStreamBeginCapture", error);
}

bool end(vlart_trt_device_t *device, vlart_trt_graph_t **out_graph, vlart_trt_error_t *error) {
  cudaGraph_t recorded = nullptr;
  if (!cuda_ok(cudaStreamEndCapture(device->stream, &recorded), "cudaStreamEndCapture", error)) {
    return false;
  }
  auto *graph = new (std::nothrow) vlart_trt_graph;
  bool good =
      graph != nullptr &&
      cuda_ok(cudaGraphInstantiate(&graph->executable, recorded, 0), "cudaGraphInstantiate",
              error) &&
      cuda_ok(cudaGraphUpload(graph->executable, device->stream), "cudaGraphUpload", error) &&
      wait(device, error);
  cudaGraphDestroy(recorded);
  if (!good) {
    if (graph != nullptr && graph->executable != nullptr) {
      cudaGraphExecDestroy(graph->executable);
    }
    delete graph;
    return false;
  }
  *out_graph = graph;
  return true;
}

bool launch(vlart_trt_device_t *device, vlart_trt_graph_t *graph, vlart_trt_error_t *error) {
  return cuda_ok(cudaGraphLaunch(graph->executable, device->stream), "cudaGraphLaunch", error) &&
         wait(device, error);
}

void drop(vlart_trt_graph_t *graph) {
  cudaGraphExecDestroy(graph->executable);
  delete graph;
}

// setTensorAddress asks for 256 bytes (NvInferRuntime.h).
const vlart_trt_runtime_t table = {
    VLART_TRT_ABI, 256,           open_device,  close_device, device_facts, allocate,
    release,       upload,        load,         unload,       port_count,   port,
    layers,        scratch_bytes, give_scratch, bind,         copy,         enqueue,
    wait,          begin,         end,          launch,       drop,
};

}  // namespace

extern "C" __attribute__((visibility("default"))) const vlart_trt_runtime_t *vlart_tensorrt_runtime(
    uint32_t abi) {
  return abi == VLART_TRT_ABI ? &table : nullptr;
}
