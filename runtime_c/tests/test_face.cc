// vlart.hpp on the sample bundles: backbones, observations, lanes and a router. Usage: test_face SAMPLES LIBONNXRUNTIME STATE.
#include <string>

#include "check.h"
#include "vlart/vlart.hpp"

template <typename Call>
vlart_status_t status_of(Call call) {
  try {
    call();
  } catch (const vlart::Error &error) {
    return error.status();
  }
  return VLART_STATUS_OK;
}

static void write(vlart::Session &session, const char *name, std::uint8_t byte,
                  std::size_t count = 3) {
  const std::vector<std::uint8_t> data(count, byte);
  session.write(name, data.data(), data.size());
}

static void backbones(const std::string &samples, const std::string &ort) {
  vlart::Bundle bundle(samples + "/paired");
  vlart::Session session(bundle, {ort, 1});
  write(session, "image", 5);
  write(session, "words", 1);
  session.step();
  CHECK(session.pop()[0] == 6.0f);
  session.select("heavy");
  write(session, "touch", 2);
  session.step();
  CHECK(session.pop()[0] == 7.0f);
  CHECK(status_of([&] { session.select("middle"); }) == VLART_STATUS_NOT_FOUND);
}

static void observations(const std::string &samples, const std::string &ort) {
  vlart::Bundle bundle(samples + "/paired");
  vlart::Session session(bundle, {ort, 1});
  const std::vector<std::uint8_t> image(3, 5), words(3, 1), few(2, 9);
  CHECK(status_of([&] { session.popped(); }) == VLART_STATUS_QUEUE_EMPTY);
  session.write_all(
      vlart::TensorSet(bundle).add("image", image.data(), 3).add("words", words.data(), 3), 17);
  CHECK(status_of([&] {
          session.write_all(
              vlart::TensorSet(bundle).add("image", words.data(), 3).add("words", few.data(), 2),
              18);
        }) == VLART_STATUS_WRONG_SHAPE);
  session.step();
  CHECK(session.pop()[0] == 6.0f && session.popped().observation == 17);
  vlart::Session other(bundle, {ort, 1});
  vlart::AsyncSession control(other);
  control.write_all(
      vlart::TensorSet(bundle).add("image", image.data(), 3).add("words", words.data(), 3), 19);
  CHECK(control.request());
  while (control.info().remaining == 0) {
  }
  float action[3];
  CHECK(control.pop(action, 3) == VLART_STATUS_OK && control.popped().observation == 19);
}

static void lanes(const std::string &samples, const std::string &ort) {
  vlart::Bundle bundle(samples + "/laned");
  vlart::Session slow(bundle, {ort, 1, bundle.lane("slow")}),
      control(bundle, {ort, 1, VLART_LANE_CONTROL});
  vlart::Lane lane(slow);
  lane.lead(control);
  write(slow, "view", 10, 4096);
  lane.step();
  write(control, "state", 1);
  control.step();
  CHECK(control.pop()[0] == 21.0f);  // latent, state and the least of the view
  control.reset();
  CHECK(status_of([&] { control.step(); }) == VLART_STATUS_SOURCE_UNSET);
  CHECK(!lane.step());  // the view may be of the last episode
  write(slow, "view", 20, 4096);
  CHECK(lane.step());
  CHECK(status_of([&] { control.step(); }) == VLART_STATUS_SOURCE_UNSET);  // so may its state
  write(control, "state", 1);
  control.step();
  CHECK(control.pop()[0] == 41.0f);
  CHECK(status_of([&] { bundle.lane("fast"); }) == VLART_STATUS_NOT_FOUND);
}

static void router(const std::string &samples, const std::string &state) {
  vlart::Router routing(samples + "/routing/table.bin", state);
  CHECK(!routing.decide("put the bowl on the plate").empty());
  routing.report_outcome(true);
  CHECK(status_of([&] { routing.report_outcome(true); }) != VLART_STATUS_OK);  // once per decision
  CHECK(status_of([&] { vlart::Router none(samples + "/none.bin"); }) == VLART_STATUS_IO);
}

int main(int argc, char **argv) {
  CHECK(argc == 4);
  backbones(argv[1], argv[2]);
  observations(argv[1], argv[2]);
  lanes(argv[1], argv[2]);
  router(argv[1], argv[3]);
  std::puts("test_face: passed");
  return 0;
}
