#include "pipeline/training/feeder.h"

#include "tensor/kernels/launch.h"
#include "tensor/kernels/pixels.h"

namespace millrace {

Batch Feeder::bring(const Batch& batch, int i) {
  const Slab& slab = batch.shard(i);
  if (slab.ids().device() == device_) {  // it is there: on the CPU always
    idle_.resume(current_stream(device_));
    return batch.share(i);
  }
  const Stream compute = current_stream(device_);
  Place& place = place_for(slab);
  place.used.make_wait(stream_);
  {
    const StreamGuard guard(stream_);
    place.slab->copy_from(slab);
  }
  place.arrived.record(stream_);
  place.arrived.make_wait(compute);
  idle_.resume(compute);
  return Batch(place.slab->with_field("image", numbers(*place.slab)), batch);
}

void Feeder::done() { places_[last_].used.record(current_stream(device_)); }

/// The place whose turn it is, made anew where a slab of another form comes.
Feeder::Place& Feeder::place_for(const Slab& slab) {
  last_ = 1 - last_;
  Place& place = places_[last_];
  if (!place.slab || !place.slab->has_form_of(slab)) {
    place.slab.emplace(slab.samples(), slab.fields(), device_);
    place.used.record(current_stream(device_));  // it is there once that stream has allocated it
  }
  return place;
}

Tensor Feeder::numbers(const Slab& slab) {
  const Tensor& images = slab.field("image");
  if (images.dtype() != DType::u8) {
    return images.to(dtype_);
  }
  if (host_scale_ != slab.pixel_scale) {
    host_scale_ = slab.pixel_scale;
    scale_ = {host_scale_->scale.to(device_), host_scale_->bias.to(device_)};
  }
  Tensor out =
      empty(images.shape(), {.dtype = dtype_, .device = device_, .format = MemoryFormat::channels_last});
  MILLRACE_LAUNCH(device_, normalize_pixels, images, scale_.scale, scale_.bias, out);
  return out;
}

}  // namespace millrace
