// The same robot program in C++, with the next chunk computed while actions are executed.
//
//   control_loop_cc BUNDLE LIBONNXRUNTIME TICKS
//
// It writes zeros where a robot would write its camera frames and joint state.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "vlart/vlart.hpp"

namespace {

// Stands for the drivers: fills every source.
template <typename Policy>
void observe(const vlart::Bundle &bundle, Policy &policy) {
  const vlart_bundle_info_t info = bundle.info();
  for (std::uint32_t i = 0; i < info.source_count; i++) {
    vlart_source_info_t source{};
    source.struct_size = sizeof source;
    vlart_value_info_t value{};
    value.struct_size = sizeof value;
    vlart_bundle_source(bundle.get(), i, &source);
    vlart_bundle_value(bundle.get(), source.value, &value);
    const std::vector<std::uint8_t> zeros(value.bytes);
    switch (value.dtype) {
      case VLART_DTYPE_F32:
        policy.write(value.name, reinterpret_cast<const float *>(zeros.data()), zeros.size() / 4);
        break;
      case VLART_DTYPE_I64:
        policy.write(value.name, reinterpret_cast<const std::int64_t *>(zeros.data()),
                     zeros.size() / 8);
        break;
      case VLART_DTYPE_BOOL:
        policy.write(value.name, reinterpret_cast<const bool *>(zeros.data()), zeros.size());
        break;
      default: policy.write(value.name, zeros.data(), zeros.size());
    }
  }
}

}  // namespace

int main(int argc, char **argv) try {
  if (argc != 4) {
    std::fputs("usage: control_loop_cc BUNDLE LIBONNXRUNTIME TICKS\n", stderr);
    return 2;
  }
  vlart::Bundle bundle(argv[1]);
  vlart::Session session(bundle, {argv[2], 1});
  session.sensors(0, 1000000);  // an observation of more than a second ago is none
  vlart::AsyncSession policy(session);
  std::vector<float> action(bundle.info().action_dim);
  for (long tick = 0, executed = 0; executed < std::strtol(argv[3], nullptr, 10); tick++) {
    if (policy.info().due) {
      observe(bundle, policy);
      policy.request();
    }
    const vlart_status_t status = policy.pop(action.data(), action.size());
    if (status != VLART_STATUS_QUEUE_EMPTY) {
      executed++;
      std::printf("tick %ld, %s:", tick, vlart_status_name(status));  // here the robot moves
      for (const float number : action) {
        std::printf(" %.4f", static_cast<double>(number));
      }
      std::putchar('\n');
    }
    std::this_thread::sleep_for(
        std::chrono::milliseconds(1));  // here the robot waits for its clock
  }
  return 0;
} catch (const vlart::Error &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
