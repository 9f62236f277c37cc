#include "tensor/cuda/arguments.h"

#include <algorithm>
#include <cassert>
#include <fmt/format.h>
#include <string>

namespace millrace::cuda {
namespace {

constexpr std::uint8_t bits(std::initializer_list<DType> types) {
  std::uint8_t result = 0;
  for (const DType type : types) {
    result |= static_cast<std::uint8_t>(1 << static_cast<int>(type));
  }
  return result;
}
constexpr std::uint8_t kF32 = bits({DType::f32}), kU8 = bits({DType::u8}), kI64 = bits({DType::i64}),
                       kPlace = bits({DType::u8, DType::i32}),
                       kActivation = bits({DType::f32, DType::bf16, DType::f16}),
                       kFloat = kActivation | bits({DType::f64}),
                       kAll = kFloat | bits({DType::u8, DType::i32, DType::i64});

using enum Order;

constexpr Argument kOut{"out", kAll, any};
constexpr Argument like_out(std::string_view name) { return {name, kAll, any, "out"}; }
constexpr Argument vector(std::string_view name) { return {name, kF32, row_major}; }
constexpr Argument maybe_vector(std::string_view name) { return {name, kF32, row_major, {}, true}; }
constexpr Argument image(std::string_view name) { return {name, kActivation, channels_last}; }
constexpr Argument image_like(std::string_view like, std::string_view name) {
  return {name, kActivation, channels_last, like};
}
constexpr Argument maybe_image_like(std::string_view like, std::string_view name) {
  return {name, kActivation, channels_last, like, true};
}
constexpr Argument rows(std::string_view name, std::string_view like = {}) {
  return {name, kActivation, row_major, like};
}

constexpr KernelRow kTable[] = {
    {"fill", {kOut}},
    {"copy", {{{"source", kAll, any}, kOut}}},
    {"binary", {{like_out("a"), like_out("b"), kOut}}},
    {"binary_scalar", {{like_out("a"), kOut}}},
    {"add_scaled", {{like_out("a"), like_out("b"), kOut}}},
    {"compare", {{{"a", kAll, any}, {"b", kAll, any, "a"}, {"out", kU8, any}}}},
    {"clamp", {{like_out("x"), kOut}}},
    {"where", {{{"condition", kU8, any}, like_out("a"), like_out("b"), kOut}}},
    {"unary", {{like_out("x"), kOut}}},
    {"unary_backward",
     {{{"grad", kFloat, any, "grad_x"},
       {"x", kFloat, any, "grad_x", true},
       {"out", kFloat, any, "grad_x", true},
       {"grad_x", kFloat, any}}}},
    {"arange", {{{"out", kAll, row_major}}}},
    {"reduce", {{{"x", kAll, any}, kOut}}},
    {"argmax", {{{"x", kAll, any}, {"out", kI64, any}}}},
    {"index_select", {{like_out("x"), {"index", kI64, any}, kOut}}},
    {"gather", {{like_out("x"), {"index", kI64, any}, kOut}}},
    {"scatter_add", {{{"into", kAll, any}, {"index", kI64, any}, {"source", kAll, any, "into"}}}},
    {"rand_uniform", {{{"out", kFloat, dense}}}},
    {"rand_normal", {{{"out", kFloat, dense}}}},
    {"max_pool2d_forward", {{image("x"), image_like("x", "out"), {"index", kPlace, channels_last}}}},
    {"max_pool2d_backward",
     {{image("grad"), {"index", kPlace, channels_last}, image_like("grad", "grad_x")}}},
    {"avg_pool2d_forward", {{image("x"), image_like("x", "out")}}},
    {"avg_pool2d_backward", {{image("grad"), image_like("grad", "grad_x")}}},
    {"batch_norm_statistics", {{image("x"), vector("mean"), vector("var")}}},
    {"batch_norm_apply",
     {{image("x"), vector("mean"), vector("var"), maybe_vector("weight"), maybe_vector("bias"),
       image_like("x", "out")}}},
    {"batch_norm_backward",
     {{image_like("x", "grad"), image("x"), vector("mean"), vector("var"), maybe_vector("weight"),
       maybe_image_like("x", "grad_x"), maybe_vector("grad_weight"), maybe_vector("grad_bias")}}},
    {"pad2d_forward", {{image("x"), image_like("x", "out")}}},
    {"pad2d_backward", {{image("grad"), image_like("grad", "grad_x")}}},
    {"conv2d_bias", {{vector("bias"), image("out")}}},
    {"softmax", {{rows("x"), rows("out", "x")}}},
    {"softmax_backward", {{rows("grad", "out"), rows("out"), rows("grad_x", "out")}}},
    {"log_softmax", {{rows("x"), rows("out")}}},
    {"log_softmax_backward", {{rows("grad", "out"), rows("out"), rows("grad_x", "out")}}},
    {"cross_entropy_forward",
     {{rows("logits"), {"labels", kI64, row_major}, rows("log_probabilities"), vector("losses")}}},
    {"cross_entropy_backward",
     {{{"grad", kF32, any}, rows("log_probabilities"), {"labels", kI64, row_major}, rows("grad_logits")}}},
    {"dropout", {{{"x", kActivation, dense}, {"out", kActivation, dense, "x"}}}},
    {"normalize_pixels", {{{"pixels", kU8, channels_last}, vector("scale"), vector("bias"), image("out")}}},
    {"update_loss_scale", {{vector("gradients"), vector("state")}}},
    {"sgd_step", {{vector("weight"), vector("grad"), vector("momentum")}}},
    {"adam_step", {{vector("weight"), vector("grad"), vector("exp_avg"), vector("exp_avg_sq")}}},
    {"rms_prop_step",
     {{vector("weight"), vector("grad"), vector("square_avg"), maybe_vector("grad_avg"),
       maybe_vector("momentum")}}},
};

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
    if ((argument.types & bits({type})) != 0) {
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

std::span<const KernelRow> kernel_table() { return kTable; }

void check_arguments(std::string_view kernel, std::span<const Tensor* const> tensors) {
  const auto* const row =
      std::ranges::find_if(kTable, [&](const KernelRow& each) { return each.kernel == kernel; });
  assert(row != std::end(kTable));
  const auto place_of = [&](std::string_view name) {
    return std::ranges::find(row->arguments, name, &Argument::name) - row->arguments.begin();
  };
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
    return argument.like.empty() || !tensor.defined() ||
           is_like(tensor, *tensors[static_cast<std::size_t>(place_of(argument.like))], argument.order);
  };
  assert(tensors.size() == row->arguments.size() || row->arguments[tensors.size()].name.empty());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!fits(row->arguments[i], *tensors[i])) {
      refuse(kernel, row->arguments[i], *tensors[i]);
    }
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!fits_others(row->arguments[i], *tensors[i])) {
      refuse(kernel, row->arguments[i], *tensors[i]);
    }
  }
}

}  // namespace millrace::cuda
