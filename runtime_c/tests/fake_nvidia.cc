// A double of libnvinfer, libnvonnxparser and libcudart over fake_tensorrt.c, so that trt_runtime.cc
// and trt_builder.cc are run, call by call, against TensorRT's own headers. The file "stubs.h" is
// generated from these headers (tests/runtime_c/nvidia_double.py): a class Stub_V... per interface,
// whose every function ends the process. What is written here is all that may be called.
#include <NvInfer.h>
#include <NvOnnxParser.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "stubs.h"
#include "tensorrt/trt_abi.h"
#include "vlart/vlart_layout.h"

extern "C" {
const vlart_trt_runtime_t *vlart_tensorrt_runtime(uint32_t abi);  // fake_tensorrt.c
const vlart_trt_builder_t *vlart_tensorrt_builder(uint32_t abi);
bool fake_tensorrt_rejects(const char *stage);
}

namespace {

using namespace nvinfer1;

const vlart_trt_runtime_t &fake() { return *vlart_tensorrt_runtime(VLART_TRT_ABI); }
vlart_trt_device_t *device = nullptr;  // one GPU
int streams = 0;
bool capturing = false;
vlart_trt_error_t last;

bool tell(ILogger *logger, const vlart_trt_error_t &error) {
  logger->log(ILogger::Severity::kERROR, error.text);
  return false;
}

// Objects hold their implementation and are told by a counter whether all were deleted.
int alive = 0;
template <class Interface, class Implementation>
struct Object : Interface {
  template <class... Arguments>
  explicit Object(Arguments... arguments) : own(arguments...) {
    this->mImpl = &own;
    alive++;
  }
  ~Object() noexcept override { alive--; }
  Implementation own;
};

struct Memory : Stub_VHostMemory {
  explicit Memory(std::string bytes) : bytes(bytes) {}
  void *data() const noexcept override { return const_cast<char *>(bytes.data()); }
  std::size_t size() const noexcept override { return bytes.size(); }
  std::string bytes;
};

// ---- runtime

struct Context : Stub_VExecutionContext {
  Context(vlart_trt_engine_t *engine, ILogger *logger) : engine(engine), logger(logger) {}
  void setDeviceMemoryV2(void *memory, int64_t bytes) noexcept override {
    fake().give_scratch(engine, memory, static_cast<uint64_t>(bytes));
  }
  bool setTensorAddress(char const *name, void *address) noexcept override {
    vlart_trt_error_t error = {};
    return fake().bind(engine, name, address, &error) || tell(logger, error);
  }
  bool enqueueV3(cudaStream_t stream) noexcept override {
    vlart_trt_error_t error = {};
    return (stream != nullptr && fake().enqueue(engine, &error)) || tell(logger, error);
  }
  vlart_trt_engine_t *engine;
  ILogger *logger;
};

struct Inspector : Stub_VEngineInspector {
  explicit Inspector(vlart_trt_engine_t *engine) : engine(engine) {}
  char const *getEngineInformation(LayerInformationFormat format) const noexcept override {
    return format == LayerInformationFormat::kJSON ? fake().layers(engine) : nullptr;
  }
  vlart_trt_engine_t *engine;
};

struct Engine : Stub_VCudaEngine {
  Engine(vlart_trt_engine_t *engine, ILogger *logger) : engine(engine), logger(logger) {}
  ~Engine() override { fake().unload(engine); }
  vlart_trt_port_t find(char const *name) const {
    vlart_trt_port_t port = {};
    vlart_trt_error_t error = {};
    for (uint32_t i = 0; i < fake().port_count(engine); i++) {
      fake().port(engine, i, &port, &error);
      if (std::strcmp(port.name, name) == 0) {
        return port;
      }
    }
    std::abort();
  }
  int32_t getNbIOTensors() const noexcept override {
    return static_cast<int32_t>(fake().port_count(engine));
  }
  char const *getIOTensorName(int32_t index) const noexcept override {
    vlart_trt_port_t port = {};
    vlart_trt_error_t error = {};
    return fake().port(engine, static_cast<uint32_t>(index), &port, &error) ? port.name : nullptr;
  }
  Dims getTensorShape(char const *name) const noexcept override {
    vlart_trt_port_t port = find(name);
    Dims dims = {};
    dims.nbDims = static_cast<int32_t>(port.rank);
    std::memcpy(dims.d, port.dims, sizeof port.dims);
    return dims;
  }
  DataType getTensorDataType(char const *name) const noexcept override {
    switch (find(name).dtype) {
      case VLART_DTYPE_F32: return DataType::kFLOAT;
      case VLART_DTYPE_F16: return DataType::kHALF;
      case VLART_DTYPE_I8: return DataType::kINT8;
      case VLART_DTYPE_I32: return DataType::kINT32;
      case VLART_DTYPE_I64: return DataType::kINT64;
      case VLART_DTYPE_U8: return DataType::kUINT8;
      case VLART_DTYPE_BOOL: return DataType::kBOOL;
      default: std::abort();
    }
  }
  TensorIOMode getTensorIOMode(char const *name) const noexcept override {
    return find(name).output ? TensorIOMode::kOUTPUT : TensorIOMode::kINPUT;
  }
  TensorLocation getTensorLocation(char const *) const noexcept override {
    return TensorLocation::kDEVICE;
  }
  TensorFormat getTensorFormat(char const *) const noexcept override {
    return TensorFormat::kLINEAR;
  }
  int64_t getDeviceMemorySizeV2() const noexcept override {
    return static_cast<int64_t>(fake().scratch_bytes(engine));
  }
  IExecutionContext *createExecutionContext(
      ExecutionContextAllocationStrategy strategy) noexcept override {
    if (strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED) {
      return nullptr;
    }
    return new Object<IExecutionContext, Context>(engine, logger);
  }
  IEngineInspector *createEngineInspector() const noexcept override {
    return new Object<IEngineInspector, Inspector>(engine);
  }
  vlart_trt_engine_t *engine;
  ILogger *logger;
};

struct Runtime : Stub_VRuntime {
  explicit Runtime(ILogger *logger) : logger(logger) {}
  ICudaEngine *deserializeCudaEngine(void const *blob, std::size_t bytes) noexcept override {
    vlart_trt_engine_t *engine = nullptr;
    vlart_trt_error_t error = {};
    if (!fake().load(device, blob, bytes, &engine, &error)) {
      tell(logger, error);
      return nullptr;
    }
    return new Object<ICudaEngine, Engine>(engine, logger);
  }
  ILogger *logger;
};

// ---- builder

struct Cache : Stub_VTimingCache {
  explicit Cache(std::string bytes) : bytes(bytes) {}
  IHostMemory *serialize() const noexcept override {
    return new Object<IHostMemory, Memory>(bytes);
  }
  std::string bytes;
};

struct Config : Stub_VBuilderConfig {
  void setMemoryPoolLimit(MemoryPoolType pool, std::size_t bytes) noexcept override {
    workspace = pool == MemoryPoolType::kWORKSPACE ? bytes : workspace;
  }
  void setBuilderOptimizationLevel(int32_t n) noexcept override { level = n; }
  void setProfilingVerbosity(ProfilingVerbosity verbosity) noexcept override {
    detailed = verbosity == ProfilingVerbosity::kDETAILED;
  }
  void setMaxAuxStreams(int32_t n) noexcept override { aux = n; }
  void setFlag(BuilderFlag flag) noexcept override { tf32 |= flag == BuilderFlag::kTF32; }
  void clearFlag(BuilderFlag flag) noexcept override { tf32 &= flag != BuilderFlag::kTF32; }
  void setProgressMonitor(IProgressMonitor *given) noexcept override { monitor = given; }
  ITimingCache *createTimingCache(void const *data, std::size_t bytes) const noexcept override {
    return new Object<ITimingCache, Cache>(std::string(static_cast<const char *>(data), bytes));
  }
  bool setTimingCache(ITimingCache const &given, bool ignore) noexcept override {
    cache = &static_cast<Object<ITimingCache, Cache> &>(const_cast<ITimingCache &>(given)).own;
    return !ignore;
  }
  std::size_t workspace = 0;
  int32_t level = -1, aux = -1;
  bool detailed = false, tf32 = true;  // TensorRT's default
  IProgressMonitor *monitor = nullptr;
  Cache *cache = nullptr;
};

struct Network : Stub_VNetworkDefinition {
  explicit Network(NetworkDefinitionCreationFlags flags) : flags(flags) {}
  void setName(char const *given) noexcept override { name = given; }
  char const *getName() const noexcept override { return name.c_str(); }
  NetworkDefinitionCreationFlags flags;
  std::string name, onnx;
};

struct Collected {
  Config *config;
  ILogger *logger;
  std::string engine;
};

struct Builder : Stub_VBuilder {
  explicit Builder(ILogger *logger) : logger(logger) {}
  INetworkDefinition *createNetworkV2(NetworkDefinitionCreationFlags flags) noexcept override {
    return new Object<INetworkDefinition, Network>(flags);
  }
  IBuilderConfig *createBuilderConfig() noexcept override {
    return new Object<IBuilderConfig, Config>();
  }
  IHostMemory *buildSerializedNetwork(INetworkDefinition &given,
                                      IBuilderConfig &options) noexcept override {
    Network &network = static_cast<Object<INetworkDefinition, Network> &>(given).own;
    Config &config = static_cast<Object<IBuilderConfig, Config> &>(options).own;
    Collected collected = {&config, logger, {}};
    vlart_trt_recipe_t recipe = {};
    recipe.onnx = network.onnx.c_str();
    recipe.name = network.name.c_str();
    recipe.flags |= network.flags & 2u ? uint32_t{VLART_BUILD_FLAG_STRONGLY_TYPED} : 0u;
    recipe.flags |= config.tf32 ? 0u : uint32_t{VLART_BUILD_FLAG_NO_TF32};
    recipe.level = static_cast<uint32_t>(config.level);
    recipe.workspace_bytes = config.workspace;
    recipe.timing_cache = config.cache->bytes.data();
    recipe.timing_cache_bytes = config.cache->bytes.size();
    vlart_trt_sink_t sink = {};
    sink.user = &collected;
    sink.engine = [](void *user, const void *data, size_t bytes) {
      static_cast<Collected *>(user)->engine.assign(static_cast<const char *>(data), bytes);
      return true;
    };
    sink.timing_cache = [](void *user, const void *data, size_t bytes) {
      static_cast<Collected *>(user)->config->cache->bytes.assign(static_cast<const char *>(data),
                                                                  bytes);
      return true;
    };
    sink.phase = [](void *user, const char *name, int32_t done, int32_t steps) {
      IProgressMonitor &monitor = *static_cast<Collected *>(user)->config->monitor;
      if (done == 0) {
        monitor.phaseStart(name, nullptr, steps);
        return;
      }
      monitor.phaseStart("inner", name, 1);
      monitor.stepComplete("inner", 0);
      monitor.phaseFinish("inner");
      monitor.stepComplete(name, done - 1);
      if (done == steps) {
        monitor.phaseFinish(name);
      }
    };
    sink.warning = [](void *user, const char *line) {
      static_cast<Collected *>(user)->logger->log(ILogger::Severity::kWARNING, line);
    };
    vlart_trt_error_t error = {};
    if (!config.detailed || config.aux < 0 ||
        !vlart_tensorrt_builder(VLART_TRT_ABI)->build(&recipe, &sink, &error)) {
      tell(logger, error);
      return nullptr;
    }
    return new Object<IHostMemory, Memory>(collected.engine);
  }
  ILogger *logger;
};

struct Error : nvonnxparser::Stub_IParserError {
  char const *desc() const noexcept override { return "no importer for it"; }
  int node() const noexcept override { return 3; }
  char const *nodeName() const noexcept override { return "mixer"; }
  char const *nodeOperator() const noexcept override { return "FakeOp"; }
};

struct Parser : nvonnxparser::Stub_IParser {
  Parser(Network &network) : network(network) { alive++; }
  ~Parser() noexcept override { alive--; }
  bool parseFromFile(const char *path, int) noexcept override {
    network.onnx = path;
    failed = fake_tensorrt_rejects(network.name.c_str());
    return !failed;
  }
  int getNbErrors() const noexcept override { return failed ? 1 : 0; }
  nvonnxparser::IParserError const *getError(int) const noexcept override { return &error; }
  Network &network;
  Error error;
  bool failed = false;
};

cudaError_t result(bool good) { return good ? cudaSuccess : cudaErrorUnknown; }

bool open() { return device != nullptr || fake().open(&device, &last); }

struct AtExit {  // of the whole process
  ~AtExit() {
    if (alive != 0 || streams != 0) {
      std::fprintf(stderr, "fake_nvidia: %d objects and %d streams were never deleted\n", alive,
                   streams);
      std::_Exit(99);
    }
    if (device != nullptr) {
      fake().close(device);
    }
  }
} at_exit;

}  // namespace

extern "C" {

void *createInferRuntime_INTERNAL(void *logger, int32_t version) noexcept {
  return version == NV_TENSORRT_VERSION ? static_cast<IRuntime *>(new Object<IRuntime, Runtime>(
                                              static_cast<ILogger *>(logger)))
                                        : nullptr;
}
void *createInferBuilder_INTERNAL(void *logger, int32_t version) noexcept {
  return version == NV_TENSORRT_VERSION ? static_cast<IBuilder *>(new Object<IBuilder, Builder>(
                                              static_cast<ILogger *>(logger)))
                                        : nullptr;
}
void *createNvOnnxParser_INTERNAL(void *network, void *, int) noexcept {
  auto *given = static_cast<INetworkDefinition *>(network);
  return static_cast<nvonnxparser::IParser *>(
      new Parser(static_cast<Object<INetworkDefinition, Network> *>(given)->own));
}

static int32_t version_part(int index) {
  int parts[4] = {};
  vlart_trt_facts_t facts = {};
  if (open()) {
    fake().facts(device, &facts);
  }
  std::sscanf(facts.tensorrt, "%d.%d.%d.%d", &parts[0], &parts[1], &parts[2], &parts[3]);
  return parts[index];
}
int32_t getInferLibMajorVersion() noexcept { return version_part(0); }
int32_t getInferLibMinorVersion() noexcept { return version_part(1); }
int32_t getInferLibPatchVersion() noexcept { return version_part(2); }
int32_t getInferLibBuildVersion() noexcept { return version_part(3); }

const char *cudaGetErrorString(cudaError_t) { return last.text; }
const char *cudaGetErrorName(cudaError_t) { return "cudaErrorDouble"; }
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrManagedMemory;
  return result(open());
}
cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = 12060;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
  vlart_trt_facts_t facts = {};
  fake().facts(device, &facts);
  std::snprintf(properties->name, sizeof properties->name, "%s", facts.gpu);
  properties->major = static_cast<int>(facts.compute_capability / 10);
  properties->minor = static_cast<int>(facts.compute_capability % 10);
  properties->multiProcessorCount = static_cast<int>(facts.multiprocessors);
  properties->totalGlobalMem = facts.memory_bytes;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  streams++;
  *stream = reinterpret_cast<cudaStream_t>(&streams);
  return result(flags == cudaStreamNonBlocking);
}
cudaError_t cudaStreamDestroy(cudaStream_t) {
  streams--;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void **memory, size_t bytes) {
  return result(fake().allocate(device, bytes, false, memory, &last));
}
cudaError_t cudaMallocManaged(void **memory, size_t bytes, unsigned flags) {
  return result(flags == cudaMemAttachGlobal &&
                fake().allocate(device, bytes, true, memory, &last));
}
cudaError_t cudaFree(void *memory) {
  fake().release(device, memory);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t) {
  std::memset(memory, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
  return result(kind == cudaMemcpyDefault &&
                (fake().copy(device, to, from, bytes, &last) ||
                 (!capturing && std::strstr(last.text, "leaves device memory") != nullptr &&
                  fake().upload(device, to, from, bytes, &last))));
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return result(fake().wait(device, &last)); }
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode mode) {
  capturing = mode == cudaStreamCaptureModeThreadLocal && fake().begin(device, &last);
  return result(capturing);
}
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph) {
  capturing = false;
  vlart_trt_graph_t *recorded = nullptr;
  bool good = fake().end(device, &recorded, &last);
  *graph = reinterpret_cast<cudaGraph_t>(recorded);
  return result(good);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph,
                                 unsigned long long flags) {
  *executable = reinterpret_cast<cudaGraphExec_t>(graph);
  return result(flags == 0);
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t) {
  return result(fake().launch(device, reinterpret_cast<vlart_trt_graph_t *>(graph), &last));
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  fake().drop(reinterpret_cast<vlart_trt_graph_t *>(graph));
  return cudaSuccess;
}

}  // extern "C"
