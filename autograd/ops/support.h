#pragma once

#include <string_view>

#include "autograd/function.h"
#include "autograd/ops.h"
#include "tensor/ops.h"

/// What the operations' sources share; not for users.
namespace millrace::detail {

/// The tensor to save for the gradient of `other`; nothing when `other` wants none.
inline SavedTensor saved_for(const Variable& other, const Tensor& tensor) {
  return other.requires_grad() ? SavedTensor(tensor) : SavedTensor();
}

/// `tensor` in the strides of `like` (same shape), copied only where they differ.
Tensor in_order_of(const Tensor& like, const Tensor& tensor);

/// @throws InputError unless x has four dimensions and is f32 or bf16. Returns it stored channels-last.
Tensor image_input(const Variable& x, std::string_view operation);
/// A new image tensor, channels-last.
Tensor empty_image(const Shape& shape, const Tensor& like);
/// The destination of input i's gradient for a kernel that writes channels-last.
Tensor image_destination(const InputGradients& inputs, int i, const Shape& shape, const Tensor& gradient);

/// The row-major value of a weight or bias, undefined when the variable is.
inline Tensor dense_value(const Variable& variable) {
  return variable.defined() ? variable.data().contiguous() : Tensor();
}
/// The operations of a forward pass in which each of so many results is a product with one row of `weight`.
double operations_with(const Variable& weight, std::int64_t results);
/// How many windows fit; 0 when not even one does.
std::int64_t window_count(std::int64_t size, std::int64_t kernel, std::int64_t stride, std::int64_t padding);

}  // namespace millrace::detail
