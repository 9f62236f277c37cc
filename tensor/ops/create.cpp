#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/recording.h"
#include "tensor/tensor.h"

namespace millrace {

namespace {

/// Bytes of a dense tensor. @throws InputError on a negative size or more bytes than can be counted.
std::size_t checked_bytes(const Shape& shape, DType dtype) {
  std::int64_t bytes = static_cast<std::int64_t>(size_of(dtype));
  for (std::int64_t size : shape) {
    if (size < 0) {
      throw InputError("empty: shape {} has a negative size", shape);
    }
    if (__builtin_mul_overflow(bytes, size, &bytes)) {
      throw InputError("empty: shape {} is too large", shape);
    }
  }
  return static_cast<std::size_t>(bytes);
}

}  // namespace

Tensor empty(const Shape& shape, TensorOptions options) {
  return Tensor(Storage::allocate(checked_bytes(shape, options.dtype), options.device), 0, shape,
                dense_strides(shape, options.format), options.dtype);
}

Tensor empty_like(const Tensor& tensor) {
  return Tensor(Storage::allocate(tensor.bytes(), tensor.device()), 0, tensor.shape(),
                tensor.is_dense() ? tensor.strides() : dense_strides(tensor.shape()), tensor.dtype());
}

Tensor full(const Shape& shape, double value, TensorOptions options) {
  Tensor out = empty(shape, options);
  MILLRACE_LAUNCH(options.device, fill, out, value);
  return out;
}

Tensor zeros(const Shape& shape, TensorOptions options) { return full(shape, 0, options); }
Tensor ones(const Shape& shape, TensorOptions options) { return full(shape, 1, options); }

Tensor arange(double start, double end, double step, TensorOptions options) {
  const double count = std::ceil((end - start) / step);
  if (!(step != 0 && count < 0x1p53)) {
    throw InputError(
        "arange: got start {}, end {}, step {}; expected finite numbers and a step that is not 0", start, end,
        step);
  }
  Tensor out = empty({static_cast<std::int64_t>(std::max(count, 0.0))}, options);
  MILLRACE_LAUNCH(options.device, arange, start, step, out);
  return out;
}

template <>
Tensor tensor<double>(std::initializer_list<double> values, TensorOptions options) {
  refuse_recording("it makes a tensor of numbers on the host");
  Tensor out = empty({static_cast<std::int64_t>(values.size())}, {.dtype = options.dtype});
  visit(options.dtype, [&]<typename T>() {
    std::transform(values.begin(), values.end(), out.data<T>(),
                   [](double value) { return static_cast<T>(value); });
  });
  return out.to(options.device);
}

Tensor tensor(std::initializer_list<std::initializer_list<double>> rows, TensorOptions options) {
  if (rows.size() == 0) {
    return empty({0}, options);
  }
  const auto columns = static_cast<std::int64_t>(rows.begin()->size());
  Tensor out = empty({static_cast<std::int64_t>(rows.size()), columns}, {.dtype = options.dtype});
  std::int64_t row = 0;
  for (const auto& values : rows) {
    if (static_cast<std::int64_t>(values.size()) != columns) {
      throw InputError("tensor: row {} has {} numbers, the first has {}", row, values.size(), columns);
    }
    out.select(0, row++).copy_(tensor<double>(values, {.dtype = options.dtype}));
  }
  return out.to(options.device);
}

Tensor from_blob(void* data, const Shape& shape, TensorOptions options, std::function<void()> release) {
  return from_blob(data, shape, dense_strides(shape, options.format), options, std::move(release));
}

Tensor from_blob(void* data, const Shape& shape, const Strides& strides, TensorOptions options,
                 std::function<void()> release) {
  if (shape.size() != strides.size()) {
    throw InputError("from_blob: got shape {} with strides {}", shape, strides);
  }
  refuse_recording("it makes a tensor of memory that others write");
  checked_bytes(shape, options.dtype);
  std::int64_t last = 0;
  for (int i = 0; i < shape.size(); ++i) {
    if (strides[i] < 0) {
      throw InputError("from_blob: got strides {}, expected none below 0", strides);
    }
    last += (shape[i] - 1) * strides[i];
  }
  const std::int64_t count = shape.numel() == 0 ? 0 : last + 1;
  return Tensor(Storage::wrap(data, static_cast<std::size_t>(count) * size_of(options.dtype), options.device,
                              std::move(release)),
                0, shape, strides, options.dtype);
}

}  // namespace millrace
