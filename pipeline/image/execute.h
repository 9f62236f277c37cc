#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dataio/dataset.h"
#include "dataio/sampler.h"
#include "pipeline/image/batch_mix.h"
#include "pipeline/image/decode.h"
#include "pipeline/image/loader.h"
#include "pipeline/image/pixel_writer.h"
#include "pipeline/image/transform.h"
#include "pipeline/loader/slab.h"
#include "pipeline/loader/stage_clock.h"

namespace millrace {

/// Makes samples: reads, plans, decodes and writes one into its place in a slab. The loader's workers call
/// it, and so can any other thread. Immutable and shared; each thread brings a Scratch of its own.
class SampleExecutor {
 public:
  struct Scratch {
    std::array<std::vector<std::byte>, 3> bytes;  // of this sample, the next, and a substitute
    Decoder decoder;
    PixelWriter::Scratch pixels;
    std::atomic<std::int64_t> sample =
        -1;  ///< Being made now, for whoever wants to know where a thread hangs.
    StageClock clock;
    std::vector<BadSample> bad;  ///< Of the last `execute`.
  };
  /// Samples that a reader thread has brought into memory, or why it could not.
  struct Fetched {
    std::vector<Sample> samples;
    std::vector<std::exception_ptr> errors;
    std::vector<std::vector<std::byte>> bytes;
  };

  /// Learns the image size from the data set, or from its first image where the data set does not know it.
  /// Of `options` it takes how samples are decoded and transformed, and the seed.
  /// @throws InputError when a transform, the mean or the deviation does not fit, or the first image cannot
  /// be read.
  SampleExecutor(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options);

  const Dataset& dataset() const { return *dataset_; }
  /// C, H, W after the transforms.
  const Shape& image_shape() const { return image_shape_; }
  /// What a slab for these samples holds: "image", "label" and, when they are mixed, "soft_label".
  std::vector<FieldSpec> fields() const;
  /// What is left to do for images in u8; null for others.
  std::shared_ptr<const PixelScale> pixel_scale() const;
  /// How many samples make a task long enough to hide its cost and short enough to share out.
  int chunk() const { return chunk_; }

  /// Brings samples [begin, end) of `slab` into memory for `execute`, also those that are mapped.
  void fetch(const Slab& slab, std::int64_t begin, std::int64_t end, Fetched& fetched,
             Scratch& scratch) const;
  /// Fills samples [begin, end) of `slab` with those that its `ids()` name; -1 becomes zeros, label -1. It
  /// reads them, unless they were fetched. A sample that cannot be read, decoded or fitted into the slab is
  /// masked (zeros, id and label -1) or substituted, and told in `scratch.bad`.
  /// @throws InputError naming the bad sample, when it is to fail. @throws TransformError in any case.
  void execute(Slab& slab, std::int64_t epoch, std::int64_t begin, std::int64_t end, Scratch& scratch,
               const Fetched* fetched = nullptr) const;

  /// Once a whole slab is executed: moves valid samples up over masked ones, and mixes the samples.
  void finish(Slab& slab, const PlannedShard& planned) const;

 private:
  /// A sample as stored, or why there is none.
  struct Read {
    Sample sample;
    std::exception_ptr error;
  };

  Read read(std::int64_t id, std::vector<std::byte>& bytes, Scratch& scratch) const;
  void fill(Slab& slab, std::int64_t epoch, std::int64_t begin, std::int64_t end, Scratch& scratch,
            const Fetched* fetched) const;
  void make(const Sample& sample, std::int64_t index, std::int64_t epoch, std::byte* image,
            Scratch& scratch) const;
  void replace(Slab& slab, std::int64_t epoch, std::int64_t i, std::string_view reason,
               Scratch& scratch) const;
  SamplePlan make_plan(Size2 source, std::int64_t index, std::int64_t epoch) const;
  void learn_sizes();
  void learn_sizes_from(std::int64_t index);

  std::shared_ptr<const Dataset> dataset_;
  std::vector<std::shared_ptr<const Transform>> transforms_;
  BatchMix mix_;
  BadSamples bad_samples_;
  DecodeOptions decode_;
  std::uint64_t seed_;
  DType dtype_;
  int channels_;
  int chunk_ = 0;
  int timed_every_ = 1;     // so many samples: reading the clock costs as much as a small image's stage
  std::int64_t first_ = 0;  // the first sample that is not bad
  Size2 first_size_ = 0, output_ = 0;  // its size, before and after the transforms
  Shape image_shape_;
  std::optional<PixelWriter> writer_;
};

}  // namespace millrace
