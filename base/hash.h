#pragma once

#include <cstdint>
#include <string_view>

namespace millrace {

/// A running 64-bit hash (FNV-1a) for fingerprints of data sets, the same on every machine; against
/// accidents, not against attackers.
class Hash {
 public:
  Hash& add(std::int64_t value) {
    for (int shift = 0; shift < 64; shift += 8) {
      byte(static_cast<std::uint8_t>(value >> shift));
    }
    return *this;
  }
  /// The length counts as well, so that "ab", "c" differs from "a", "bc".
  Hash& add(std::string_view text) {
    add(static_cast<std::int64_t>(text.size()));
    for (const char c : text) {
      byte(static_cast<std::uint8_t>(c));
    }
    return *this;
  }
  std::uint64_t value() const { return value_; }

 private:
  void byte(std::uint8_t b) { value_ = (value_ ^ b) * 0x100000001B3u; }

  std::uint64_t value_ = 0xCBF29CE484222325u;
};

}  // namespace millrace
