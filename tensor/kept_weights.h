#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "tensor/tensor.h"

namespace millrace {

/// Weights in the type and order in which convolutions on the CPU read them, for passes that read the same
/// ones: they are then prepared once for all of them.
///
/// Kept are those in storages that are part of another, as a network's parameters are, until
/// `Storage::changes` grows. Who writes elements through a pointer calls `bump_version`, or `clear` here.
class KeptWeights {
 public:
  KeptWeights();
  ~KeptWeights();
  KeptWeights(const KeptWeights&) = delete;
  KeptWeights& operator=(const KeptWeights&) = delete;

  /// While it lives, its thread's convolutions take their weights from `kept`, and leave there what is new.
  class Use {
   public:
    explicit Use(KeptWeights& kept);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    KeptWeights* before_;
  };

  /// Gives its memory back.
  void clear();
  /// How many it holds.
  std::size_t size() const;

  struct Layout;  // see tensor/cpu/conv/weight_layout.h
  /// For convolutions: where the weights that this thread uses hold `weight` in `layout`, undefined until the
  /// caller puts it there; null where it is not to be kept. Holds until the next call.
  static Tensor* place(const Tensor& weight, const Layout& layout);

 private:
  struct Entry;
  std::vector<Entry> entries_;
};

}  // namespace millrace
