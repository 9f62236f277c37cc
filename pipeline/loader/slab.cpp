#include "pipeline/loader/slab.h"

#include <algorithm>
#include <cstring>
#include <span>

namespace millrace {
namespace {

/// Fields start where a GPU's vector loads may.
constexpr std::int64_t kAlignment = 256;

std::int64_t elements_of(std::int64_t samples, const FieldSpec& spec) { return samples * spec.shape.numel(); }

std::int64_t aligned_bytes(std::int64_t samples, const FieldSpec& spec) {
  const std::int64_t bytes = elements_of(samples, spec) * static_cast<std::int64_t>(size_of(spec.dtype));
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

const FieldSpec kIds{"ids", DType::i64, {}};

Tensor zeroed_block(std::int64_t samples, const std::vector<FieldSpec>& fields, Device device) {
  std::int64_t bytes = aligned_bytes(samples, kIds);
  for (const FieldSpec& spec : fields) {
    bytes += aligned_bytes(samples, spec);
  }
  if (device.is_cuda()) {
    return zeros({bytes}, {.dtype = DType::u8, .device = device});
  }
  auto storage = Storage::allocate_pinned(static_cast<std::size_t>(bytes));
  std::memset(storage->data(), 0, storage->bytes());
  return {std::move(storage), 0, {bytes}, {1}, DType::u8};
}

/// The part of `block` from `offset` on, with a version count of its own; `offset` moves behind it.
Tensor take_field(const Tensor& block, std::int64_t& offset, std::int64_t samples, const FieldSpec& spec) {
  Shape shape{samples};
  for (const std::int64_t size : spec.shape) {
    shape.push_back(size);
  }
  const auto format = spec.shape.size() == 3 ? MemoryFormat::channels_last : MemoryFormat::row_major;
  const auto bytes = static_cast<std::size_t>(elements_of(samples, spec)) * size_of(spec.dtype);
  auto part = Storage::part_of(block.storage(), static_cast<std::size_t>(offset), bytes);
  offset += aligned_bytes(samples, spec);
  return {std::move(part), 0, shape, dense_strides(shape, format), spec.dtype};
}

}  // namespace

Slab::Slab(std::int64_t samples, const std::vector<FieldSpec>& fields, Device device)
    : samples_(samples),
      memory_(zeroed_block(samples, fields, device)),
      lent_(new Event, [](const Event* lent) {
        end_loan(*lent);
        delete lent;
      }) {
  std::int64_t offset = 0;
  ids_ = take_field(memory_, offset, samples, kIds);
  for (const FieldSpec& spec : fields) {
    fields_.emplace_back(spec.name, take_field(memory_, offset, samples, spec));
  }
}

std::vector<FieldSpec> Slab::fields() const {
  std::vector<FieldSpec> specs;
  for (const auto& [name, tensor] : fields_) {
    const Shape& shape = tensor.shape();
    specs.push_back({name, tensor.dtype(), Shape(std::span(shape.begin() + 1, shape.end()))});
  }
  return specs;
}

Slab Slab::with_field(std::string_view name, Tensor tensor) const {
  Slab changed = *this;
  for (auto& [field_name, field] : changed.fields_) {
    if (field_name == name) {
      field = tensor;
    }
  }
  return changed;
}

void Slab::end_loan(const Event& lent) noexcept {
  try {
    lent.await();
  } catch (const MachineError&) {  // the device failed, and nobody reads the memory any more
  }
}

bool Slab::has_form_of(const Slab& other) const {
  const auto is_like = [](const auto& a, const auto& b) {
    return a.first == b.first && a.second.dtype() == b.second.dtype() && a.second.shape() == b.second.shape();
  };
  return samples_ == other.samples_ && std::ranges::equal(fields_, other.fields_, is_like);
}

void Slab::copy_from(const Slab& other) {
  memory_.copy_(other.memory_);
  memory_.storage()->record_stream(current_stream(memory_.device()));
  valid = other.valid;
  first_position = other.first_position;
  pixel_scale = other.pixel_scale;
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

std::vector<Tensor> Slab::tensors() const {
  std::vector<Tensor> all{ids_};
  all.reserve(1 + fields_.size());
  for (const auto& [name, tensor] : fields_) {
    all.push_back(tensor);
  }
  return all;
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
