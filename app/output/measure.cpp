#include "app/output/measure.h"

#include <algorithm>
#include <fmt/core.h>
#include <fstream>

namespace millrace::app {

double Measurement::median() const {
  if (images_per_second.empty()) {
    return 0;
  }
  std::vector<double> sorted = images_per_second;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

double Measurement::spread() const {
  if (images_per_second.empty()) {
    return 0;
  }
  const auto [low, high] = std::minmax_element(images_per_second.begin(), images_per_second.end());
  return (*high - *low) / median();
}

std::string Measurement::to_string() const {
  return fmt::format("{} images/s (spread {:.1f} % over {} repeats)", with_commas(median()), 100 * spread(),
                     images_per_second.size());
}

ResidentMemory resident_memory() {
  ResidentMemory memory;
  std::ifstream status("/proc/self/status");
  for (std::string name; status >> name;) {  // "VmRSS:   21984 kB"
    std::int64_t* const place = name == "VmRSS:" ? &memory.now : name == "VmHWM:" ? &memory.most : nullptr;
    if (place != nullptr && status >> *place) {
      *place *= 1024;
    }
  }
  return memory;
}

std::string with_commas(double value) {
  std::string digits = fmt::format("{:.0f}", value);
  for (auto place = static_cast<std::ptrdiff_t>(digits.size()) - 3; place > (digits[0] == '-' ? 1 : 0);
       place -= 3) {
    digits.insert(static_cast<std::size_t>(place), 1, ',');
  }
  return digits;
}

}  // namespace millrace::app
