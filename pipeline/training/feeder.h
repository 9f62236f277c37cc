#pragma once

#include <array>
#include <memory>
#include <optional>

#include "pipeline/image/loader.h"
#include "tensor/gpu/idle_clock.h"

namespace millrace {

/// Brings shards of batches to a GPU on a stream of its own: two copies of a slab there are filled in turn,
/// so that one travels while the network computes on the other. A shard that is there already is used as it
/// is.
class Feeder {
 public:
  /// Images become `dtype`: bytes are normalized on the device, numbers converted.
  Feeder(Device device, DType dtype) : device_(device), dtype_(dtype), stream_(Stream::make(device)) {}

  /// Shard i of `batch` on the device, for what the current stream gets from now on, until the next but one
  /// is brought.
  Batch bring(const Batch& batch, int i);
  /// What was brought last is no longer needed by what the current stream gets from now on.
  void done();
  /// The step that used what was brought ends with what the current stream holds now.
  void end_step() { idle_.pause(current_stream(device_)); }
  /// How long the device had nothing to do from a step's end to the next one's first shard: neither the shard
  /// nor the host was there in time. Of the steps that are done.
  double idle_seconds() { return idle_.seconds(); }
  /// Where it travels.
  const Stream& stream() const { return stream_; }

 private:
  struct Place {
    std::optional<Slab> slab;
    Event arrived, used;
  };
  Place& place_for(const Slab& slab);
  Tensor numbers(const Slab& slab);

  Device device_;
  DType dtype_;
  Stream stream_;
  std::array<Place, 2> places_;
  std::size_t last_ = 0;
  std::shared_ptr<const PixelScale> host_scale_;
  PixelScale scale_;  // the same on the device
  IdleClock idle_;
};

}  // namespace millrace
