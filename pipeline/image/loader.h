#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dataio/dataset.h"
#include "dataio/order_options.h"
#include "pipeline/image/decode_options.h"
#include "pipeline/image/transform.h"
#include "pipeline/loader/bad_samples.h"
#include "pipeline/loader/slab.h"
#include "pipeline/loader/state.h"
#include "pipeline/loader/statistics.h"
#include "pipeline/loader/trace.h"

namespace millrace {

struct LoaderOptions {
  std::int64_t batch_size = 64;  ///< The global batch, over all shards.
  /// Applied in order to each sample; see parse_transforms. Images of unequal size need one that resizes.
  /// "mixup:ALPHA" and "cutmix:ALPHA" then mix the samples of each shard; see BatchMix.
  std::string transforms = "normalize";
  std::vector<std::shared_ptr<const Transform>> custom_transforms =
      {};                            ///< Run after `transforms`' edits, before decoding.
  std::vector<float> mean = {0.5f};  ///< One value, or one a channel, on the scale [0, 1].
  std::vector<float> std = {0.5f};
  DecodeOptions decode = {};  ///< Orientation, and limits against hostile files.
  /// Of the images: f32, bf16, or u8, which is not normalized (a trainer on GPUs does it; see feed_type).
  DType dtype = DType::f32;
  OrderOptions order = {};
  Tail tail = Tail::drop;
  BadSamples bad_samples = BadSamples::fail;
  double max_bad_rate = 0.001;         ///< Of the samples taken; a few are always allowed.
  BadSampleReport on_bad_sample = {};  ///< Called by `next`, batch by batch; else print_bad_samples().
  int shards = 1;                      ///< Equal pieces of a batch; a power of two that divides it.
  int first_shard = 0;     ///< This process loads shards [first_shard, first_shard + local_shards).
  int local_shards = 0;    ///< 0 means all.
  int threads = 0;         ///< Loader workers; 0 means this process's cores.
  int reader_threads = 0;  ///< Bring samples into memory ahead of the workers; 0 means that the workers do.
  int slabs = 0;           ///< 0 means twice local_shards plus one; bounds memory and prefetching.
  int chunk = 0;           ///< Samples a task; 0 means 64 small raw images or 2 encoded ones.
  std::uint64_t seed = 0;
  /// Epochs that will be run, from 0 on: while one ends, batches of the next are prepared already. With 1,
  /// each epoch starts when it is asked for.
  std::int64_t epochs = 1;
  /// How long `next` waits for a batch before it says which stage is stuck.
  double timeout_seconds = 300;
  std::shared_ptr<Trace> trace = nullptr;  ///< Shows what its threads, slabs and consumer do.
};

/// The local shards of one step. Moves only; its slabs go back to the loader when it is destroyed or
/// released, and are filled anew. A copy to a GPU is only enqueued: unless a Trainer makes it, wait for it
/// before the next batch is taken, or say `shard(i).lend(stream)`.
class Batch {
 public:
  Batch() = default;
  /// A slab that is the caller's own, as one shard of the step that `like` is of.
  Batch(Slab slab, const Batch& like);
  Batch(Batch&&) noexcept;
  Batch& operator=(Batch&&) noexcept;
  ~Batch();

  std::int64_t epoch() const;
  std::int64_t step() const;  ///< Within the epoch.
  int shards() const;
  const Slab& shard(int i) const;
  /// Shard i as a batch of its own; shares the slab, which goes back when both are gone.
  Batch share(int i) const;
  /// The valid samples over all local shards.
  std::int64_t valid() const;

  // For a batch of one shard; only the valid samples. @throws InputError when there are more shards.
  Tensor images() const;  ///< [valid, C, H, W], channels-last.
  Tensor labels() const;  ///< i64 [valid]
  Tensor ids() const;     ///< i64 [valid]
  /// What a loss is measured against: f32 [valid, classes] where mixup or cutmix mix the samples, else
  /// labels.
  Tensor targets() const;
  Tensor field(std::string_view name) const;
  /// Gives the slabs back early.
  void release();

 private:
  friend class Loader;
  struct State;
  std::shared_ptr<State> state_;
};

/// Loads a data set epoch by epoch: a flow graph reads, decodes and augments each sample straight into its
/// place in a slab.
///
/// Which samples a batch holds and which random numbers they get follows from (seed, epoch, sample) alone,
/// never from threads. A bad sample is an error thrown by the `next` whose batch it is in, or masked, or
/// substituted, as the options say; nothing hangs.
/// One consumer thread.
class Loader {
 public:
  Loader(std::shared_ptr<const Dataset> dataset, LoaderOptions options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  const Dataset& dataset() const;
  const LoaderOptions& options() const;
  std::int64_t steps_per_epoch() const;
  /// Per image: C, H, W after the transforms.
  const Shape& image_shape() const;

  /// Starts epoch `number` from its first batch: `for (const Batch& batch : loader.epoch(0))`. Ends the one
  /// before. Right after `restore`, the state's epoch goes on behind the batches that were taken.
  class Epoch;
  Epoch epoch(std::int64_t number);
  /// The next batch of the epoch that was started; false at its end. What `batch` held before is released
  /// first.
  /// @throws what a sample's reading or decoding threw, once its batch's turn comes; the next call goes on
  /// after it.
  /// @throws MachineError when none came within the timeout, naming the stage that is stuck.
  bool next(Batch& batch);

  /// Samples of the batches taken so far, and those of them that could not be read or decoded.
  std::int64_t samples() const;
  std::int64_t bad_samples() const;

  /// What was taken so far: the batches that `next` and the loops over an epoch gave, failed ones included,
  /// not what is prepared. Its fingerprint is by the definition `fingerprint_version`, for comparison with an
  /// older state.
  LoaderState state(int fingerprint_version = Dataset::kFingerprintVersion) const;
  /// Goes on where a loader was when it gave `state`, with `next` or with `epoch(state.epoch)`; this one may
  /// have other threads, slabs, shards and local shards.
  /// @throws InputError when this loader's order, seed, batch size or data set is another; it names both.
  void restore(const LoaderState& state);

  /// Where the time went so far. Asked by the consumer's thread.
  LoaderStatistics statistics() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The type in which a loader best feeds images to a trainer that computes on `device` in `dtype`: bytes to
/// GPUs, which normalize them to the same bits, unless transforms change numbers (cutout, mixup, cutmix).
DType feed_type(Device device, DType dtype, std::string_view transforms);

/// A range over the batches of one epoch; each batch is released when the loop moves on.
class Loader::Epoch {
 public:
  class Iterator {
   public:
    using value_type = Batch;
    const Batch& operator*() const { return epoch_->batch_; }
    Iterator& operator++();
    bool operator!=(const Iterator& other) const { return epoch_ != other.epoch_; }

   private:
    friend class Epoch;
    explicit Iterator(Epoch* epoch) : epoch_(epoch) {}
    Epoch* epoch_;  // null at the end
  };
  Iterator begin();
  Iterator end() { return Iterator(nullptr); }

 private:
  friend class Loader;
  explicit Epoch(Loader& loader) : loader_(&loader) {}
  Loader* loader_;
  Batch batch_;
};

}  // namespace millrace
