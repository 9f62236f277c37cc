#pragma once

#include <array>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "tensor/config.h"
#include "tensor/tensor.h"

/// What may stand between a caller and the kernels of its thread: a hook that times or records them.
namespace millrace {

/// How a launch that is kept holds a tensor.
using Hold = std::function<std::shared_ptr<Tensor>(const Tensor&)>;
inline std::shared_ptr<Tensor> hold_itself(const Tensor& tensor) { return std::make_shared<Tensor>(tensor); }

/// One launch of a kernel, valid while the hook runs.
struct KernelLaunch {
  std::string_view kernel;     ///< As it is declared. A literal.
  std::string_view operation;  ///< Of a kernel that does several: "gelu". A literal, or empty.
  std::span<const Tensor* const> tensors = {};  ///< The arguments that are tensors; some are undefined.
  std::function<void()> run = {};               ///< Runs the kernel: the hook has to, once.
  /// The launch, to be run at any time, on the tensors that `hold` gives for its own.
  std::function<std::function<void()>(const Hold& hold)> keep = {};
};

using LaunchHook = std::function<void(const KernelLaunch&)>;
/// Called in place of each kernel that this thread launches; null, as a rule. Not owned.
inline constinit thread_local const LaunchHook* launch_hook = nullptr;

namespace detail {

template <typename... Arguments>
std::string_view operation_among(const Arguments&... arguments) {
  std::string_view operation;
  const auto take = [&](const auto& argument) {
    if constexpr (requires { word(argument); }) {
      operation = word(argument);
    }
  };
  (take(arguments), ...);
  return operation;
}

template <typename Argument>
auto held(const Argument& argument, const Hold& hold) {
  if constexpr (std::is_same_v<Argument, Tensor>) {
    return hold(argument);
  } else {
    return argument;
  }
}

template <typename Held>
auto& value_of(Held& held) {
  if constexpr (std::is_same_v<Held, std::shared_ptr<Tensor>>) {
    return *held;
  } else {
    return held;
  }
}

template <typename Kernel, typename... Arguments>
[[gnu::noinline]] void launch_hooked(std::string_view name, const Kernel& kernel, Arguments&... arguments) {
  constexpr std::size_t kTensors = (std::is_same_v<std::remove_const_t<Arguments>, Tensor> + ...);
  std::array<const Tensor*, kTensors> tensors{};
  std::size_t count = 0;
  const auto take = [&](const auto& argument) {
    if constexpr (std::is_same_v<std::decay_t<decltype(argument)>, Tensor>) {
      tensors[count++] = &argument;
    }
  };
  (take(arguments), ...);
  (*launch_hook)({.kernel = name,
                  .operation = operation_among(arguments...),
                  .tensors = tensors,
                  .run = [&] { kernel(arguments...); },
                  .keep = [&](const Hold& hold) -> std::function<void()> {
                    return [kernel, kept = std::tuple(held(arguments, hold)...)]() mutable {
                      std::apply([&](auto&... each) { kernel(value_of(each)...); }, kept);
                    };
                  }});
}

template <typename Kernel, typename... Arguments>
void launch(std::string_view name, const Kernel& kernel, Arguments&&... arguments) {
  if (launch_hook == nullptr) [[likely]] {
    kernel(arguments...);
  } else {
    launch_hooked(name, kernel, arguments...);
  }
}

}  // namespace detail

}  // namespace millrace

/// Runs a kernel on `device`, by way of this thread's launch hook where there is one. Without CUDA the second
/// branch is discarded, so no stub is needed; with CUDA a missing kernel is a link error.
#define MILLRACE_LAUNCH(device, name, ...)               \
  ::millrace::detail::launch(                            \
      #name,                                             \
      [on_cpu = (device).is_cpu()](auto&... arguments) { \
        if (on_cpu) {                                    \
          ::millrace::cpu::name(arguments...);           \
        } else if constexpr (::millrace::kWithCuda) {    \
          ::millrace::cuda::name(arguments...);          \
        }                                                \
      },                                                 \
      __VA_ARGS__)

/// Runs a kernel that only CPUs have.
#define MILLRACE_LAUNCH_ON_CPU(name, ...) \
  ::millrace::detail::launch(             \
      #name, [](auto&... arguments) { ::millrace::cpu::name(arguments...); }, __VA_ARGS__)
