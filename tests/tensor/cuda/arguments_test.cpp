// What the kernels on GPUs take: each row of the table refuses all else, and each launcher asks it first.
#include "tensor/cuda/arguments.h"

#include <fmt/format.h>
#include <functional>
#include <gmock/gmock.h>
#include <map>

#include "tensor/cuda/conv/conv2d_bias.h"
#include "tensor/kernels/conv.h"
#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/index.h"
#include "tensor/kernels/loss_scale.h"
#include "tensor/kernels/matmul.h"
#include "tensor/kernels/norm.h"
#include "tensor/kernels/optimizer.h"
#include "tensor/kernels/pixels.h"
#include "tensor/kernels/pool.h"
#include "tensor/kernels/random.h"
#include "tensor/kernels/reduce.h"
#include "tensor/kernels/rows.h"
#include "tests/tensor/gpu/on_cuda.h"

namespace millrace::cuda {
namespace {

using test::kGpu;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class CudaArguments : public test::CudaTest {};

constexpr DType kTypes[] = {DType::f32, DType::f64, DType::f16, DType::bf16,
                            DType::u8,  DType::i32, DType::i64};
bool takes(const Argument& argument, DType type) {
  return (argument.types >> static_cast<int>(type) & 1) != 0;
}

Tensor made(const Argument& argument, DType type, Device device = kGpu) {
  const bool image = argument.order == Order::channels_last;
  return empty(image ? Shape{2, 4, 3, 5} : Shape{2, 3},
               {.dtype = type,
                .device = device,
                .format = image ? MemoryFormat::channels_last : MemoryFormat::row_major});
}
DType type_for(const Argument& argument) {
  return *std::ranges::find_if(kTypes, [&](DType type) { return takes(argument, type); });
}

/// All arguments of a row as they should be, but one.
class Call {
 public:
  explicit Call(const KernelRow& row) : row_(row) {
    for (const Argument& argument : row.arguments) {
      if (!argument.name.empty()) {
        const auto like = std::ranges::find(row.arguments, argument.like, &Argument::name);
        tensors_.push_back(made(argument, type_for(argument.like.empty() ? argument : *like)));
      }
    }
  }
  std::size_t size() const { return tensors_.size(); }
  const Argument& argument(std::size_t place) const { return row_.arguments[place]; }
  DType type(std::size_t place) const { return tensors_[place].dtype(); }

  std::string with(std::size_t place, const Tensor& tensor) const {
    std::vector<Tensor> given = tensors_;
    given[place] = tensor;
    return answer(given);
  }
  std::string answer() const { return answer(tensors_); }

 private:
  std::string answer(const std::vector<Tensor>& given) const {
    std::array<const Tensor*, 10> each{};
    std::ranges::transform(given, each.begin(), [](const Tensor& tensor) { return &tensor; });
    return test::input_error([&] { check_arguments(row_.kernel, std::span(each.data(), given.size())); });
  }
  const KernelRow& row_;
  std::vector<Tensor> tensors_;
};

TEST_F(CudaArguments, EachRowRefusesWhatItDoesNotTake) {
  int refused = 0;
  for (const KernelRow& row : kernel_table()) {
    const Call call(row);
    EXPECT_EQ(call.answer(), "(no error)") << row.kernel;
    for (std::size_t i = 0; i < call.size(); ++i) {
      const Argument& argument = call.argument(i);
      SCOPED_TRACE(fmt::format("{}: {}", row.kernel, argument.name));
      const auto expect_refusal = [&](const Tensor& tensor, const std::string& got) {
        EXPECT_THAT(call.with(i, tensor), AllOf(StartsWith(fmt::format("{}: got ", row.kernel)),
                                                HasSubstr(got), HasSubstr(", expected ")));
        ++refused;
      };
      for (const DType type : kTypes) {
        if (!takes(argument, type) || (!argument.like.empty() && type != call.type(i))) {
          expect_refusal(made(argument, type), fmt::format("{} in {}", argument.name, type));
        }
      }
      if (argument.optional) {
        EXPECT_EQ(call.with(i, Tensor()), "(no error)");
      } else {
        expect_refusal(Tensor(), fmt::format("got no {}", argument.name));
      }
      const TensorOptions options{.dtype = call.type(i), .device = kGpu};
      if (argument.order == Order::row_major) {
        expect_refusal(empty({3, 2}, options).t(), "strides [1, 2]");
      } else if (argument.order == Order::channels_last) {
        expect_refusal(empty({2, 4, 3, 5}, options), "strides [60, 15, 5, 1]");
      } else if (argument.order == Order::dense) {
        expect_refusal(empty({2, 6}, options).narrow(1, 0, 3), "strides [6, 1]");
      } else {
        EXPECT_EQ(call.with(i, empty({3, 2}, options).t()), "(no error)");
      }
      if (call.size() > 1) {
        expect_refusal(made(argument, call.type(i), kCpu), "");
      }
    }
  }
  EXPECT_GT(refused, 500);
}

TEST_F(CudaArguments, AllOnTheCpuAreRefused) {
  const Tensor x = zeros({2, 3});
  EXPECT_THAT(test::input_error([&] {
                check_arguments("softmax", std::array{&x, &x});
              }),
              AllOf(HasSubstr("softmax: got x in f32 [2, 3], strides [3, 1], on cpu at 0x"),
                    HasSubstr("expected f32 or bf16 or f16, dense and row-major, all on one GPU")));
}

/// Without tensors a launcher that asks the table first says so; another one would crash or do nothing.
TEST_F(CudaArguments, EachLauncherAsksFirst) {
  Tensor no, none, nothing;
  const std::map<std::string_view, std::function<void()>> launchers = {
      {"fill", [&] { fill(no, 0); }},
      {"copy", [&] { copy(no, none); }},
      {"binary", [&] { binary(BinaryOp::add, no, no, none); }},
      {"binary_scalar", [&] { binary_scalar(BinaryOp::add, no, 1, none); }},
      {"add_scaled", [&] { add_scaled(no, no, 1, none); }},
      {"compare", [&] { compare(CompareOp::less, no, no, none); }},
      {"clamp", [&] { cuda::clamp(no, 0, 1, none); }},
      {"where", [&] { cuda::where(no, no, no, none); }},
      {"unary", [&] { unary(UnaryOp::exp, no, none); }},
      {"unary_backward", [&] { unary_backward(UnaryOp::exp, no, no, no, none); }},
      {"arange", [&] { arange(0, 1, none); }},
      {"reduce", [&] { reduce(ReduceOp::sum, no, none); }},
      {"argmax", [&] { argmax(no, 0, none); }},
      {"index_select", [&] { cuda::index_select(no, 0, no, none); }},
      {"gather", [&] { cuda::gather(no, 0, no, none); }},
      {"scatter_add", [&] { scatter_add(none, 0, no, no); }},
      {"rand_uniform", [&] { rand_uniform(0, 0, none); }},
      {"rand_normal", [&] { rand_normal(0, 0, none); }},
      {"max_pool2d_forward", [&] { max_pool2d_forward(no, {}, none, nothing); }},
      {"max_pool2d_backward", [&] { max_pool2d_backward(no, no, {}, none); }},
      {"avg_pool2d_forward", [&] { avg_pool2d_forward(no, {}, none); }},
      {"avg_pool2d_backward", [&] { avg_pool2d_backward(no, {}, none); }},
      {"batch_norm_statistics", [&] { batch_norm_statistics(no, none, nothing); }},
      {"batch_norm_apply", [&] { batch_norm_apply(no, no, no, 0, no, no, none); }},
      {"batch_norm_backward",
       [&] { batch_norm_backward(no, no, no, no, 0, no, true, none, nothing, nothing); }},
      {"pad2d_forward", [&] { pad2d_forward(no, {}, PadMode::zero, none); }},
      {"pad2d_backward", [&] { pad2d_backward(no, {}, PadMode::zero, none); }},
      {"conv2d_bias", [&] { add_bias(no, none); }},
      {"softmax", [&] { softmax(no, none); }},
      {"softmax_backward", [&] { softmax_backward(no, no, none); }},
      {"log_softmax", [&] { log_softmax(no, none); }},
      {"log_softmax_backward", [&] { log_softmax_backward(no, no, none); }},
      {"cross_entropy_forward", [&] { cross_entropy_forward(no, no, 0, none, nothing); }},
      {"cross_entropy_backward", [&] { cross_entropy_backward(no, no, no, 0, none); }},
      {"dropout", [&] { dropout(no, 0.5, 0, 0, none); }},
      {"normalize_pixels", [&] { normalize_pixels(no, no, no, none); }},
      {"update_loss_scale", [&] { update_loss_scale(none, nothing); }},
      {"sgd_step", [&] { sgd_step(none, no, nothing, {}); }},
      {"adam_step", [&] { adam_step(none, no, nothing, nothing, {}); }},
      {"rms_prop_step", [&] { rms_prop_step(none, no, nothing, nothing, nothing, {}); }},
  };
  for (const KernelRow& row : kernel_table()) {
    ASSERT_TRUE(launchers.contains(row.kernel)) << row.kernel;
    EXPECT_THAT(test::input_error(launchers.at(row.kernel)),
                StartsWith(fmt::format("{}: got no {}, expected ", row.kernel, row.arguments[0].name)));
  }
  EXPECT_EQ(kernel_table().size(), launchers.size());
}

}  // namespace
}  // namespace millrace::cuda
