#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>

namespace millrace::cuda {

/// Sizes, types and options that something was made for; unused places are 0.
using ShapeKey = std::array<std::int64_t, 28>;

struct ShapeKeyHash {
  std::size_t operator()(const ShapeKey& key) const {
    std::uint64_t hash = 0;
    for (const std::int64_t word : key) {
      hash = (hash ^ static_cast<std::uint64_t>(word)) * 0x9E3779B97F4A7C15u;
      hash ^= hash >> 32;
    }
    return hash;
  }
};

/// Entries made once per shape, for one thread; starts anew when shapes keep changing.
template <typename Entry>
class ShapeCache {
 public:
  template <typename Make>
  Entry& find(const ShapeKey& key, Make&& make) {
    if (const auto place = entries_.find(key); place != entries_.end()) {
      return *place->second;
    }
    auto entry = std::make_unique<Entry>(make());
    if (entries_.size() == kMostEntries) {
      entries_.clear();
    }
    return *entries_.emplace(key, std::move(entry)).first->second;
  }
  void clear() { entries_.clear(); }

 private:
  static constexpr std::size_t kMostEntries = 1024;
  std::unordered_map<ShapeKey, std::unique_ptr<Entry>, ShapeKeyHash> entries_;
};

}  // namespace millrace::cuda
