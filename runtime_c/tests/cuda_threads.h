// Runs kernels of CUDA's language on this processor, one thread at a time, so that what TVM writes for a
// GPU can be executed without one. A thread gives way at a barrier of its block or its warp; a block is
// over when all its threads are. What kernels may use is what is here: indices, barriers, shuffles, memory of
// a block, and single precision.
//
// `__shared__` becomes `static` in the text (tests/compiler/emit/tvm/cuda_kernels.py): only one block runs at a time.
#ifndef VLART_CUDA_THREADS_H
#define VLART_CUDA_THREADS_H

#include <ucontext.h>
#include <vector_functions.h>  // of CUDA: float2, make_float2, ...

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

using std::max;
using std::min;

#undef __global__
#undef __device__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __expf expf

struct Index {
  unsigned x, y, z;
};

static Index threadIdx, blockIdx;

namespace cuda_threads {

constexpr std::size_t kStackBytes = 64 * 1024;
constexpr std::size_t kWarp = 32;

enum class Waits { kNo, kForBlock, kForWarp, kOver };

struct Thread {
  ucontext_t at;
  Waits waits;
  std::uint64_t shown;  // to the other threads of its warp
};

static std::vector<Thread> threads;
static std::size_t current;
static ucontext_t scheduler;
static void (*entry)(void **);
static void **arguments;

static void begin() {
  entry(arguments);
  threads[current].waits = Waits::kOver;
}

static void wait(Waits what) {
  threads[current].waits = what;
  swapcontext(&threads[current].at, &scheduler);
}

// Lets the threads of a range go on where all that are left have come to the same barrier.
static bool release(std::size_t first, std::size_t last, Waits what) {
  bool all = true, any = false;
  for (std::size_t i = first; i < last; i++) {
    all = all && (threads[i].waits == what || threads[i].waits == Waits::kOver);
    any = any || threads[i].waits == what;
  }
  for (std::size_t i = first; all && i < last; i++) {
    threads[i].waits = threads[i].waits == what ? Waits::kNo : threads[i].waits;
  }
  return all && any;
}

static bool run_once(const unsigned block[3]) {
  bool ran = false;
  for (current = 0; current < threads.size(); current++) {
    if (threads[current].waits == Waits::kNo) {
      unsigned i = static_cast<unsigned>(current);
      threadIdx = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]};
      swapcontext(&scheduler, &threads[current].at);
      ran = true;
    }
  }
  for (std::size_t i = 0; i < threads.size(); i += kWarp) {
    ran = release(i, min(i + kWarp, threads.size()), Waits::kForWarp) || ran;
  }
  return release(0, threads.size(), Waits::kForBlock) || ran;
}

static void run_block(const unsigned block[3], std::vector<char> &stacks) {
  for (std::size_t i = 0; i < threads.size(); i++) {
    threads[i].waits = Waits::kNo;
    getcontext(&threads[i].at);
    threads[i].at.uc_stack.ss_sp = &stacks[i * kStackBytes];
    threads[i].at.uc_stack.ss_size = kStackBytes;
    threads[i].at.uc_link = &scheduler;
    makecontext(&threads[i].at, begin, 0);
  }
  while (run_once(block)) {
  }
  for (const Thread &thread : threads) {
    if (thread.waits != Waits::kOver) {
      std::abort();  // a barrier that not all threads come to
    }
  }
}

}  // namespace cuda_threads

static void __syncthreads() { cuda_threads::wait(cuda_threads::Waits::kForBlock); }

static unsigned __activemask() { return ~0u; }

// Every thread of a warp shows a number and takes the one of thread `from`.
template <typename T>
static T exchange(T value, std::size_t from) {
  using namespace cuda_threads;
  static_assert(sizeof(T) <= sizeof(std::uint64_t), "one register or two");
  std::memcpy(&threads[current].shown, &value, sizeof value);
  wait(Waits::kForWarp);
  std::memcpy(&value, &threads[min(from, threads.size() - 1)].shown, sizeof value);
  wait(Waits::kForWarp);
  return value;
}

template <typename T>
static T __shfl_down_sync(unsigned, T value, unsigned delta, int width) {
  std::size_t at = cuda_threads::current, group = static_cast<std::size_t>(width);
  return exchange(value, at % group + delta < group ? at + delta : at);
}

template <typename T>
static T __shfl_sync(unsigned, T value, int lane, int width) {
  std::size_t at = cuda_threads::current, group = static_cast<std::size_t>(width);
  return exchange(value, at / group * group + static_cast<std::size_t>(lane));
}

static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

extern "C" void launch(void (*call)(void **), void **given, const unsigned grid[3],
                       const unsigned block[3]) {
  using namespace cuda_threads;
  threads.assign(static_cast<std::size_t>(block[0]) * block[1] * block[2], Thread{});
  std::vector<char> stacks(threads.size() * kStackBytes);
  entry = call;
  arguments = given;
  for (blockIdx.z = 0; blockIdx.z < grid[2]; blockIdx.z++) {
    for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++) {
      for (blockIdx.x = 0; blockIdx.x < grid[0]; blockIdx.x++) {
        run_block(block, stacks);
      }
    }
  }
}

#endif
