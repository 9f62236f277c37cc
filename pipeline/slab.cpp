#include "pipeline/slab.h"

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
