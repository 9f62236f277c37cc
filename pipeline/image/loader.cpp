#include "pipeline/image/loader.h"

#include <algorithm>
#include <opencv2/core/utility.hpp>
#include <utility>

#include "base/cores.h"
#include "pipeline/image/execute.h"
#include "pipeline/image/loader_graph.h"

namespace millrace {

struct Batch::State {
  std::vector<SlabLease> shards;
};

Batch::Batch(Batch&&) noexcept = default;
Batch& Batch::operator=(Batch&&) noexcept = default;
Batch::~Batch() = default;

Batch::Batch(Slab slab, const Batch& like) {
  auto job = std::make_shared<SlabJob>(std::move(slab));
  job->planned = like.state_->shards.at(0)->planned;
  state_ = std::make_shared<State>(State{{std::move(job)}});
}

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
  one.state_ = std::make_shared<State>(Batch::State{{state_->shards[static_cast<std::size_t>(i)]}});
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

Tensor Batch::targets() const {
  return field(only_shard(*this).has_field("soft_label") ? "soft_label" : "label");
}

void Batch::release() { state_.reset(); }

namespace {

LoaderOptions checked(LoaderOptions options, const Sampler& sampler) {
  if (options.threads < 0 || options.slabs < 0 || options.chunk < 0 || !(options.timeout_seconds > 0)) {
    throw InputError(
        "loader: got {} threads, {} slabs, a chunk of {} and a timeout of {} s; none may be negative",
        options.threads, options.slabs, options.chunk, options.timeout_seconds);
  }
  if (std::max(options.threads, options.reader_threads) > kMaxLoaderThreads || options.reader_threads < 0) {
    throw InputError("loader: got {} threads and {} reader threads, expected at most {} of each",
                     options.threads, options.reader_threads, kMaxLoaderThreads);
  }
  if (!(options.max_bad_rate > 0 && options.max_bad_rate <= 1)) {
    throw InputError("loader: got a maximum rate of bad samples of {}, expected more than 0 and at most 1",
                     options.max_bad_rate);
  }
  if (!options.on_bad_sample) {
    options.on_bad_sample = print_bad_samples();
  }
  if (options.epochs < 1) {
    throw InputError("loader: got {} epochs, expected at least 1", options.epochs);
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
          .tail = options.tail,
          .order = options.order,
          .seed = options.seed};
}

}  // namespace

struct Loader::Impl {
  Impl(std::shared_ptr<const Dataset> dataset, const LoaderOptions& wanted)
      : sampler(dataset->size(), sampler_options(wanted)),
        options(checked(wanted, sampler)),
        executor(std::move(dataset), options),
        graph(executor, sampler, options),
        bad(options.max_bad_rate, options.on_bad_sample),
        track(options.trace ? &options.trace->track("consumer") : nullptr) {}

  enum class Did : std::uint8_t { use, wait };
  /// What the consumer did since the last call: use the batch that it had, or wait for one.
  void account(Did did);

  /// Makes `epoch` and `step` the next batch's; what the graph has prepared for it is kept.
  void start(std::int64_t to_epoch, std::int64_t to_step);

  Sampler sampler;
  LoaderOptions options;
  SampleExecutor executor;
  LoaderGraph graph;
  BadSampleCount bad;
  std::int64_t epoch = 0, step = 0;     // of the next batch
  std::int64_t planned = -1, end = -1;  // the graph's next step and its last, counted over all epochs
  bool restored = false;                // and nothing taken or started since
  std::vector<SlabLease> gathered;      // shards of the next batch
  int fingerprint_version = 0;          // of what follows; 0: none yet
  std::uint64_t fingerprint = 0;
  LoaderStatistics consumer;  // its side alone
  Trace::Track* track;
  Trace::Clock::time_point since = Trace::Clock::now();
};

void Loader::Impl::start(std::int64_t to_epoch, std::int64_t to_step) {
  const std::int64_t steps = sampler.steps_per_epoch(), shards = options.local_shards;
  const std::int64_t most = (std::int64_t{1} << 62) / sampler.shards_per_epoch();
  if (to_epoch < 0 || to_epoch >= most) {
    throw InputError("loader: asked for epoch {}; they count from 0 to {}", to_epoch, most - 1);
  }
  epoch = to_epoch;
  step = to_step;
  since = Trace::Clock::now();
  const std::int64_t begin = epoch * steps + step;
  if (begin == planned && begin < end) {
    return;  // it is being made already
  }
  gathered.clear();
  planned = begin;
  end = std::max(epoch + 1, std::min(options.epochs, most)) * steps;
  graph.start(planned * shards, end * shards);
}

void Loader::Impl::account(Did did) {
  const auto now = Trace::Clock::now();
  const double took = std::chrono::duration<double>(now - since).count();
  consumer.seconds += took;
  consumer.consumer_wait += did == Did::wait ? took : 0;
  if (track != nullptr) {
    track->add(did == Did::wait ? "wait" : "use", since, now, "batch", consumer.batches);
  }
  since = now;
}

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
  const bool goes_on = std::exchange(impl_->restored, false) && number == impl_->epoch;
  impl_->start(number, goes_on ? impl_->step : 0);
  return Epoch(*this);
}

bool Loader::next(Batch& batch) {
  batch.release();
  impl_->account(Impl::Did::use);
  if (impl_->planned < 0 || impl_->step == steps_per_epoch()) {
    return false;
  }
  impl_->restored = false;
  while (std::ssize(impl_->gathered) < impl_->options.local_shards) {  // a timeout leaves what came before it
    impl_->gathered.push_back(
        impl_->graph.next(std::chrono::duration<double>(impl_->options.timeout_seconds)));
  }
  ++impl_->step;
  ++impl_->planned;
  impl_->account(Impl::Did::wait);
  ++impl_->consumer.batches;
  auto state = std::make_shared<Batch::State>(Batch::State{std::exchange(impl_->gathered, {})});
  for (const SlabLease& shard : state->shards) {
    if (shard->error) {
      // The slab keeps no share in it: the consumer alone looks at it and lets go of it.
      std::rethrow_exception(std::exchange(shard->error, nullptr));
    }
    impl_->bad.add(shard->planned.valid, shard->bad);
  }
  batch.state_ = std::move(state);
  return true;
}

std::int64_t Loader::samples() const { return impl_->bad.samples(); }
std::int64_t Loader::bad_samples() const { return impl_->bad.count(); }

LoaderState Loader::state(int fingerprint_version) const {
  const SamplerOptions& order = impl_->sampler.options();
  if (impl_->fingerprint_version != fingerprint_version) {  // once: it may take long
    impl_->fingerprint = dataset().fingerprint(fingerprint_version);
    impl_->fingerprint_version = fingerprint_version;
  }
  return {.epoch = impl_->epoch,
          .step = impl_->step,
          .order = order.order,
          .seed = order.seed,
          .batch_size = order.batch_size,
          .samples = impl_->sampler.samples(),
          .fingerprint_version = fingerprint_version,
          .fingerprint = impl_->fingerprint};
}

void Loader::restore(const LoaderState& state) {
  this->state(state.fingerprint_version).require_same_order(state);
  if (state.step < 0 || state.step > steps_per_epoch()) {
    throw InputError("loader: the state is at step {} of an epoch, and this loader's have {}", state.step,
                     steps_per_epoch());
  }
  impl_->start(state.epoch, state.step);
  impl_->restored = true;
}

LoaderStatistics Loader::statistics() const {
  LoaderStatistics all = impl_->graph.statistics();
  all.seconds = impl_->consumer.seconds;
  all.consumer_wait = impl_->consumer.consumer_wait;
  all.batches = impl_->consumer.batches;
  all.ready /= impl_->options.local_shards;
  return all;
}

Loader::Epoch::Iterator Loader::Epoch::begin() { return ++Iterator(this); }

Loader::Epoch::Iterator& Loader::Epoch::Iterator::operator++() {
  if (!epoch_->loader_->next(epoch_->batch_)) {
    epoch_ = nullptr;
  }
  return *this;
}

DType feed_type(Device device, DType dtype, std::string_view transforms) {
  const auto needs_numbers = [&](std::string_view word) {
    return transforms.find(word) != std::string_view::npos;
  };
  if (device.is_cpu()) {
    return dtype;
  }
  if (needs_numbers("cutout") || needs_numbers("mixup") || needs_numbers("cutmix")) {
    return dtype == DType::f16 ? DType::f32 : dtype;
  }
  return DType::u8;
}

}  // namespace millrace
