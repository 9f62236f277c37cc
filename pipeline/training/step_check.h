#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "pipeline/training/checkpoint.h"
#include "pipeline/training/trainer.h"

namespace millrace {

/// A network to take steps with, on random images.
struct StepCheck {
  Trainer::MakeModule make_module;
  int channels = 3, height = 32, width = 32, classes = 10;
  std::int64_t batch_size = 16;
  /// None: the sum of the cross entropies.
  LossFunction loss = {};
};

/// Where two steps are farthest apart, measured by the bounds.
struct StepDifference {
  double part = 0;    ///< Of what was expected; infinite where it is no number.
  double bound = 0;   ///< See `bounds_of` in the source for the reasons.
  std::string where;  ///< "loss", "fc1.weight", "size of fc1.weight"
  bool within() const { return part <= bound; }
  /// "0.0021 in fc1.weight, bound 0.02"
  std::string to_string() const;
};

/// One step of the same network on the same images, on `device` in `dtype` and on the CPU in f32: the loss,
/// and what it changed in each parameter and running statistic, as a whole and in its size along what was
/// expected. The calling thread's random numbers stay as
/// they are. @throws whatever the steps throw.
StepDifference compare_with_cpu(const StepCheck& check, Device device, DType dtype,
                                SumOrder sum_order = SumOrder::tree);
/// Whether the loss falls as the gradients say, for what has no other device to be compared with: its fall
/// over a short step, beside the mean of the gradients at both ends times the way between them. In f32, of a
/// network without dropout.
StepDifference compare_with_slope(const StepCheck& check, Device device);

/// The weights' hashes after 3 steps on so many replicas each, of equal shards. They are spread over
/// `devices`, or share the one.
std::vector<std::string> hashes_of_replicas(const StepCheck& check, std::span<const Device> devices,
                                            DType dtype, std::span<const int> replicas);

/// Before a training on GPUs, called by all of its processes: on each kind of GPU among theirs that did not
/// pass before, one of them compares a step in the training's type with the CPU's. What passed is kept in the
/// user's cache folder, for this program, kind of GPU, versions of CUDA's libraries, network and type. Bits
/// and random numbers of the training stay as they are. On CPUs nothing happens.
/// @throws MachineError in all of them when any step differs, or could not be taken.
void check_first_training(const StepCheck& check, const TrainerOptions& options, const Say& say = {});

}  // namespace millrace
