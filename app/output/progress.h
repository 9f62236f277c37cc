#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace millrace::app {

/// A bar on a terminal, redrawn at most ten times a second; nothing elsewhere.
class Progress {
 public:
  Progress(std::string title, std::int64_t steps);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `images` and `loss`, where there is one, are over the steps so far.
  void update(std::int64_t step, std::int64_t images, std::optional<double> loss = {});
  /// Wipes the bar, so that a line can be printed.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  std::string title_;
  std::int64_t steps_;
  bool on_terminal_;
  bool drawn_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point next_ = start_;
};

}  // namespace millrace::app
