#pragma once

#include <cstdint>
#include <string>

#include "pipeline/image/transform.h"
#include "pipeline/loader/slab.h"

namespace millrace {

/// mixup (Zhang et al., 2018) and cutmix (Yun et al., 2019) among the samples of one shard, in place: sample
/// i is mixed with sample valid - 1 - i, and both halves of a pair are kept. Both named: one of the two for
/// each shard, at random.
class BatchMix {
 public:
  /// What is done to one shard: a function of (seed, epoch, step, shard).
  struct Draw {
    double lambda = 1;  ///< The part of a sample that stays its own.
    bool cut = false;   ///< Within `box` pixels are the partner's; else all pixels are weighted.
    Rectangle box;
  };

  /// Takes "mixup:ALPHA" and "cutmix:ALPHA" out of a list of transforms. @throws InputError on a wrong alpha.
  static BatchMix take_from(std::string& transforms);
  bool active() const { return mixup_ > 0 || cutmix_ > 0; }

  /// lambda is drawn from Beta(alpha, alpha); with cutmix it is corrected to the part of the area.
  Draw draw(SampleRandom random, Size2 image) const;
  /// Mixes the valid samples of "image" and writes "soft_label" [samples, classes] from "label".
  static void apply(Slab& slab, const Draw& draw);

 private:
  double mixup_ = 0, cutmix_ = 0;  // alpha; 0: not asked for
};

}  // namespace millrace
