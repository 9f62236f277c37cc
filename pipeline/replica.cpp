#include "pipeline/replica.h"

#include <bit>

#include "nn/state.h"
#include "nn/step_context.h"

namespace millrace {
namespace {

std::unique_ptr<nn::Module> make_seeded(const Trainer::MakeModule& make_module, std::uint64_t seed) {
  const Generator before = nn::default_generator();
  nn::manual_seed(seed);
  std::unique_ptr<nn::Module> module = make_module();
  nn::default_generator() = before;
  if (!module) {
    throw InputError("trainer: the function that makes the module gave none");
  }
  return module;
}

std::vector<Tensor> make_partials(const Tensor& gradients, unsigned shards) {
  std::vector<Tensor> partials;
  for (unsigned held = 1; held < shards; held *= 2) {
    partials.push_back(empty_like(gradients));
  }
  return partials;
}

Tensor part(const Tensor& flat, std::int64_t begin, std::int64_t end) {
  return flat.narrow(0, begin, end - begin);
}

}  // namespace

Replica::Replica(const Trainer::MakeModule& make_module, const nn::SgdOptions& sgd,
                 const TrainerOptions& options, Communicator& communicator)
    : options_(options),
      communicator_(communicator),
      module_(make_seeded(make_module, options.seed)),
      flat_(*module_, nn::Statistics::summed,
            [&](std::int64_t count, TensorOptions options) { return communicator.allocate(count, options); }),
      sgd_(flat_, sgd),
      partials_(make_partials(flat_.gradients(), static_cast<unsigned>(options.shards / options.replicas))),
      buckets_(make_buckets()) {
  if (buckets_.count() == 1) {
    return;
  }
  for (std::size_t i = 0; i < flat_.slots().size(); ++i) {
    slot_of_[flat_.slots()[i].parameter.id()] = i;
  }
}

Buckets Replica::make_buckets() {
  std::vector<std::int64_t> offsets;
  for (const auto& slot : flat_.slots()) {
    offsets.push_back(slot.offset);
  }
  return Buckets(flat_.gradients(), offsets, communicator_,
                 {.bucket_bytes = options_.bucket_bytes,
                  .prepare =
                      [this](std::int64_t begin, std::int64_t end) {
                        Tensor sum = part(flat_.gradients(), begin, end);
                        for (const Tensor& partial : partials_) {
                          sum.add_(part(partial, begin, end));
                        }
                      },
                  .summed = [this](std::int64_t begin,
                                   std::int64_t end) { sgd_.step_part(begin, end, rate_, scale_); }});
}

void Replica::synchronize() {
  for (auto& [name, tensor] : nn::state_dict(*module_)) {
    communicator_.broadcast(tensor, 0);
  }
  communicator_.broadcast(sgd_.momentum(), 0);
}

void Replica::step(const StepTask& task) {
  const std::int64_t valid = task.batch.valid();
  rate_ = task.rate;
  scale_ = 1.0 / static_cast<double>(valid);
  const int shards = options_.shards / options_.replicas;
  for (int s = 0; s < shards; ++s) {
    const bool last = s + 1 == shards;
    const int shard = communicator_.rank() * shards + s;
    flat_.begin();
    task.losses[static_cast<std::size_t>(shard)] = run_shard(task, shard, last);
    flat_.finish();
    if (!last) {
      keep_partial(static_cast<unsigned>(s));
    }
  }
  buckets_.finish();
  flat_.apply_statistics(valid);
}

double Replica::run_shard(const StepTask& task, int shard, bool last) {
  const Slab& slab = task.batch.shard(shard);
  if (slab.valid == 0) {
    return 0;
  }
  nn::step_context() = {.seed = options_.seed,
                        .step = static_cast<std::uint64_t>(task.step),
                        .first_sample = slab.first_position,
                        .layer = 0};
  const Variable loss = task.loss(*module_, task.batch.share(shard));
  if (!loss.defined() || loss.data().numel() != 1) {
    throw InputError(
        "trainer: the loss function gave {}, expected one number: the sum over the batch's samples",
        loss.defined() ? loss.shape().to_string() : "nothing");
  }
  Variable::BackwardOptions options;
  if (last && !slot_of_.empty()) {
    options.on_grad_ready = [this](const Variable& leaf) {
      if (const auto slot = slot_of_.find(leaf.id()); slot != slot_of_.end()) {
        buckets_.ready(slot->second);
      }
    };
  }
  loss.backward(options);
  return loss.item();
}

/// Counts this replica's shard number `shard` in: one more in binary, where a carry is a sum. The last shard
/// of a step carries through all places; that happens in the buckets.
void Replica::keep_partial(unsigned shard) {
  Tensor& sum = flat_.gradients();
  const auto place = static_cast<std::size_t>(std::countr_one(shard));
  for (std::size_t i = 0; i < place; ++i) {
    sum.add_(partials_[i]);
  }
  partials_[place].copy_(sum);
}

}  // namespace millrace
