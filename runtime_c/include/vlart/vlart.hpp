// The C++17 face of vlart.h: ownership by scope, failures as exceptions, nothing else. Header only; link libvlart.
//
//   vlart::Bundle bundle("policy.vlab");
//   vlart::Session session(bundle, {.threads = 1});
//   session.write("observation.state", state.data(), state.size());
//   session.step();
//   std::vector<float> action = session.pop();
//
// Memory is taken when objects are made; write, step and pop take none, apart from the vector that pop() returns
// (pop(float*) takes none).
#ifndef VLART_VLART_HPP
#define VLART_VLART_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "vlart/vlart.h"

namespace vlart {

// A call failed: status() and libvlart's four lines.
class Error : public std::runtime_error {
 public:
  Error(vlart_status_t status, const vlart_diag_t &diag)
      : std::runtime_error(std::string(vlart_status_name(status)) + ": " + diag.what +
                           "\n  where: " + diag.where + "\n  why:   " + diag.why +
                           "\n  fix:   " + diag.fix),
        status_(status) {}
  vlart_status_t status() const noexcept { return status_; }

 private:
  vlart_status_t status_;
};

namespace detail {

inline vlart_diag_t fresh() {
  vlart_diag_t diag{};
  diag.struct_size = sizeof diag;
  return diag;
}

inline void check(vlart_status_t status, const vlart_diag_t &diag) {
  if (status != VLART_STATUS_OK) {
    throw Error(status, diag);
  }
}

// Whether the input is not too old; throws for everything else that is wrong.
inline bool fresh_input(vlart_status_t status, const vlart_diag_t &diag) {
  if (status != VLART_STATUS_STALE_INPUT) {
    check(status, diag);
  }
  return status == VLART_STATUS_OK;
}

template <typename T>
T sized() {
  T info{};
  info.struct_size = sizeof info;
  return info;
}

template <typename T>
constexpr std::uint32_t dtype() {
  if constexpr (std::is_same_v<T, float>) return VLART_DTYPE_F32;
  else if constexpr (std::is_same_v<T, double>) return VLART_DTYPE_F64;
  else if constexpr (std::is_same_v<T, std::uint8_t>) return VLART_DTYPE_U8;
  else if constexpr (std::is_same_v<T, std::int8_t>) return VLART_DTYPE_I8;
  else if constexpr (std::is_same_v<T, std::int32_t>) return VLART_DTYPE_I32;
  else if constexpr (std::is_same_v<T, std::int64_t>) return VLART_DTYPE_I64;
  else if constexpr (std::is_same_v<T, bool>) return VLART_DTYPE_BOOL;
  else static_assert(!sizeof(T *), "no tensor holds this type");
}

}  // namespace detail

// A validated bundle. Any thread; must outlive its sessions.
class Bundle {
 public:
  explicit Bundle(const std::string &directory, bool verify_files = true) {
    auto diag = detail::fresh();
    auto options = detail::sized<vlart_open_options_t>();
    options.skip_file_checksums = verify_files ? 0 : 1;
    std::size_t bytes = 0;
    detail::check(vlart_bundle_required_bytes(directory.c_str(), &diag, &bytes), diag);
    arena_ = std::make_unique<std::byte[]>(bytes);
    detail::check(
        vlart_bundle_open(directory.c_str(), &options, arena_.get(), bytes, &diag, &bundle_), diag);
  }
  ~Bundle() { vlart_bundle_close(bundle_); }
  Bundle(const Bundle &) = delete;
  Bundle &operator=(const Bundle &) = delete;

  const vlart_bundle_t *get() const noexcept { return bundle_; }

  vlart_bundle_info_t info() const {
    auto info = detail::sized<vlart_bundle_info_t>();
    vlart_bundle_info(bundle_, &info);
    return info;
  }

  // The source of that name and the type of its tensor. Throws Error (NOT_FOUND).
  std::uint32_t source(const std::string &name, vlart_value_info_t *out_value = nullptr) const {
    std::uint32_t index = 0;
    auto diag = detail::fresh();
    name.copy(diag.where, sizeof diag.where - 1);
    detail::check(vlart_bundle_find_source(bundle_, name.c_str(), &index), diag);
    if (out_value != nullptr) {
      auto source = detail::sized<vlart_source_info_t>();
      detail::check(vlart_bundle_source(bundle_, index, &source), diag);
      out_value->struct_size = sizeof *out_value;
      detail::check(vlart_bundle_value(bundle_, source.value, out_value), diag);
    }
    return index;
  }

  // SessionOptions::lane for the lane of that name. Throws Error (NOT_FOUND).
  std::uint32_t lane(const std::string &name) const {
    std::uint32_t index = 0;
    auto diag = detail::fresh();
    name.copy(diag.where, sizeof diag.where - 1);
    detail::check(vlart_bundle_find_lane(bundle_, name.c_str(), &index), diag);
    return 1 + index;
  }

  // The backbone of that name. Throws Error (NOT_FOUND).
  std::uint32_t backbone(const std::string &name) const {
    std::uint32_t index = 0;
    auto diag = detail::fresh();
    name.copy(diag.where, sizeof diag.where - 1);
    detail::check(vlart_bundle_find_backbone(bundle_, name.c_str(), &index), diag);
    return index;
  }

 private:
  std::unique_ptr<std::byte[]> arena_;
  vlart_bundle_t *bundle_ = nullptr;
};

// The sources of one moment. What it points to stays where it is until it was written.
class TensorSet {
 public:
  explicit TensorSet(const Bundle &bundle) : bundle_(bundle) {}

  template <typename T>
  TensorSet &add(const std::string &name, const T *data, std::size_t count) {
    values_.push_back(std::make_unique<vlart_value_info_t>());
    auto tensor = detail::sized<vlart_tensor_t>();
    tensor.source = bundle_.source(name, values_.back().get());
    tensor.dtype = detail::dtype<T>();
    tensor.rank = values_.back()->rank;
    tensor.bytes = count * sizeof(T);
    tensor.data = data;
    tensor.dims = values_.back()->dims;
    tensors_.push_back(tensor);
    return *this;
  }
  const vlart_tensor_t *data() const noexcept { return tensors_.data(); }
  std::size_t size() const noexcept { return tensors_.size(); }

 private:
  const Bundle &bundle_;
  std::vector<std::unique_ptr<vlart_value_info_t>> values_;
  std::vector<vlart_tensor_t> tensors_;
};

struct SessionOptions {
  std::string ort_library{};  // empty: the loader's
  std::uint32_t threads = 0;  // of one engine; 0: its own choice
  std::uint32_t lane = 0;     // 0: all stages; Bundle::lane(name); VLART_LANE_CONTROL
};

// One running copy of a policy; belongs to one thread at a time.
class Session {
 public:
  explicit Session(const Bundle &bundle, const SessionOptions &options = {})
      : bundle_(bundle), diag_(detail::fresh()) {
    auto given = detail::sized<vlart_session_options_t>();
    given.ort_library = options.ort_library.empty() ? nullptr : options.ort_library.c_str();
    given.threads = options.threads;
    given.lane = options.lane;
    std::size_t bytes = 0;
    detail::check(vlart_session_required_bytes(bundle.get(), &given, &diag_, &bytes), diag_);
    arena_ = std::make_unique<std::byte[]>(bytes);
    detail::check(vlart_session_init(bundle.get(), &given, arena_.get(), bytes, &diag_, &session_),
                  diag_);
  }
  ~Session() { vlart_session_close(session_); }
  Session(const Session &) = delete;
  Session &operator=(const Session &) = delete;

  vlart_session_t *get() noexcept { return session_; }
  const Bundle &bundle() const noexcept { return bundle_; }

  // `count` numbers of the source's type, dense, row-major. Throws Error; the source keeps what it had.
  template <typename T>
  void write(const std::string &name, const T *data, std::size_t count) {
    vlart_value_info_t value;
    const std::uint32_t source = bundle_.source(name, &value);
    detail::check(vlart_session_write(session_, source, data, count * sizeof(T), detail::dtype<T>(),
                                      value.rank, value.dims, &diag_),
                  diag_);
  }

  // Token ids (and their mask) of a text, by the bundle's own tokenizer or its known instructions.
  void write_text(const std::string &name, const std::string &text) {
    detail::check(vlart_session_write_text(session_, bundle_.source(name, nullptr), text.data(),
                                           text.size(), &diag_),
                  diag_);
  }

  // Which backbone is run from the next step on (vlart_backbones.h). Throws Error (NOT_FOUND).
  void select(const std::string &backbone) {
    detail::check(vlart_session_select(session_, bundle_.backbone(backbone), &diag_), diag_);
  }

  // What is taken of sensors as it comes, and how old observations may be (vlart_sensors.h); before the first write.
  void sensors(std::uint32_t accept, std::uint64_t max_age_us = 0) {
    auto options = detail::sized<vlart_sensor_options_t>();
    options.accept = accept;
    options.max_age_us = max_age_us;
    detail::check(vlart_session_sensors(session_, &options, &diag_), diag_);
  }
  void time(std::uint64_t now_us) { detail::check(vlart_session_time(session_, now_us), diag_); }
  // False: the frame is not newer than the last one; do not write it.
  bool stamp(const std::string &name, std::uint32_t sequence, std::uint64_t time_us) {
    return detail::fresh_input(
        vlart_session_stamp(session_, bundle_.source(name, nullptr), sequence, time_us, &diag_),
        diag_);
  }
  vlart_sensor_info_t sensor(const std::string &name) {
    auto info = detail::sized<vlart_sensor_info_t>();
    detail::check(vlart_session_sensor(session_, bundle_.source(name, nullptr), &info), diag_);
    return info;
  }

  // One observation, from any thread (a camera's callback): the next step takes the newest set whole. Throws Error; then
  // nothing of it was taken. observation: its name; 0: the time. time_us: when it was captured; 0: when it is taken.
  void write_all(const TensorSet &set, std::uint64_t observation = 0, std::uint64_t time_us = 0) {
    auto diag = detail::fresh();
    detail::check(
        vlart_session_write_all(session_, set.data(), set.size(), observation, time_us, &diag),
        diag);
  }
  // What the action that was handed out last was made of. Throws Error (QUEUE_EMPTY).
  vlart_action_info_t popped() const {
    auto info = detail::sized<vlart_action_info_t>();
    detail::check(vlart_session_popped(session_, &info), detail::fresh());
    return info;
  }

  void step() { detail::check(vlart_session_step(session_, &diag_), diag_); }
  void reset() { detail::check(vlart_session_reset(session_), diag_); }

  // Whether there was an action; false: write an observation and step.
  bool pop(float *action, std::size_t dim) {
    const vlart_status_t status = vlart_session_pop(session_, action, dim, &diag_);
    if (status == VLART_STATUS_QUEUE_EMPTY) {
      return false;
    }
    detail::check(status, diag_);
    return true;
  }

  std::vector<float> pop() {
    std::vector<float> action(bundle_.info().action_dim);
    if (!pop(action.data(), action.size())) {
      throw Error(VLART_STATUS_QUEUE_EMPTY, diag_);
    }
    return action;
  }

 private:
  const Bundle &bundle_;
  vlart_diag_t diag_;
  std::unique_ptr<std::byte[]> arena_;
  vlart_session_t *session_ = nullptr;
};

// A policy that computes ahead, with its worker. The control thread alone calls everything here.
class AsyncSession {
 public:
  explicit AsyncSession(Session &session, vlart_async_options_t options = {})
      : session_(session), diag_(detail::fresh()) {
    options.struct_size = sizeof options;
    std::size_t bytes = 0;
    detail::check(vlart_async_required_bytes(session.get(), &options, &diag_, &bytes), diag_);
    arena_ = std::make_unique<std::byte[]>(bytes);
    detail::check(vlart_async_init(session.get(), &options, arena_.get(), bytes, &diag_, &async_),
                  diag_);
    worker_ = std::thread([async = async_] { vlart_async_serve(async); });
  }
  ~AsyncSession() {
    vlart_async_stop(async_);
    worker_.join();
    vlart_async_close(async_);
  }
  AsyncSession(const AsyncSession &) = delete;
  AsyncSession &operator=(const AsyncSession &) = delete;

  template <typename T>
  void write(const std::string &name, const T *data, std::size_t count) {
    vlart_value_info_t value;
    const std::uint32_t source = session_.bundle().source(name, &value);
    detail::check(vlart_async_write(async_, source, data, count * sizeof(T), detail::dtype<T>(),
                                    value.rank, value.dims, &diag_),
                  diag_);
  }

  void time(std::uint64_t now_us) { detail::check(vlart_async_time(async_, now_us), diag_); }
  bool stamp(const std::string &name, std::uint32_t sequence, std::uint64_t time_us) {
    return detail::fresh_input(vlart_async_stamp(async_, session_.bundle().source(name, nullptr),
                                                 sequence, time_us, &diag_),
                               diag_);
  }
  vlart_sensor_info_t sensor(const std::string &name) {
    auto info = detail::sized<vlart_sensor_info_t>();
    detail::check(vlart_async_sensor(async_, session_.bundle().source(name, nullptr), &info),
                  diag_);
    return info;
  }

  // One observation, from any thread: the next request hands the newest set over. As Session::write_all.
  void write_all(const TensorSet &set, std::uint64_t observation = 0, std::uint64_t time_us = 0) {
    auto diag = detail::fresh();
    detail::check(
        vlart_async_write_all(async_, set.data(), set.size(), observation, time_us, &diag), diag);
  }
  vlart_action_info_t popped() const {
    auto info = detail::sized<vlart_action_info_t>();
    detail::check(vlart_async_popped(async_, &info), detail::fresh());
    return info;
  }

  // False: a source is older than it may be; the chunk goes on to its end, and then the safe action.
  bool request() { return detail::fresh_input(vlart_async_request(async_), diag_); }
  void cancel(std::uint32_t how = VLART_CANCEL_KEEP) {
    detail::check(vlart_async_cancel(async_, how), diag_);
  }

  vlart_async_info_t info() {
    auto info = detail::sized<vlart_async_info_t>();
    detail::check(vlart_async_info(async_, &info), diag_);
    return info;
  }

  // OK, DEADLINE_MISSED or SAFE_ACTION, with an action; QUEUE_EMPTY without one (until the first of an episode). Throws
  // Error for all else.
  vlart_status_t pop(float *action, std::size_t dim) {
    const vlart_status_t status = vlart_async_pop(async_, action, dim, &diag_);
    if (status != VLART_STATUS_DEADLINE_MISSED && status != VLART_STATUS_SAFE_ACTION &&
        status != VLART_STATUS_QUEUE_EMPTY) {
      detail::check(status, diag_);
    }
    return status;
  }

 private:
  Session &session_;
  vlart_diag_t diag_;
  std::unique_ptr<std::byte[]> arena_;
  vlart_async_t *async_ = nullptr;
  std::thread worker_;
};

// The sources and stages of a slower clock: step() in the lane's own thread. `session` was opened with
// SessionOptions::lane.
class Lane {
 public:
  explicit Lane(Session &session, std::uint32_t followers = 1) : diag_(detail::fresh()) {
    std::size_t bytes = 0;
    detail::check(vlart_lane_required_bytes(session.get(), followers, &diag_, &bytes), diag_);
    arena_ = std::make_unique<std::byte[]>(bytes);
    detail::check(vlart_lane_init(session.get(), followers, arena_.get(), bytes, &diag_, &lane_),
                  diag_);
  }
  Lane(const Lane &) = delete;
  Lane &operator=(const Lane &) = delete;

  // Before the threads run: the session's steps begin with what this lane handed over last.
  void lead(Session &session) {
    detail::check(vlart_session_follow(session.get(), lane_, &diag_), diag_);
  }
  // False: another episode began; write the lane's sources anew, then step.
  bool step() {
    const vlart_status_t status = vlart_lane_step(lane_, &diag_);
    if (status != VLART_STATUS_CANCELLED) {
      detail::check(status, diag_);
    }
    return status == VLART_STATUS_OK;
  }

 private:
  vlart_diag_t diag_;
  std::unique_ptr<std::byte[]> arena_;
  vlart_lane_t *lane_ = nullptr;
};

// Which backbone carries out an instruction. One thread.
class Router {
 public:
  // state: path without ending, where outcomes are kept; empty: nowhere.
  explicit Router(const std::string &table, const std::string &state = {})
      : diag_(detail::fresh()) {
    auto options = detail::sized<vlart_router_options_t>();
    options.state = state.empty() ? nullptr : state.c_str();
    std::size_t bytes = 0;
    detail::check(vlart_router_required_bytes(table.c_str(), &options, &diag_, &bytes), diag_);
    arena_ = std::make_unique<std::byte[]>(bytes);
    detail::check(vlart_router_init(table.c_str(), &options, arena_.get(), bytes, &diag_, &router_),
                  diag_);
  }
  Router(const Router &) = delete;
  Router &operator=(const Router &) = delete;

  // The name, as Session::select takes it.
  std::string decide(const std::string &instruction, const std::vector<float> &embedding = {}) {
    auto decision = detail::sized<vlart_decision_t>();
    detail::check(vlart_router_decide(
                      router_, instruction.c_str(), embedding.empty() ? nullptr : embedding.data(),
                      static_cast<std::uint32_t>(embedding.size()), &diag_, &decision),
                  diag_);
    return vlart_router_backbone(router_, decision.backbone);
  }
  // How the episode of the last decision ended; on disk when this returns.
  void report_outcome(bool success) {
    detail::check(vlart_router_report_outcome(router_, success ? 1 : 0, &diag_), diag_);
  }

 private:
  vlart_diag_t diag_;
  std::unique_ptr<std::byte[]> arena_;
  vlart_router_t *router_ = nullptr;
};

}  // namespace vlart

#endif
