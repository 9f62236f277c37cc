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
