#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace millrace {

/// One value per sample of a slab: images, labels, soft labels.
struct FieldSpec {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;  ///< Per sample: {3, 32, 32} for an image (stored channels-last), {} for a label.
};

/// How the bytes of an image become numbers: scale * byte + bias, each f32 [C].
struct PixelScale {
  Tensor scale, bias;
};

/// The memory of one shard of a batch: sample ids, a valid mask and named fields, all in one block, so that
/// it travels in one copy. Allocated once, pinned where there is a GPU.
class Slab {
 public:
  /// Zeroed, so that its pages are in memory before the first sample comes. One on a GPU is filled by
  /// `copy_from`.
  Slab(std::int64_t samples, const std::vector<FieldSpec>& fields, Device device = kCpu);

  std::int64_t samples() const { return samples_; }
  std::vector<FieldSpec> fields() const;
  /// Whether both have the same samples and fields.
  bool has_form_of(const Slab& other) const;
  /// Takes over the contents of a slab with the same samples and fields, on the current stream.
  void copy_from(const Slab& other);
  /// The same memory, with another tensor as a field.
  Slab with_field(std::string_view name, Tensor tensor) const;
  /// What `stream` holds now reads the slab, which must not be filled anew before.
  void lend(const Stream& stream) const { lent_->record(stream); }
  void wait_until_returned() const { end_loan(*lent_); }
  /// The whole field, [samples, ...]; images are N, C, H, W in channels-last memory.
  /// @throws InputError on an unknown name; the message lists the known ones.
  const Tensor& field(std::string_view name) const;
  bool has_field(std::string_view name) const;
  std::vector<Tensor> tensors() const;  ///< The ids, then the fields.
  Tensor& ids() { return ids_; }        ///< i64 [samples]: index into the data set, -1 where masked.
  const Tensor& ids() const { return ids_; }
  /// Valid samples whose id is -1 are taken out: the ones behind move up, in order, and the places that are
  /// left at the end become zeros with id -1.
  void close_gaps();
  /// Valid samples; they are the first ones, and the rest is padding.
  std::int64_t valid = 0;
  std::int64_t first_position = 0;  ///< Of the first sample, in the global batch.
  /// For images in u8 that a GPU is to normalize.
  std::shared_ptr<const PixelScale> pixel_scale;

 private:
  static void end_loan(const Event& lent) noexcept;

  std::int64_t samples_;
  Tensor memory_;  // u8; the rest are parts of it
  Tensor ids_;
  std::vector<std::pair<std::string, Tensor>> fields_;
  std::shared_ptr<Event> lent_;  // last: it is waited for before the memory goes
};

}  // namespace millrace
