#include "pipeline/training/shard_recording.h"

namespace millrace {

ShardRecording::LossKind::LossKind(const LossFunction& loss) : type(loss.target_type()) {
  if (const auto* pointer = loss.target<decltype(function)>()) {
    function = *pointer;
  }
}

Tensor ShardRecording::run(const Batch& batch, const LossFunction& loss, const Pass& pass) {
  const Slab& slab = batch.shard(0);
  if (slab.valid < slab.samples()) {
    return pass(batch);
  }
  const LossKind kind(loss);
  if (!form_ || kind_ != kind || !form_->has_form_of(slab)) {
    *this = ShardRecording();
    form_ = slab;
    kind_ = kind;
  }
  const std::vector<Tensor> inputs = slab.tensors();
  if (recording_.launches() > 0) {
    recording_.replay(inputs);
    return loss_;
  }
  if (!warm_ || refused_) {
    warm_ = true;
    return pass(batch);
  }
  loss_ = empty({}, {.dtype = DType::f64});
  refused_ = !recording_.record(inputs, [&] { loss_.copy_(pass(batch)); });
  return loss_;
}

void ShardRecording::forget() {
  recording_ = Recording();
  warm_ = false;
}

}  // namespace millrace
