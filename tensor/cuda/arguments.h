#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>

#include "tensor/tensor.h"

namespace millrace::cuda {

/// Any strides; or elements that fill their memory row by row, with channels innermost, or in any one order.
enum class Order : std::uint8_t { any, row_major, channels_last, dense };

/// What a kernel takes for one tensor.
struct Argument {
  std::string_view name;   ///< Empty: there is no further argument.
  std::uint8_t types = 0;  ///< A bit for each DType.
  Order order = Order::any;
  std::string_view like = {};  ///< Has the type of that argument, and its strides where both are dense.
  bool optional = false;       ///< May be undefined.
};
struct KernelRow {
  std::string_view kernel;
  std::array<Argument, 10> arguments;
};
/// One row for each kernel in tensor/kernels/ that runs on GPUs; see there for shapes.
std::span<const KernelRow> kernel_table();

/// Called where a kernel's launcher begins, with its tensors in order: once for a launch, on the host.
/// @throws InputError "KERNEL: got NAME ..., expected ..." when a tensor's type, layout, device or address is
/// not what the table says.
void check_arguments(std::string_view kernel, std::span<const Tensor* const> tensors);
inline void check_arguments(std::string_view kernel, std::initializer_list<const Tensor*> tensors) {
  check_arguments(kernel, std::span(tensors.begin(), tensors.size()));
}

}  // namespace millrace::cuda
