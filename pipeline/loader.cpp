#include "pipeline/loader.h"

#include <algorithm>
#include <opencv2/core/utility.hpp>

#include "dataio/sampler.h"
#include "pipeline/execute.h"
#include "pipeline/loader_graph.h"
#include "pipeline/trainer.h"

namespace millrace {

struct Batch::State {
  std::vector<SlabLease> shards;
};

Batch::Batch(Batch&&) noexcept = default;
Batch& Batch::operator=(Batch&&) noexcept = default;
Batch::~Batch() = default;

const Slab& Batch::shard(int i) const {
  if (i < 0 || i >= shards()) {
    throw InputError("batch: asked for shard {} of {}", i, shards());
  }
  return state_->shards[static_cast<std::size_t>(i)]->slab;
}

std::int64_t Batch::epoch() const { return shards() > 0 ? state_->shards[0]->planned.epoch : 0; }
std::int64_t Batch::step() const { return shards() > 0 ? state_->shards[0]->planned.step : 0; }
int Batch::shards() const { return state_ ? static_cast<int>(state_->shards.size()) : 0; }

Batch Batch::share(int i) const {
  shard(i);  // checks i
  Batch one;
  one.state_ = std::make_shared<State>(State{{state_->shards[static_cast<std::size_t>(i)]}});
  return one;
}

std::int64_t Batch::valid() const {
  std::int64_t sum = 0;
  for (int i = 0; i < shards(); ++i) {
    sum += shard(i).valid;
  }
  return sum;
}

namespace {

const Slab& only_shard(const Batch& batch) {
  if (batch.shards() != 1) {
    throw InputError("batch: has {} shards, and tensors are of one; take share(i), or release it later",
                     batch.shards());
  }
  return batch.shard(0);
}

}  // namespace

Tensor Batch::images() const { return field("image"); }
Tensor Batch::labels() const { return field("label"); }
Tensor Batch::ids() const {
  const Slab& slab = only_shard(*this);
  return slab.ids().narrow(0, 0, slab.valid);
}
Tensor Batch::field(std::string_view name) const {
  const Slab& slab = only_shard(*this);
  return slab.field(name).narrow(0, 0, slab.valid);
}

void Batch::release() { state_.reset(); }

namespace {

LoaderOptions checked(LoaderOptions options, const Sampler& sampler) {
  if (options.threads < 0 || options.slabs < 0 || options.chunk < 0 || !(options.timeout_seconds > 0)) {
    throw InputError(
        "loader: got {} threads, {} slabs, a chunk of {} and a timeout of {} s; none may be negative",
        options.threads, options.slabs, options.chunk, options.timeout_seconds);
  }
  if (options.threads > kMaxLoaderThreads) {
    throw InputError("loader: got {} threads, expected at most {}", options.threads, kMaxLoaderThreads);
  }
  options.timeout_seconds =
      std::min(options.timeout_seconds, 1e8);  // three years; a clock cannot add for ever
  options.local_shards = sampler.options().local_shards;
  if (options.threads == 0) {
    options.threads = available_cores();
  }
  if (options.slabs == 0) {
    options.slabs = 2 * options.local_shards + 1;
  }
  if (options.slabs < options.local_shards) {
    throw InputError("loader: got {} slabs, and a batch holds {}; give at least as many, better twice",
                     options.slabs, options.local_shards);
  }
  return options;
}

SamplerOptions sampler_options(const LoaderOptions& options) {
  return {.batch_size = options.batch_size,
          .shards = options.shards,
          .first_shard = options.first_shard,
          .local_shards = options.local_shards,
          .drop_last = options.drop_last,
          .shuffle = options.shuffle,
          .seed = options.seed};
}

}  // namespace

struct Loader::Impl {
  Impl(std::shared_ptr<const Dataset> dataset, const LoaderOptions& wanted)
      : sampler(dataset->size(), sampler_options(wanted)),
        options(checked(wanted, sampler)),
        executor(std::move(dataset), options),
        graph(executor, sampler, options.threads, options.slabs, options.chunk) {}

  Sampler sampler;
  LoaderOptions options;
  SampleExecutor executor;
  LoaderGraph graph;
  std::int64_t steps_left = 0;
};

Loader::Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options) {
  if (dataset == nullptr) {
    throw InputError("loader: got no data set");
  }
  cv::setNumThreads(0);  // the loader's threads are all there are
  impl_ = std::make_unique<Impl>(std::move(dataset), options);
}

Loader::~Loader() = default;

const Dataset& Loader::dataset() const { return impl_->executor.dataset(); }
const LoaderOptions& Loader::options() const { return impl_->options; }
std::int64_t Loader::steps_per_epoch() const { return impl_->sampler.steps_per_epoch(); }
const Shape& Loader::image_shape() const { return impl_->executor.image_shape(); }

Loader::Epoch Loader::epoch(std::int64_t number) {
  if (number < 0) {
    throw InputError("loader: asked for epoch {}; they count from 0", number);
  }
  impl_->graph.start(number);
  impl_->steps_left = steps_per_epoch();
  return Epoch(*this);
}

bool Loader::next(Batch& batch) {
  batch.release();
  if (impl_->steps_left == 0) {
    return false;
  }
  auto state = std::make_shared<Batch::State>();
  for (int i = 0; i < impl_->options.local_shards; ++i) {
    state->shards.push_back(impl_->graph.next(std::chrono::duration<double>(impl_->options.timeout_seconds)));
  }
  --impl_->steps_left;
  for (const SlabLease& shard : state->shards) {
    if (shard->error) {
      std::rethrow_exception(shard->error);
    }
  }
  batch.state_ = std::move(state);
  return true;
}

Loader::Epoch::Iterator Loader::Epoch::begin() { return ++Iterator(this); }

Loader::Epoch::Iterator& Loader::Epoch::Iterator::operator++() {
  if (!epoch_->loader_->next(epoch_->batch_)) {
    epoch_ = nullptr;
  }
  return *this;
}

}  // namespace millrace
