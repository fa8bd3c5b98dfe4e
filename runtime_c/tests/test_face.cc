// vlart.hpp on the sample bundles: backbones, lanes and a router. Usage: test_face SAMPLES LIBONNXRUNTIME STATE.
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
  lanes(argv[1], argv[2]);
  router(argv[1], argv[3]);
  std::puts("test_face: passed");
  return 0;
}
