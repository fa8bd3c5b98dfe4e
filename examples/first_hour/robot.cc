#include <cstdio>
#include <vector>
#include <vlart/vlart.hpp>

int main(int, char **argv) try {
  vlart::Bundle bundle(argv[1]);
  vlart::Session policy(bundle, {argv[2], 1});
  std::vector<std::uint8_t> image(96 * 96 * 3, 128);
  std::vector<float> state(7, 0.5f);
  for (int replan = 0; replan < 2; replan++) {
    policy.write("image", image.data(), image.size());  // here the camera's frame
    policy.write("state", state.data(), state.size());
    policy.step();
    for (int tick = 0; tick < 2; tick++) {
      for (float number : policy.pop()) {
        std::printf("%7.3f", number);  // here the robot moves
      }
      std::putchar('\n');
    }
  }
} catch (const vlart::Error &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
