#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "nn/module.h"

namespace millrace::nn {

/// Who updates the running statistics: `apply_statistics` from their sums over shards, or each forward pass
/// at once.
enum class Statistics : std::uint8_t { summed, immediate };

/// A network's trainable parameters, their gradients and its batch statistics as flat f32 buffers.
///
/// Construction moves every trainable parameter into one buffer and binds its gradient to another, in the
/// reverse of the order of registration, so that gradients become ready from the front. Behind the
/// parameters' gradients lie the batch statistics of every module that has some (BatchNorm: mean and unbiased
/// variance, each times the samples, and the samples): they are summed over replicas together with the
/// gradients, and `apply_statistics` then updates the running ones once a step. Parameters that are frozen at
/// construction stay where they are and cannot be trained with this. One FlatParameters at a time holds a
/// network.
class FlatParameters {
 public:
  /// Memory for `count` gradients, not initialized.
  using Allocate = std::function<Tensor(std::int64_t count, TensorOptions options)>;
  /// @throws InputError when nothing is trainable.
  explicit FlatParameters(Module& module, Statistics statistics = Statistics::summed,
                          const Allocate& allocate = {});

  /// f32, one dimension, padded so that each parameter starts on 64 bytes; the padding is zero.
  Tensor& weights() { return weights_; }
  /// The gradients, then the batch statistics.
  Tensor& gradients() { return gradients_; }

  struct Slot {
    Variable parameter;
    std::string name;
    std::int64_t offset;  ///< In elements, into both buffers.
    std::int64_t size;
  };
  const std::vector<Slot>& slots() const { return slots_; }

  /// @throws InputError naming a parameter that was frozen at construction and is trainable now: it has no
  /// place here, and would never be updated.
  void check_trainable() const;
  /// Marks every gradient as empty, before a shard's forward pass; statistics are zeroed.
  void begin();
  /// Zeroes the gradients of parameters that got nothing since `begin`; call after `backward`.
  void finish();
  /// Moves running statistics by the summed batch statistics; `valid` samples made the step (with none,
  /// nothing moves). A BatchNorm that did not run, or ran twice, is weighed by the samples it saw.
  void apply_statistics(std::int64_t valid);

 private:
  std::vector<Slot> slots_;
  std::vector<std::pair<std::string, Variable>> frozen_;  // at construction
  std::vector<Module*> with_statistics_;                  // empty unless they are summed here
  Tensor weights_;
  Tensor gradients_;
  Tensor statistics_;  // the tail of gradients_
};

}  // namespace millrace::nn
