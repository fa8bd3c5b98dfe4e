// ExecuTorch's part of `runtimes.py`, in C++ because its Python binding loads PyTorch. The protocol is that of
// `runtime_worker.py`. Arguments: a .pte file, raw fp32 inputs, their number, dimensions ("1,50,384").
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

using executorch::extension::Module;

// The package has the library without this header: declarations of the functions used.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool *get_threadpool();
}  // namespace executorch::extension::threadpool

static double resident_mb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmRSS:", 0) == 0) return std::atof(line.c_str() + 6) / 1024;
  return 0;
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  std::vector<executorch::aten::SizesType> shape;
  std::stringstream dims(argv[4]);
  size_t length = 1, at = 0, rows = std::strtoul(argv[3], nullptr, 10);
  for (std::string d; std::getline(dims, d, ','); length *= shape.back()) shape.push_back(std::atoi(d.c_str()));
  std::vector<float> inputs(length * rows), into(length);
  std::ifstream file(argv[2], std::ios::binary);
  if (!file.read(reinterpret_cast<char *>(inputs.data()), std::streamsize(4 * inputs.size()))) return 3;
  executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(1);
  Module module(argv[1], Module::LoadMode::Mmap);
  auto tensor = executorch::extension::from_blob(into.data(), shape);
  auto call = [&](size_t row) {
    std::memcpy(into.data(), inputs.data() + row * length, 4 * length);
    auto result = module.forward(tensor);
    if (!result.ok()) std::exit(4);
    return (*result)[0].toTensor();
  };
  auto last = call(0);
  auto answer = [&] {
    std::printf("\"last\": [");
    for (ssize_t i = 0; i < last.numel(); i++) std::printf("%s%.9g", i ? ", " : "", last.const_data_ptr<float>()[i]);
    std::printf("]}\n");
    std::fflush(stdout);
  };
  std::printf("{");
  answer();
  char line[64];
  while (std::fgets(line, sizeof line, stdin)) {
    std::printf("{\"us\": [");
    for (long i = 0, n = std::atol(line); i < n; i++) {
      auto began = std::chrono::steady_clock::now();
      last = call(++at % rows);
      double us = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - began).count();
      std::printf("%s%.3f", i ? ", " : "", us);
    }
    std::printf("], \"rss_mb\": %.2f, ", resident_mb());
    answer();
  }
}
