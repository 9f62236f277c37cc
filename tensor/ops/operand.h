#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "tensor/tensor.h"

/// What operations share: checks of their operands, and the memory order of their results.
namespace millrace {

/// @throws InputError when an operand is undefined or they live on different devices.
void check_operands(std::string_view operation, std::initializer_list<const Tensor*> operands);

/// @throws InputError when `tensor` has no value, or several of its elements are one in memory.
void check_writable(std::string_view name, const Tensor& tensor);

/// @throws InputError unless `out` can be written into and has the result's shape, type and device.
void check_output(std::string_view name, const Shape& shape, DType dtype, Device device, const Tensor& out);

/// An uninitialized result. It takes the strides of the first operand of its shape when those are dense, so
/// that channels-last images stay so.
Tensor result_like(const Shape& shape, DType dtype, std::initializer_list<const Tensor*> operands);

/// What an operation makes.
struct Result {
  std::string_view operation;
  Shape shape;
  DType dtype;
  /// Each element comes from those at its own place: `out` may be an operand. Else a new one has `format`.
  bool elementwise = true;
  MemoryFormat format = MemoryFormat::row_major;
};

/// Whether writing a result into `out` would change operands before they are read.
bool disturbs(const Tensor& out, std::initializer_list<const Tensor*> operands, bool elementwise);

/// Calls `launch(out)` on `given`, or on a new tensor where that is null or shares memory with the operands.
/// @throws InputError when the result does not fit into `given`.
template <typename Launch>
Tensor produce(const Result& result, std::initializer_list<const Tensor*> operands, Tensor* given,
               Launch&& launch) {
  const Device device = (*operands.begin())->device();
  if (given != nullptr) {
    check_output(result.operation, result.shape, result.dtype, device, *given);
    if (!disturbs(*given, operands, result.elementwise)) {
      given->storage()->bump_version();
      launch(*given);
      return *given;
    }
  }
  Tensor out = result.elementwise
                   ? result_like(result.shape, result.dtype, operands)
                   : empty(result.shape, {.dtype = result.dtype, .device = device, .format = result.format});
  launch(out);
  return given == nullptr ? out : given->copy_(out);
}

/// Copies a finished result into `out`. @throws InputError when it does not fit.
void deliver(std::string_view operation, const Tensor& result, Tensor& out);

/// The axes that a reduction removes.
struct Axes {
  bool reduced[kMaxDims] = {};
  std::int64_t count = 1;  ///< Elements that meet in one result.
  Shape kept;              ///< The shape with reduced axes of size 1.
  Shape dropped;           ///< The shape without them.
};
/// All axes when `dims` is empty. @throws InputError on an axis out of range or named twice.
Axes reduced_axes(const Shape& shape, const std::vector<int>& dims, std::string_view operation);

}  // namespace millrace
