#include "pipeline/training/replica.h"

#include <algorithm>
#include <bit>

#include "nn/state.h"
#include "nn/step_context.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/loss_scale.h"

namespace millrace {
namespace {

/// Weights are drawn on the CPU, so that they are the same everywhere.
std::unique_ptr<nn::Module> make_seeded(const Trainer::MakeModule& make_module, std::uint64_t seed,
                                        Device device) {
  const Generator before = nn::default_generator();
  nn::manual_seed(seed);
  std::unique_ptr<nn::Module> module = make_module();
  nn::default_generator() = before;
  if (!module) {
    throw InputError("trainer: the function that makes the module gave none");
  }
  module->to(device);
  return module;
}

std::vector<Tensor> make_partials(const Tensor& gradients, unsigned shards) {
  std::vector<Tensor> partials;
  for (unsigned held = 1; held < shards; held *= 2) {
    partials.push_back(empty_like(gradients));
  }
  return partials;
}

Tensor make_loss_scale(DType dtype, Device device) {
  if (dtype != DType::f16) {
    return {};
  }
  return tensor({1, 1, LossScale::kFirst, 0}).to(device);
}

Tensor part(const Tensor& flat, std::int64_t begin, std::int64_t end) {
  return flat.narrow(0, begin, end - begin);
}

}  // namespace

Replica::Replica(const Trainer::MakeModule& make_module, const nn::OptimizerOptions& optimizer,
                 const TrainerOptions& options, Communicator& communicator)
    : options_(options),
      communicator_(communicator),
      device_(options.devices[static_cast<std::size_t>(local_rank())]),
      feeder_(device_, options.dtype),
      module_(make_seeded(make_module, options.seed, device_)),
      flat_(*module_, nn::Statistics::summed,
            [&](std::int64_t count, TensorOptions options) { return communicator.allocate(count, options); }),
      optimizer_(flat_, optimizer, options.schedule),
      switches_(*module_),
      loss_scale_(make_loss_scale(options.dtype, device_)),
      partials_(make_partials(flat_.gradients(),
                              static_cast<unsigned>(local_shards(options).count / options.replicas))),
      buckets_(make_buckets()) {
  if (options.lookahead) {
    lookahead_.emplace(flat_, *module_, *options.lookahead);
  }
  if (!std::has_single_bit(static_cast<unsigned>(communicator.size()))) {
    subtrees_.emplace(options.shards, flat_.gradients(), communicator);
    return;
  }
  if (buckets_.count() == 1) {
    return;
  }
  for (std::size_t i = 0; i < flat_.slots().size(); ++i) {
    slot_of_[flat_.slots()[i].parameter.id()] = i;
  }
}

/// Between GPUs, sums run beside the backward pass.
std::int64_t Replica::bucket_bytes() {
  const bool overlaps = options_.bucket_bytes == 0 && device_.is_cuda() && communicator_.size() > 1;
  return overlaps ? overlapping_bucket_bytes(flat_.weights().numel() * 4) : options_.bucket_bytes;
}

Buckets Replica::make_buckets() {
  std::vector<std::int64_t> offsets;
  for (const auto& slot : flat_.slots()) {
    offsets.push_back(slot.offset);
  }
  return Buckets(flat_.gradients(), offsets, communicator_,
                 {.bucket_bytes = bucket_bytes(),
                  .prepare =
                      [this](std::int64_t begin, std::int64_t end) {
                        Tensor sum = part(flat_.gradients(), begin, end);
                        for (const Tensor& partial : partials_) {
                          sum.add_(part(partial, begin, end));
                        }
                      },
                  .summed = [this](std::int64_t begin, std::int64_t end) { update(begin, end); }});
}

/// As soon as a part is summed, unless whether to update at all depends on the whole.
void Replica::update(std::int64_t begin, std::int64_t end) {
  if (!loss_scale_.defined()) {
    optimizer_.step_part(begin, end, step_);
  }
}

nn::StateDict Replica::optimizer_state() const {
  nn::StateDict state = optimizer_.state_dict();
  if (loss_scale_.defined()) {
    state.emplace_back("loss_scale", loss_scale_);
  }
  return state;
}

void Replica::synchronize() {
  for (auto& [name, tensor] : nn::state_dict(*module_)) {
    communicator_.broadcast(tensor, 0, current_stream(device_));
  }
  for (auto& [name, buffer] : optimizer_.buffers()) {
    communicator_.broadcast(buffer, 0, current_stream(device_));
  }
  if (loss_scale_.defined()) {
    communicator_.broadcast(loss_scale_, 0, current_stream(device_));
  }
  for (auto& [name, tensor] : average()) {
    communicator_.broadcast(tensor, 0, current_stream(device_));
  }
  forget_recorded();  // of a process whose own network has not changed, too
}

std::vector<double> Replica::host_state() const {
  const std::vector<std::uint8_t> on = switches();
  const Tensor frozen = optimizer_.frozen_steps();
  std::vector<double> numbers(on.begin(), on.end());
  numbers.insert(numbers.end(), frozen.data<std::int64_t>(), frozen.data<std::int64_t>() + frozen.numel());
  return numbers;
}

void Replica::set_host_state(std::span<const double> numbers) {
  Tensor frozen = optimizer_.frozen_steps();
  const auto counts = numbers.last(static_cast<std::size_t>(frozen.numel()));
  const auto on = numbers.first(numbers.size() - counts.size());
  switches_.set(std::vector<std::uint8_t>(on.begin(), on.end()));
  std::ranges::copy(counts, frozen.data<std::int64_t>());
}

void Replica::begin(const StepTask& task) {
  step_ = {
      .number = task.step, .gradient_scale = 1.0 / static_cast<double>(task.valid), .control = loss_scale_};
}

void Replica::step(const StepTask& task) {
  begin(task);
  if (subtrees_) {
    run_subtrees(task);
  } else {
    run_shards(task);
  }
  flat_.apply_statistics(task.valid);
  if (lookahead_) {
    lookahead_->after_step(task.step + 1);
  }
  feeder_.end_step();
  task.losses.arrived[static_cast<std::size_t>(local_rank())].record(current_stream(device_));
}

void Replica::rehearse(const StepTask& task) {
  std::vector<std::pair<Tensor, Tensor>> kept;  // what a step changes, and how it was
  for (const nn::StateDict& state : {nn::state_dict(*module_), optimizer_state(), average()}) {
    for (const auto& [name, tensor] : state) {
      kept.emplace_back(tensor, tensor.clone());
    }
  }
  const Generator generator = nn::default_generator();
  begin(task);
  run_shard(task, local_rank() * local_shards(options_).count / options_.replicas, false);
  for (Tensor& partial : partials_) {
    partial.copy_(flat_.gradients());
    flat_.gradients().add_(partial);
  }
  update(0, flat_.gradients().numel());
  step_if_finite();
  flat_.apply_statistics(task.valid);
  if (lookahead_) {
    lookahead_->after_step(lookahead_->options().every);
  }
  for (auto& [tensor, before] : kept) {
    tensor.copy_(before);
  }
  nn::default_generator() = generator;
  feeder_.end_step();
}

void Replica::drain() noexcept {
  for (const Stream& stream : {feeder_.stream(), current_stream(device_), buckets_.stream()}) {
    try {
      stream.synchronize();
    } catch (const std::exception&) {  // the first failure is what is told
    }
  }
}

/// The usual case: this replica's shards are one subtree. Its last sums, and the step, are taken bucket by
/// bucket.
void Replica::run_shards(const StepTask& task) {
  const int shards = local_shards(options_).count / options_.replicas;
  for (int s = 0; s < shards; ++s) {
    const bool last = s + 1 == shards;
    run_shard(task, local_rank() * shards + s, last);
    if (!last) {
      partials_[carry(static_cast<unsigned>(s))].copy_(flat_.gradients());
    }
  }
  buckets_.finish();
  step_if_finite();
}

/// With loss scaling the step is taken as a whole, or not at all: decided from what all replicas have alike,
/// on the device, so that the host does not wait to know.
void Replica::step_if_finite() {
  if (loss_scale_.defined()) {
    MILLRACE_LAUNCH(device_, update_loss_scale, flat_.gradients(), loss_scale_);
    optimizer_.step(step_);
  }
}

void Replica::run_subtrees(const StepTask& task) {
  int shard = 0;
  for (std::size_t i = 0; i < subtrees_->subtrees().size(); ++i) {
    const int count = subtrees_->subtrees()[i].count;
    for (int s = 0; s < count; ++s, ++shard) {
      run_shard(task, shard, false);
      const std::size_t place = carry(static_cast<unsigned>(s));
      if (s + 1 < count) {
        partials_[place].copy_(flat_.gradients());
      }
    }
    subtrees_->give(i, flat_.gradients());
  }
  subtrees_->finish(flat_.gradients());
  update(0, flat_.gradients().numel());
  step_if_finite();
}

void Replica::run_shard(const StepTask& task, int shard, bool last) {
  const Slab& slab = task.batch.shard(shard);
  if (slab.valid == 0) {
    flat_.begin();
    flat_.finish();
    return;
  }
  nn::step_context() = {.seed = options_.seed,
                        .step = static_cast<std::uint64_t>(task.step),
                        .first_sample = slab.first_position,
                        .layer = 0};
  const Batch batch = feeder_.bring(task.batch, shard);
  slab.lend(feeder_.stream());
  const auto pass = [&](const Batch& of) { return run_pass(task.loss, of, last); };
  std::optional<KeptWeights::Use> use;
  if (local_shards(options_).count > options_.replicas) {
    use.emplace(kept_);
  }
  // Where buckets go out during the pass, it is more than kernels.
  const bool replays = options_.replay && device_.is_cpu() && slot_of_.empty();
  const Tensor loss = replays ? recording_.run(batch, task.loss, pass) : pass(batch);
  feeder_.done();
  Tensor place = task.losses.shards.select(0, shard).with_own_version();
  place.copy_(loss);
}

/// From the images of a shard to its gradients, in their places. Returns its loss.
Tensor Replica::run_pass(const LossFunction& loss_function, const Batch& batch, bool last) {
  flat_.begin();
  const Variable loss = loss_function(*module_, batch);
  if (!loss.defined() || loss.data().numel() != 1) {
    throw InputError(
        "trainer: the loss function gave {}, expected one number: the sum over the batch's samples",
        loss.defined() ? loss.shape().to_string() : "nothing");
  }
  Variable::BackwardOptions options;
  if (loss_scale_.defined()) {
    options.gradient = loss_scale_.select(0, LossScale::scale).to(loss.dtype()).expand(loss.shape());
  }
  if (last && !slot_of_.empty()) {
    options.on_grad_ready = [this](const Variable& leaf) {
      if (const auto slot = slot_of_.find(leaf.id()); slot != slot_of_.end()) {
        buckets_.ready(slot->second);
      }
    };
  }
  loss.backward(options);
  flat_.finish();
  return loss.data().view({});
}

/// Counts shard number `shard` of a subtree in: one more in binary, where a carry is a sum. Returns the place
/// of the sum. The last shard of a step carries through all places; that happens in the buckets.
std::size_t Replica::carry(unsigned shard) {
  const auto place = static_cast<std::size_t>(std::countr_one(shard));
  for (std::size_t i = 0; i < place; ++i) {
    flat_.gradients().add_(partials_[i]);
  }
  return place;
}

}  // namespace millrace
