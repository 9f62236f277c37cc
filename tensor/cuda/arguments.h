#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tensor/tensor.h"

namespace millrace::cuda {

/// Any strides; or elements that fill their memory row by row, with channels innermost, or in any one order.
enum class Order : std::uint8_t { any, row_major, channels_last, dense };

/// What a kernel takes for one tensor.
struct Argument {
  std::string_view name;
  std::uint8_t types = 0;  ///< A bit for each DType.
  Order order = Order::any;
  std::string_view like = {};  ///< Has the type of that argument, and its strides where both are dense.
  bool optional = false;       ///< May be undefined.
};

/// What a kernel takes for its tensors, in order; see tensor/kernels/ for shapes. It stands in front of the
/// kernel's launcher, which begins with `check`.
class KernelRow {
 public:
  template <typename... Parameters>
  KernelRow(std::string_view name, void (*launcher)(Parameters...), std::initializer_list<Argument> each)
      : kernel(name), arguments(each), launch_on_nothing([launcher] {
          Tensor nothing;
          launcher(default_for<Parameters>(nothing)...);
        }) {
    add();
  }
  KernelRow(const KernelRow&) = delete;
  KernelRow& operator=(const KernelRow&) = delete;

  /// Once for a launch, on the host.
  /// @throws InputError "KERNEL: got NAME ..., expected ..." when a tensor's type, layout, device or address
  /// is not what the row says.
  void check(std::span<const Tensor* const> tensors) const;
  void check(std::initializer_list<const Tensor*> tensors) const {
    check(std::span(tensors.begin(), tensors.size()));
  }

  const std::string_view kernel;
  const std::vector<Argument> arguments;
  /// Calls the launcher with undefined tensors, which `check` has to refuse.
  const std::function<void()> launch_on_nothing;

 private:
  template <typename Parameter>
  static decltype(auto) default_for(Tensor& nothing) {
    if constexpr (std::is_same_v<std::decay_t<Parameter>, Tensor>) {
      return (nothing);
    } else {
      return std::decay_t<Parameter>{};
    }
  }
  void add() const;
};

/// The rows of all launchers of our own kernels in this program.
std::span<const KernelRow* const> kernel_table();

/// What rows are made of.
namespace takes {

constexpr std::uint8_t types(std::initializer_list<DType> each) {
  std::uint8_t result = 0;
  for (const DType type : each) {
    result |= static_cast<std::uint8_t>(1 << static_cast<int>(type));
  }
  return result;
}
inline constexpr std::uint8_t kF32 = types({DType::f32}), kU8 = types({DType::u8}),
                              kI64 = types({DType::i64}), kPlace = types({DType::u8, DType::i32}),
                              kActivation = types({DType::f32, DType::bf16, DType::f16}),
                              kFloat = kActivation | types({DType::f64}),
                              kAll = kFloat | types({DType::u8, DType::i32, DType::i64});

constexpr Argument any(std::string_view name) { return {name, kAll, Order::any}; }
constexpr Argument like_out(std::string_view name) { return {name, kAll, Order::any, "out"}; }
constexpr Argument vector(std::string_view name) { return {name, kF32, Order::row_major}; }
constexpr Argument maybe_vector(std::string_view name) { return {name, kF32, Order::row_major, {}, true}; }
constexpr Argument image(std::string_view name) { return {name, kActivation, Order::channels_last}; }
constexpr Argument image_like(std::string_view like, std::string_view name) {
  return {name, kActivation, Order::channels_last, like};
}
constexpr Argument maybe_image_like(std::string_view like, std::string_view name) {
  return {name, kActivation, Order::channels_last, like, true};
}
constexpr Argument rows(std::string_view name, std::string_view like = {}) {
  return {name, kActivation, Order::row_major, like};
}

}  // namespace takes

}  // namespace millrace::cuda
