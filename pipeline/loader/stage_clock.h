#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "pipeline/loader/trace.h"

namespace millrace {

/// What a worker does with a sample: bring its bytes into memory, turn them into pixels, transform and write
/// these into the slab.
enum class Stage : std::uint8_t { read, decode, write };
inline constexpr std::array<const char*, 3> kStageNames = {"read", "decode", "write"};

/// Where one thread's time goes, in cache lines of its own. That thread counts; any may read.
class alignas(64) StageClock {
 public:
  using Clock = std::chrono::steady_clock;

  /// Also shows each stage of each sample that is timed alone.
  void show_on(Trace::Track& track) { track_ = &track; }
  Trace::Track* track() const { return track_; }

  /// From here on the time counts, `weight` times because that many samples are represented by this one; or
  /// not at all with weight 0.
  void begin(std::int64_t weight) {
    weight_ = weight;
    if (weight > 0) {
      last_ = Clock::now();
    }
  }
  /// `begin` for one of so many samples, in place of the others too; not at all for these.
  void begin_one_of(std::int64_t every) { begin(turn_++ % every == 0 ? every : 0); }
  /// The time since `begin` or the last lap went into `stage`.
  void lap(Stage stage, std::int64_t sample) {
    if (weight_ == 0) {
      return;
    }
    const Clock::time_point now = Clock::now();
    add(nanoseconds_[static_cast<std::size_t>(stage)],
        weight_ * std::chrono::nanoseconds(now - last_).count());
    if (track_ != nullptr && weight_ == 1) {
      track_->add(kStageNames[static_cast<std::size_t>(stage)], last_, now, "sample", sample);
    }
    last_ = now;
  }
  void count(std::int64_t samples, std::int64_t bytes) {
    add(samples_, samples);
    add(bytes_, bytes);
  }

  double seconds(Stage stage) const {
    return 1e-9 * static_cast<double>(nanoseconds_[static_cast<std::size_t>(stage)].load());
  }
  std::int64_t samples() const { return samples_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  using Counter = std::atomic<std::int64_t>;

  static void add(Counter& counter, std::int64_t value) {  // one thread writes: no locked addition
    counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
  }

  std::array<Counter, kStageNames.size()> nanoseconds_{};
  Counter samples_ = 0, bytes_ = 0;
  std::int64_t weight_ = 0, turn_ = 0;
  Clock::time_point last_;
  Trace::Track* track_ = nullptr;
};

}  // namespace millrace
