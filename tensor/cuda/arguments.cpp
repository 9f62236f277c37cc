#include "tensor/cuda/arguments.h"

#include <algorithm>
#include <cassert>
#include <fmt/format.h>
#include <string>

namespace millrace::cuda {
namespace {

std::vector<const KernelRow*>& rows() {
  static std::vector<const KernelRow*> made;  // at its first use: rows are made before main begins
  return made;
}

bool has_order(const Tensor& tensor, Order order) {
  switch (order) {
    case Order::any:
      return true;
    case Order::row_major:
      return tensor.is_contiguous();
    case Order::channels_last:
      return tensor.is_contiguous(MemoryFormat::channels_last);
    case Order::dense:
      return tensor.is_dense();
  }
  return false;
}

std::string describe(const Argument& argument) {
  std::string text;
  for (const DType type :
       {DType::f32, DType::bf16, DType::f16, DType::f64, DType::u8, DType::i32, DType::i64}) {
    if ((argument.types & takes::types({type})) != 0) {
      text += fmt::format("{}{}", text.empty() ? "" : " or ", name_of(type));
    }
  }
  constexpr const char* kOrders[] = {"", ", dense and row-major", ", dense and channels-last", ", dense"};
  text += kOrders[static_cast<int>(argument.order)];
  return argument.like.empty() ? text : text + fmt::format(", and as {} is", argument.like);
}

[[noreturn]] void refuse(std::string_view kernel, const Argument& argument, const Tensor& tensor) {
  if (!tensor.defined()) {
    throw InputError("{}: got no {}, expected {}", kernel, argument.name, describe(argument));
  }
  throw InputError("{}: got {} in {} {}, strides {}, on {} at {}, expected {}, all on one GPU", kernel,
                   argument.name, tensor.dtype(), tensor.shape(), tensor.strides(),
                   tensor.device().to_string(), static_cast<const void*>(tensor.raw()), describe(argument));
}

bool is_like(const Tensor& tensor, const Tensor& other, Order order) {
  return tensor.dtype() == other.dtype() && (order != Order::dense || tensor.strides() == other.strides());
}

}  // namespace

std::span<const KernelRow* const> kernel_table() { return rows(); }

void KernelRow::add() const { rows().push_back(this); }

void KernelRow::check(std::span<const Tensor* const> tensors) const {
  assert(tensors.size() == arguments.size());
  const auto first = std::ranges::find_if(tensors, &Tensor::defined);
  const Device device = first == tensors.end() ? kCpu : (*first)->device();
  const auto fits = [&](const Argument& argument, const Tensor& tensor) {
    return tensor.defined()
               ? (argument.types >> static_cast<int>(tensor.dtype()) & 1) != 0 &&
                     has_order(tensor, argument.order) && tensor.device() == device && device.is_cuda() &&
                     reinterpret_cast<std::uintptr_t>(tensor.raw()) % size_of(tensor.dtype()) == 0
               : argument.optional;
  };
  const auto fits_others = [&](const Argument& argument, const Tensor& tensor) {
    if (argument.like.empty() || !tensor.defined()) {
      return true;
    }
    const auto other = std::ranges::find(arguments, argument.like, &Argument::name);
    return is_like(tensor, *tensors[static_cast<std::size_t>(other - arguments.begin())], argument.order);
  };
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!fits(arguments[i], *tensors[i])) {
      refuse(kernel, arguments[i], *tensors[i]);
    }
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!fits_others(arguments[i], *tensors[i])) {
      refuse(kernel, arguments[i], *tensors[i]);
    }
  }
}

}  // namespace millrace::cuda
