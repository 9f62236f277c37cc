#include "autograd/ops/support.h"

namespace millrace::detail {

Tensor in_order_of(const Tensor& like, const Tensor& tensor) {
  if (tensor.strides() == like.strides()) {
    return tensor;
  }
  if (like.is_contiguous()) {
    return tensor.contiguous();
  }
  if (like.is_contiguous(MemoryFormat::channels_last)) {
    return tensor.contiguous(MemoryFormat::channels_last);
  }
  Tensor out = empty_like(like);
  out.copy_(tensor);
  return out;
}

Tensor image_input(const Variable& x, std::string_view operation) {
  if (x.dim() != 4) {
    throw InputError("{}: expected an input [N, C, H, W], got {}", operation, x.shape());
  }
  if (!is_floating(x.dtype())) {
    throw InputError("{}: expected f32 or bf16, got {} {}; convert with to()", operation, x.dtype(),
                     x.shape());
  }
  return x.data().contiguous(MemoryFormat::channels_last);
}

Tensor empty_image(const Shape& shape, const Tensor& like) {
  return empty(shape,
               {.dtype = like.dtype(), .device = like.device(), .format = MemoryFormat::channels_last});
}

Tensor image_destination(const InputGradients& inputs, int i, const Shape& shape, const Tensor& gradient) {
  Tensor destination = inputs.destination(i);
  return destination.is_contiguous(MemoryFormat::channels_last) && destination.dtype() == gradient.dtype()
             ? destination
             : empty_image(shape, gradient);
}

double operations_with(const Variable& weight, std::int64_t results) {
  if (!weight.requires_grad() || weight.size(0) == 0) {
    return 0;
  }
  const auto row = static_cast<double>(weight.data().numel() / weight.size(0));
  return 2 * static_cast<double>(results) * row;
}

std::int64_t window_count(std::int64_t size, std::int64_t kernel, std::int64_t stride, std::int64_t padding) {
  return size + 2 * padding < kernel ? 0 : (size + 2 * padding - kernel) / stride + 1;
}

}  // namespace millrace::detail
