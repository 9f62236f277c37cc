// What the kernels on GPUs take: each row of the table refuses all else, and each launcher asks it first.
#include "tensor/cuda/arguments.h"

#include <algorithm>
#include <fmt/format.h>
#include <gmock/gmock.h>

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
      const auto like = std::ranges::find(row.arguments, argument.like, &Argument::name);
      tensors_.push_back(made(argument, type_for(argument.like.empty() ? argument : *like)));
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
    std::vector<const Tensor*> each;
    for (const Tensor& tensor : given) {
      each.push_back(&tensor);
    }
    return test::input_error([&] { row_.check(each); });
  }
  const KernelRow& row_;
  std::vector<Tensor> tensors_;
};

TEST_F(CudaArguments, EachRowRefusesWhatItDoesNotTake) {
  int refused = 0;
  for (const KernelRow* each : kernel_table()) {
    const KernelRow& row = *each;
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
  const auto softmax = std::ranges::find(kernel_table(), "softmax", &KernelRow::kernel);
  ASSERT_NE(softmax, kernel_table().end());
  EXPECT_THAT(test::input_error([&] {
                (*softmax)->check({&x, &x});
              }),
              AllOf(HasSubstr("softmax: got x in f32 [2, 3], strides [3, 1], on cpu at 0x"),
                    HasSubstr("expected f32 or bf16 or f16, dense and row-major, all on one GPU")));
}

/// Without tensors a launcher that asks its row first says so; another one would crash or do nothing.
TEST_F(CudaArguments, EachLauncherAsksFirst) {
  EXPECT_GE(kernel_table().size(), 40U);
  for (const KernelRow* row : kernel_table()) {
    EXPECT_THAT(test::input_error(row->launch_on_nothing),
                StartsWith(fmt::format("{}: got no {}, expected ", row->kernel, row->arguments[0].name)));
  }
}

}  // namespace
}  // namespace millrace::cuda
