#include "pipeline/slab.h"

#include <algorithm>
#include <cstring>

namespace millrace {
namespace {

Tensor pinned_zeros(std::int64_t samples, const FieldSpec& spec) {
  Shape shape{samples};
  std::int64_t elements = samples;
  for (const std::int64_t size : spec.shape) {
    shape.push_back(size);
    elements *= size;
  }
  const auto format = spec.shape.size() == 3 ? MemoryFormat::channels_last : MemoryFormat::row_major;
  auto storage = Storage::allocate_pinned(static_cast<std::size_t>(elements) * size_of(spec.dtype));
  std::memset(storage->data(), 0, storage->bytes());
  return {std::move(storage), 0, shape, dense_strides(shape, format), spec.dtype};
}

}  // namespace

Slab::Slab(std::int64_t samples, const std::vector<FieldSpec>& fields)
    : samples_(samples), ids_(pinned_zeros(samples, {"ids", DType::i64, {}})) {
  for (const FieldSpec& spec : fields) {
    fields_.emplace_back(spec.name, pinned_zeros(samples, spec));
  }
}

void Slab::close_gaps() {
  const auto* ids = ids_.data<std::int64_t>();
  std::vector<std::int64_t> kept;
  for (std::int64_t i = 0; i < valid; ++i) {
    if (ids[i] >= 0) {
      kept.push_back(i);
    }
  }
  if (std::ssize(kept) == valid) {
    return;
  }
  const auto close = [&](const Tensor& tensor) {
    const std::size_t size = static_cast<std::size_t>(tensor.numel() / samples_) * size_of(tensor.dtype());
    std::byte* to = tensor.raw();
    for (const std::int64_t i : kept) {
      std::memmove(to, tensor.raw() + static_cast<std::size_t>(i) * size, size);
      to += size;
    }
    std::memset(to, 0, (static_cast<std::size_t>(valid) - kept.size()) * size);
  };
  for (const auto& [name, tensor] : fields_) {
    close(tensor);
  }
  close(ids_);
  std::fill(ids_.data<std::int64_t>() + kept.size(), ids_.data<std::int64_t>() + valid, std::int64_t{-1});
  valid = std::ssize(kept);
}

bool Slab::has_field(std::string_view name) const {
  return std::any_of(fields_.begin(), fields_.end(),
                     [name](const auto& field) { return field.first == name; });
}

const Tensor& Slab::field(std::string_view name) const {
  std::string known;
  for (const auto& [field_name, tensor] : fields_) {
    if (field_name == name) {
      return tensor;
    }
    known += (known.empty() ? "" : ", ") + field_name;
  }
  throw InputError("batch: there is no field '{}'; its fields are: {}", name, known);
}

}  // namespace millrace
