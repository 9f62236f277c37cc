#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace millrace::app {

/// Repeated measurements of a speed: their median, and their spread as (largest - smallest) / median.
struct Measurement {
  std::vector<double> images_per_second;
  double median() const;
  double spread() const;
  /// "24,310 images/s (spread 3.1 % over 5 repeats)"
  std::string to_string() const;
};

/// Of this process, in bytes; 0 where the system does not say.
struct ResidentMemory {
  std::int64_t now = 0, most = 0;
};
ResidentMemory resident_memory();

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// 24310.4 as "24,310".
std::string with_commas(double value);

}  // namespace millrace::app
