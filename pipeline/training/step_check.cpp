#include "pipeline/training/step_check.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <limits>

#include "dataio/random_images.h"
#include "nn/state.h"
#include "tensor/gpu/arithmetic.h"
#include "tensor/kernels/loss_scale.h"
#include "tensor/ops.h"

namespace millrace {

namespace {

/// What steps of plain SGD did.
struct Steps {
  std::vector<double> losses;          // a sample
  std::vector<nn::StateDict> weights;  // before the first one, and behind each
  std::string hash;                    // of the last
  std::size_t parameters = 0;          // the first ones; the others are running statistics and counts
};

bool was_skipped(const TrainerState& state) {
  return std::ranges::any_of(state.optimizer, [](const auto& entry) {
    return entry.first == "loss_scale" && entry.second.at({LossScale::good_steps}) == 0;
  });
}

/// All on the same images. With f16 a step that overflowed is taken anew, with the smaller scale.
Steps take_steps(const StepCheck& check, const TrainerOptions& options, double learning_rate, int count) {
  const std::string transforms = "normalize";
  Loader loader{
      std::make_shared<RandomImages>(
          check.batch_size, RandomImages::Form{check.channels, check.height, check.width, check.classes}),
      {.batch_size = check.batch_size,
       .transforms = transforms,
       .dtype = feed_type(options.devices[0], options.dtype, transforms),
       .order = {.kind = Order::sequential},
       .shards = options.shards,
       .threads = 1}};
  const LossFunction loss = check.loss ? check.loss : [](nn::Module& net, const Batch& batch) {
    return cross_entropy(net(batch.images()), batch.labels(), {.reduction = Reduction::sum});
  };
  Trainer trainer{check.make_module, nn::SgdOptions{.learning_rate = learning_rate}, options};
  Batch batch;
  loader.epoch(0);
  loader.next(batch);
  TrainerState state = trainer.state();
  Steps steps{.weights = {state.weights}, .parameters = trainer.module().parameters().size()};
  for (int i = 0; i < count; ++i) {
    constexpr int kMostHalvings = 24;  // of the loss's scale
    for (int attempt = 0; attempt <= kMostHalvings; ++attempt) {
      const StepResult result = trainer.step(batch, loss);
      const double mean = result.loss / static_cast<double>(result.valid);
      TrainerState after = trainer.state();
      if (attempt < kMostHalvings && was_skipped(after)) {
        state.optimizer = after.optimizer;
        trainer.restore(state);
        continue;
      }
      steps.losses.push_back(mean);
      steps.weights.push_back(after.weights);
      state = std::move(after);
      break;
    }
  }
  steps.hash = trainer.weights_hash();
  return steps;
}

TrainerOptions alone(Device device, DType dtype, SumOrder sum_order) {
  return {.replicas = 1, .shards = 1, .devices = {device}, .dtype = dtype, .sum_order = sum_order};
}

Tensor difference(const Tensor& a, const Tensor& b) { return a.to(DType::f64) - b.to(DType::f64); }

double dot(const Tensor& a, const Tensor& b) { return a.numel() == 0 ? 0 : sum(a * b).item(); }

double norm(const Tensor& x) { return std::sqrt(dot(x, x)); }

/// The sum over all parameters of the changes in two steps, multiplied.
double product(const Steps& steps, std::size_t one, std::size_t other) {
  double all = 0;
  for (std::size_t i = 0; i < steps.parameters; ++i) {
    const auto change = [&](std::size_t step) {
      return difference(steps.weights[step + 1][i].second, steps.weights[step][i].second);
    };
    all += dot(change(one), change(other));
  }
  return all;
}

/// How far a step may be from the CPU's in f32, relative to what it changes there.
struct Bounds {
  double loss, change, size;
};

/// Sums in another order, and roundings to a type with unit u, move each value by a few u. Of the gates of
/// ReLU and max pooling then a few u in all open otherwise, and each takes or adds a whole gradient: what a
/// tensor changes differs by some sqrt(u) in all directions, in bf16 (2^-9) by 0.06 to 0.46 over our
/// networks, in f16 and tf32 (2^-11) by half of that. In f32 hardly a gate differs, but one may. Along the
/// expected change, and in the loss, these average out. A factor forgotten, a transposition or a sum without
/// a part of its terms is beyond.
Bounds bounds_of(Device device, DType dtype) {
  if (dtype == DType::bf16) {
    return {.loss = 0.01, .change = 0.8, .size = 0.3};
  }
  if (dtype == DType::f16 || (device.is_cuda() && gpu_arithmetic().tf32)) {
    return {.loss = 0.005, .change = 0.4, .size = 0.15};
  }
  return {.loss = 1e-4, .change = 0.02, .size = 0.01};
}

/// Keeps what is farther off, measured by its bound; what is no number is farthest.
void count(StepDifference& farthest, double part, double bound, std::string where) {
  if (!(part / bound <= farthest.part / farthest.bound)) {
    farthest = {std::isnan(part) ? std::numeric_limits<double>::infinity() : part, bound, std::move(where)};
  }
}

}  // namespace

std::string StepDifference::to_string() const {
  return fmt::format("{:.2g} in {}, bound {:.2g}", part, where, bound);
}

StepDifference compare_with_cpu(const StepCheck& check, Device device, DType dtype, SumOrder sum_order) {
  const Steps expected = take_steps(check, alone(kCpu, DType::f32, sum_order), 1, 1),
              got = take_steps(check, alone(device, dtype, sum_order), 1, 1);
  const auto change = [](const Steps& steps, std::size_t i) {
    return difference(steps.weights[1][i].second, steps.weights[0][i].second);
  };
  double all = 0;
  for (std::size_t i = 0; i < expected.parameters; ++i) {
    all = std::hypot(all, norm(change(expected, i)));
  }
  const Bounds bounds = bounds_of(device, dtype);
  StepDifference result{.part = 0, .bound = bounds.loss, .where = "loss"};
  count(result, std::abs(got.losses[0] / expected.losses[0] - 1), bounds.loss, "loss");
  for (std::size_t i = 0; i < expected.weights[0].size(); ++i) {
    const std::string& name = expected.weights[0][i].first;
    const Tensor wanted = change(expected, i), apart = difference(change(got, i), wanted);
    // A gradient that is zero but for rounding, as a bias's before batch norm, has no size of its own.
    const double size = std::max(norm(wanted), all / 64);
    count(result, norm(apart) / size, bounds.change, name);
    count(result, std::abs(dot(apart, wanted)) / (size * size), bounds.size, "size of " + name);
  }
  return result;
}

StepDifference compare_with_slope(const StepCheck& check, Device device) {
  // So far that f32 tells the losses apart, to 1 in 5,000, and so near that the gradient changes evenly.
  constexpr double kFall = 0.002, kBound = 0.05;
  const TrainerOptions options = alone(device, DType::f32, SumOrder::tree);
  const double rate = kFall / product(take_steps(check, options, 1, 1), 0, 0);
  const Steps steps = take_steps(check, options, rate, 2);
  const double expected = (product(steps, 0, 0) + product(steps, 0, 1)) / 2 / rate;
  StepDifference result{.part = 0, .bound = kBound, .where = "loss"};
  count(result, std::abs((steps.losses[0] - steps.losses[1]) / expected - 1), kBound, "loss");
  return result;
}

std::vector<std::string> hashes_of_replicas(const StepCheck& check, std::span<const Device> devices,
                                            DType dtype, std::span<const int> replicas) {
  std::vector<std::string> hashes;
  for (const int count : replicas) {
    const auto used = devices.size() == 1 ? devices : devices.first(static_cast<std::size_t>(count));
    const TrainerOptions options{.replicas = count,
                                 .shards = *std::ranges::max_element(replicas),
                                 .devices = {used.begin(), used.end()},
                                 .dtype = dtype};
    hashes.push_back(take_steps(check, options, 0.01, 3).hash);
  }
  return hashes;
}

}  // namespace millrace
