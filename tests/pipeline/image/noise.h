#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "pipeline/image/loader.h"

namespace millrace {

/// Noise images in memory; its index is a sample's label. Some samples fail, one may wait.
class Noise final : public Dataset {
 public:
  Noise(std::int64_t size, int height, int width, int channels = 3) : size_(size) {
    info_ = {.height = height, .width = width, .channels = channels};
    std::mt19937 random(5);
    bytes_.resize(static_cast<std::size_t>(size * height * width * 3));
    for (auto& byte : bytes_) {
      byte = static_cast<std::byte>(random());
    }
  }
  std::int64_t size() const override { return size_; }
  const DatasetInfo& info() const override { return info_; }
  Sample read(std::int64_t index, std::vector<std::byte>&) const override {
    reads.fetch_add(1);
    if (std::count(failing.begin(), failing.end(), index) > 0) {
      throw InputError("cannot read {}", describe(index));
    }
    if (index == broken) {
      throw MachineError("the disk fails at {}", describe(index));
    }
    while (index == blocked && !released) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const int height = info_.height - (index == smaller ? 1 : 0);
    const auto row = static_cast<std::size_t>(info_.width * 3),
               place = static_cast<std::size_t>(index * info_.height);
    return {.bytes = std::span(bytes_).subspan(place * row, static_cast<std::size_t>(height) * row),
            .height = height,
            .width = info_.width,
            .channels = 3,
            .label = label_classes > 0 ? index % label_classes : index};
  }
  std::string describe(std::int64_t index) const override { return fmt::format("noise {}", index); }

  void name_classes(int count) { info_.classes.assign(static_cast<std::size_t>(count), "noise"); }

  std::vector<std::int64_t> failing;
  std::int64_t broken = -1;
  std::int64_t smaller = -1;       // by one row
  std::int64_t label_classes = 0;  // a label is the index modulo this, if it is not 0
  std::int64_t blocked = -1;
  mutable std::atomic<bool> released = false;
  mutable std::atomic<int> reads = 0;

 private:
  std::int64_t size_;
  DatasetInfo info_;
  std::vector<std::byte> bytes_;
};

/// All that an epoch yields, as bytes: ids, labels, pixels, padding included.
inline std::vector<std::byte> bytes_of_epoch(Loader& loader, std::int64_t epoch) {
  std::vector<std::byte> all;
  const auto append = [&all](const Tensor& tensor) {
    const auto bytes = tensor.bytes();
    all.insert(all.end(), tensor.raw(), tensor.raw() + bytes);
  };
  for (const Batch& batch : loader.epoch(epoch)) {
    for (int i = 0; i < batch.shards(); ++i) {
      append(batch.shard(i).ids());
      append(batch.shard(i).field("label"));
      append(batch.shard(i).field("image"));
      if (batch.shard(i).has_field("soft_label")) {
        append(batch.shard(i).field("soft_label"));
      }
    }
  }
  return all;
}

}  // namespace millrace
