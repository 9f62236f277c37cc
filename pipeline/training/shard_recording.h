#pragma once

#include <functional>
#include <optional>
#include <typeindex>

#include "pipeline/training/trainer.h"
#include "tensor/kernels/recording.h"

namespace millrace {

/// A replica's pass over a shard, kernels alone: recorded once, replayed for every full shard of the same
/// form. The first pass is never the one: it makes what later ones find.
class ShardRecording {
 public:
  /// The whole pass: gradients in their places, and the loss, one number.
  using Pass = std::function<Tensor(const Batch&)>;

  /// The loss of `batch`, one shard, by `pass` or by what was recorded of it. With another loss function, as
  /// far as can be told, it is recorded anew.
  Tensor run(const Batch& batch, const LossFunction& loss, const Pass& pass);
  /// What `pass` does may have changed. A pass that was refused once is not tried again.
  void forget();

 private:
  struct LossKind {
    explicit LossKind(const LossFunction& loss);
    bool operator==(const LossKind&) const = default;
    std::type_index type;
    Variable (*function)(nn::Module&, const Batch&) = nullptr;  // where it is one
  };

  std::optional<Slab> form_;  // of the shards seen so far
  std::optional<LossKind> kind_;
  bool warm_ = false;  // the first pass was
  bool refused_ = false;
  Recording recording_;
  Tensor loss_;  // where the recording leaves it
};

}  // namespace millrace
