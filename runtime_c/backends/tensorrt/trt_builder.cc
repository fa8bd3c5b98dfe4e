// libvlart_tensorrt_builder.so: makes one engine from one ONNX file with NVIDIA's parser and builder.
// Compiled against TensorRT's headers (10.3 with CUDA 12.6, 10.16 with CUDA 13.2); never run on a
// board. Called in a process of its own per engine (tools/vlart_build.c), so what NVIDIA's builder
// keeps or breaks ends with it. NvOnnxParser.h catches exceptions, so this file has them; none leaves.
#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <cstdio>
#include <memory>

#include "trt_abi.h"
#include "vlart/vlart_layout.h"

namespace {

class Log : public nvinfer1::ILogger {
 public:
  explicit Log(const vlart_trt_sink_t &sink) : sink_(sink) {}
  void log(Severity severity, const char *message) noexcept override {
    if (severity <= Severity::kERROR) {
      std::snprintf(last_, sizeof last_, "%s", message);
    } else if (severity == Severity::kWARNING) {
      sink_.warning(sink_.user, message);
    }
  }
  bool give(vlart_trt_error_t *error, const char *call) const {
    std::snprintf(error->text, sizeof error->text, "%s: %s", call,
                  last_[0] != '\0' ? last_ : "it gives no reason");
    return false;
  }

 private:
  const vlart_trt_sink_t &sink_;
  char last_[440] = {};
};

// Tells the steps of the outermost phase; the inner ones would run over the screen.
class Progress : public nvinfer1::IProgressMonitor {
 public:
  explicit Progress(const vlart_trt_sink_t &sink) : sink_(sink) {}
  void phaseStart(const char *name, const char *parent, int32_t steps) noexcept override {
    if (parent == nullptr) {
      steps_ = steps;
      sink_.phase(sink_.user, name, 0, steps);
    } else {
      inner_++;
    }
  }
  bool stepComplete(const char *name, int32_t step) noexcept override {
    if (inner_ == 0) {
      sink_.phase(sink_.user, name, step + 1, steps_);
    }
    return true;
  }
  void phaseFinish(const char *) noexcept override { inner_ -= inner_ > 0; }

 private:
  const vlart_trt_sink_t &sink_;
  int32_t steps_ = 0;
  int32_t inner_ = 0;
};

bool refused(const nvonnxparser::IParser &parser, const Log &log, vlart_trt_error_t *error) {
  if (parser.getNbErrors() == 0) {
    return log.give(error, "parseFromFile");
  }
  const nvonnxparser::IParserError &first = *parser.getError(0);
  std::snprintf(error->text, sizeof error->text, "node %d \"%s\" (%s): %s", first.node(),
                first.nodeName(), first.nodeOperator(), first.desc());
  return false;
}

void configure(nvinfer1::IBuilderConfig &config, const vlart_trt_recipe_t &recipe) {
  config.setMemoryPoolLimit(nvinfer1::MemoryPoolType::kWORKSPACE, recipe.workspace_bytes);
  config.setBuilderOptimizationLevel(static_cast<int32_t>(recipe.level));
  config.setProfilingVerbosity(nvinfer1::ProfilingVerbosity::kDETAILED);
  config.setMaxAuxStreams(static_cast<int32_t>(recipe.aux_streams));
  if ((recipe.flags & VLART_BUILD_FLAG_NO_TF32) != 0) {
    config.clearFlag(nvinfer1::BuilderFlag::kTF32);
  } else {
    config.setFlag(nvinfer1::BuilderFlag::kTF32);
  }
}

// A cache of another TensorRT or GPU is refused by the library; then a new one is begun.
std::unique_ptr<nvinfer1::ITimingCache> use_cache(nvinfer1::IBuilderConfig &config,
                                                  const vlart_trt_recipe_t &recipe) {
  std::unique_ptr<nvinfer1::ITimingCache> cache;
  if (recipe.timing_cache != nullptr) {
    cache.reset(config.createTimingCache(recipe.timing_cache, recipe.timing_cache_bytes));
  }
  if (cache == nullptr || !config.setTimingCache(*cache, false)) {
    cache.reset(config.createTimingCache(nullptr, 0));
    if (cache != nullptr && !config.setTimingCache(*cache, false)) {
      cache.reset();
    }
  }
  return cache;
}

bool save_cache(const nvinfer1::ITimingCache *cache, const vlart_trt_sink_t &sink,
                vlart_trt_error_t *error) {
  std::unique_ptr<nvinfer1::IHostMemory> bytes(cache != nullptr ? cache->serialize() : nullptr);
  if (bytes != nullptr && !sink.timing_cache(sink.user, bytes->data(), bytes->size())) {
    std::snprintf(error->text, sizeof error->text, "the timing cache cannot be written");
    return false;
  }
  return true;
}

bool build(const vlart_trt_recipe_t *recipe, const vlart_trt_sink_t *sink,
           vlart_trt_error_t *error) noexcept {
  Log log(*sink);
  Progress progress(*sink);
  std::unique_ptr<nvinfer1::IBuilder> builder(nvinfer1::createInferBuilder(log));
  if (builder == nullptr) {
    return log.give(error, "createInferBuilder");
  }
  uint32_t typed =
      (recipe->flags & VLART_BUILD_FLAG_STRONGLY_TYPED) != 0
          ? 1u << static_cast<uint32_t>(nvinfer1::NetworkDefinitionCreationFlag::kSTRONGLY_TYPED)
          : 0u;
  std::unique_ptr<nvinfer1::INetworkDefinition> network(builder->createNetworkV2(typed));
  std::unique_ptr<nvinfer1::IBuilderConfig> config(builder->createBuilderConfig());
  if (network == nullptr || config == nullptr) {
    return log.give(error, "createNetworkV2");
  }
  network->setName(recipe->name);
  std::unique_ptr<nvonnxparser::IParser> parser(nvonnxparser::createParser(*network, log));
  if (parser == nullptr) {
    return log.give(error, "createParser");
  }
  if (!parser->parseFromFile(recipe->onnx,
                             static_cast<int>(nvinfer1::ILogger::Severity::kWARNING))) {
    return refused(*parser, log, error);
  }
  configure(*config, *recipe);
  config->setProgressMonitor(&progress);
  std::unique_ptr<nvinfer1::ITimingCache> cache = use_cache(*config, *recipe);
  std::unique_ptr<nvinfer1::IHostMemory> engine(builder->buildSerializedNetwork(*network, *config));
  if (engine == nullptr) {
    return log.give(error, "buildSerializedNetwork");
  }
  if (!save_cache(cache.get(), *sink, error)) {
    return false;
  }
  if (!sink->engine(sink->user, engine->data(), engine->size())) {
    std::snprintf(error->text, sizeof error->text, "the engine cannot be written");
    return false;
  }
  return true;
}

const vlart_trt_builder_t table = {VLART_TRT_ABI, build};

}  // namespace

extern "C" __attribute__((visibility("default"))) const vlart_trt_builder_t *vlart_tensorrt_builder(
    uint32_t abi) {
  return abi == VLART_TRT_ABI ? &table : nullptr;
}
