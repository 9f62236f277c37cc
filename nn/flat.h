#pragma once

#include <span>
#include <vector>

#include "nn/module.h"

namespace millrace::nn {

/// A network's trainable parameters, their gradients and its batch statistics as flat f32 buffers.
///
/// Construction moves every trainable parameter into one buffer and binds its gradient to another, in the reverse of
/// the order of registration, so that gradients become ready from the front. Behind the parameters' gradients lie
/// the batch statistics of every BatchNorm (sums over valid samples of mean and unbiased variance): they are summed over
/// replicas together with the gradients, and `apply_statistics` then updates the running ones once a step.
class FlatParameters {
 public:
  explicit FlatParameters(Module& module);

  /// f32, one dimension, padded so that each parameter starts on 64 bytes; the padding is zero.
  Tensor& weights() { return weights_; }
  /// The gradients, then the batch statistics.
  Tensor& gradients() { return gradients_; }
  /// The part of `gradients()` that belongs to `weights()`.
  Tensor weight_gradients() const;

  struct Slot {
    Variable parameter;
    std::string name;
    std::int64_t offset;  ///< In elements, into both buffers.
    std::int64_t size;
  };
  const std::vector<Slot>& slots() const { return slots_; }

  /// Marks every gradient as empty, before a shard's forward pass; statistics are zeroed.
  void begin();
  /// Zeroes the gradients of parameters that got nothing since `begin`; call after `backward`.
  void finish();
  /// Moves running statistics by the summed batch statistics; `valid` is the number of samples in the sum.
  void apply_statistics(std::int64_t valid);

 private:
  Module& module_;
  std::vector<Slot> slots_;
  Tensor weights_;
  Tensor gradients_;
};

}  // namespace millrace::nn
