#include <fmt/format.h>

#include "support.h"
#include "tensor/kernels/index.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/reduce.h"

namespace millrace {
namespace {

class CudaSelect : public CudaNetworkKernels {};

using View = std::function<Tensor(const Tensor&)>;
const View kViews[] = {
    [](const Tensor& x) { return x; },
    [](const Tensor& x) { return x.transpose(0, -1); },
    [](const Tensor& x) { return x.slice(-1, 0, x.size(-1), 2).transpose(0, 1); },
    [](const Tensor& x) {
      return x.unsqueeze(1).expand({x.size(0), 3, x.size(1), x.size(2), x.size(3)});
    },
};

/// To the bit: sums of eighths have no rounding in f32 or f64, and one when they are stored.
void check_reductions(const Tensor& x, const View& view, const std::vector<int>& dims) {
  Shape kept = view(x).shape();
  for (int dim : dims) {
    kept[dim] = 1;
  }
  for (ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
    const bool widens = op == ReduceOp::sum && !is_floating(x.dtype());
    const Tensor out = garbage(kept, {.dtype = widens ? DType::i64 : x.dtype()});
    expect_like_cpu(
        fmt::format("reduce {} {} {} dims [{}] seed {}", static_cast<int>(op), x.dtype(), view(x).shape(),
                    fmt::join(dims, ","), test::seed()),
        [&](Device device, const Tensors& in, Tensors& out) {
          MILLRACE_LAUNCH(device, reduce, op, view(in[0]), out[0]);
        },
        {x}, {out}, 0);
  }
}

TEST_F(CudaSelect, ReductionsOfAllAxesAndLayoutsAreTheCpus) {
  auto engine = test::random_engine();
  for (const Shape& shape : {Shape{2, 3, 5, 7}, Shape{3, 1, 4, 130}, Shape{1, 70, 1, 1}}) {
    const Tensor x = test::sample(shape, DType::f32, engine);
    for (const View& view : kViews) {
      for (const std::vector<int>& dims :
           std::vector<std::vector<int>>{{0, 1, 2, 3}, {0}, {1}, {3}, {0, 2, 3}, {2, 3}, {1, 3}}) {
        check_reductions(x, view, dims);
      }
    }
  }
}

TEST_F(CudaSelect, ReductionsOfAllTypesAreTheCpus) {
  auto engine = test::random_engine();
  for (DType dtype : test::kAllTypes) {
    const Tensor x = test::sample({4, 3, 5, 17}, dtype, engine);
    check_reductions(x, kViews[0], {0, 2, 3});
    check_reductions(x, kViews[2], {3});
  }
}

TEST_F(CudaSelect, LongReductionsAreSplitAndTheCpus) {
  auto engine = test::random_engine();
  for (DType dtype : {DType::f32, DType::bf16, DType::u8}) {
    check_reductions(test::sample({2, 1, 1, 20000}, dtype, engine), kViews[0], {3});       // along rows
    check_reductions(test::sample({9000, 5, 1, 1}, dtype, engine), kViews[0], {0});        // along columns
    check_reductions(test::sample({30, 3, 20, 10}, dtype, engine), kViews[1], {0, 2, 3});  // several loops
  }
}

TEST_F(CudaSelect, HalfTypesSumToF32AndEmptySumsAreZero) {
  auto engine = test::random_engine();
  for (DType dtype : {DType::f16, DType::bf16}) {
    expect_like_cpu(
        "sum to f32",
        [](Device device, const Tensors& in, Tensors& out) {
          MILLRACE_LAUNCH(device, reduce, ReduceOp::sum, in[0], out[0]);
        },
        {test::sample({30, 40}, dtype, engine)}, {garbage({1, 40}, {})}, 0);
  }
  for (const Shape& shape : {Shape{0, 3}, Shape{3, 0}}) {
    expect_like_cpu(
        "empty sum",
        [](Device device, const Tensors& in, Tensors& out) {
          MILLRACE_LAUNCH(device, reduce, ReduceOp::sum, in[0], out[0]);
        },
        {zeros(shape)}, {garbage({1, shape[1]}, {})}, 0);
  }
}

TEST_F(CudaSelect, NotANumberWinsReductions) {
  Tensor x = Draw(3).tensor({6, 500}, {});
  x.set({2, 130}, std::numeric_limits<double>::quiet_NaN());
  x.set({2, 77}, std::numeric_limits<double>::quiet_NaN());
  x.set({4, 0}, std::numeric_limits<double>::quiet_NaN());
  for (ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
    expect_like_cpu(
        "reduce with a not-a-number",
        [&](Device device, const Tensors& in, Tensors& out) {
          MILLRACE_LAUNCH(device, reduce, op, in[0], out[0]);
        },
        {x}, {garbage({6, 1}, {})}, op == ReduceOp::sum ? test::chain(500, 4 * test::kCpuLanes) : 0);
  }
  expect_like_cpu(
      "argmax with a not-a-number",
      [](Device device, const Tensors& in, Tensors& out) {
        MILLRACE_LAUNCH(device, argmax, in[0], 1, out[0]);
      },
      {x}, {garbage({6, 1}, {.dtype = DType::i64})}, 0);
}

TEST_F(CudaSelect, ArgmaxIsTheCpus) {
  auto engine = test::random_engine();
  const auto check = [&](const Tensor& x, const View& view, int dim) {  // of few values: ties are common
    Shape kept = view(x).shape();
    kept[dim] = 1;
    expect_like_cpu(
        fmt::format("argmax {} {} dim {} seed {}", x.dtype(), view(x).shape(), dim, test::seed()),
        [&](Device device, const Tensors& in, Tensors& out) {
          MILLRACE_LAUNCH(device, argmax, view(in[0]), dim, out[0]);
        },
        {x}, {garbage(kept, {.dtype = DType::i64})}, 0);
  };
  for (DType dtype : test::kAllTypes) {
    for (int dim = 0; dim < 4; ++dim) {
      check(test::sample({2, 3, 5, 7}, dtype, engine), kViews[dim % 3], dim);
    }
    check(test::sample({1, 1, 1, 20000}, dtype, engine), kViews[0], 3);
    check(test::sample({70, 10, 1, 1}, dtype, engine), kViews[0], 1);
  }
}

Tensor random_index(const Shape& shape, std::int64_t size, std::mt19937_64& engine) {
  Tensor index = empty(shape, {.dtype = DType::i64});
  for (std::int64_t i = 0; i < index.numel(); ++i) {
    index.data<std::int64_t>()[i] = static_cast<std::int64_t>(engine() % static_cast<std::uint64_t>(size));
  }
  return index;
}

TEST_F(CudaSelect, IndexSelectGatherAndScatterAddAreTheCpus) {
  auto engine = test::random_engine();
  const Shape shape{3, 8, 2, 16};
  for (DType dtype : test::kAllTypes) {
    const Tensor x = test::sample(shape, dtype, engine);
    for (int v = 0; v < 3; ++v) {
      const View& view = kViews[v];
      for (int dim = 0; dim < 4; ++dim) {
        const Shape seen = view(x).shape();
        const std::string what = fmt::format("{} {} dim {} seed {}", dtype, seen, dim, test::seed());
        Shape picked = seen;
        picked[dim] = 9;
        expect_like_cpu(
            "index_select " + what,
            [&](Device device, const Tensors& in, Tensors& out) {
              MILLRACE_LAUNCH(device, index_select, view(in[0]), dim, in[1], out[0]);
            },
            {x, random_index({9}, seen[dim], engine)}, {garbage(picked, {.dtype = dtype})}, 0);
        Shape smaller = seen;
        smaller[dim] = 7;
        smaller[(dim + 1) % 4] = 2;
        const Tensor index = random_index(smaller, seen[dim], engine);
        expect_like_cpu(
            "gather " + what,
            [&](Device device, const Tensors& in, Tensors& out) {
              MILLRACE_LAUNCH(device, gather, view(in[0]), dim, in[1], out[0]);
            },
            {x, index}, {garbage(smaller, {.dtype = dtype})}, 0);
        expect_like_cpu(
            "scatter_add_ " + what,
            [&](Device device, const Tensors& in, Tensors& out) {
              Tensor into = view(out[0]);
              MILLRACE_LAUNCH(device, scatter_add, into, dim, in[0], in[1]);
            },
            {index, test::sample(smaller, dtype, engine)}, {x}, 0);
      }
    }
  }
}

TEST_F(CudaSelect, AnIndexOutOfRangeIsAnErrorWhereTheHostWaits) {
  const Tensor x = ones({3, 4}, {.device = kGpu});
  const Tensor index = tensor({1, 3}, {.dtype = DType::i64}).to(kGpu);
  Tensor out = full({2, 4}, 7, {.device = kGpu}), into = zeros({3, 4}, {.device = kGpu});
  const auto error = [] { return test::input_error([] { current_stream(kGpu).synchronize(); }); };
  MILLRACE_LAUNCH(kGpu, index_select, x, 0, index, out);
  EXPECT_EQ(error(), "index_select: index 3 is outside of a dimension of size 3");
  EXPECT_EQ(test::values(out.to(kCpu)), (std::vector<double>{1, 1, 1, 1, 0, 0, 0, 0}));
  const Tensor rows = index.view({2, 1}).expand({2, 4});
  MILLRACE_LAUNCH(kGpu, gather, x, 0, rows, out);
  EXPECT_EQ(error(), "gather: index 3 is outside of a dimension of size 3");
  MILLRACE_LAUNCH(kGpu, scatter_add, into, 0, rows, out);
  EXPECT_EQ(error(), "scatter_add_: index 3 is outside of a dimension of size 3");
  EXPECT_EQ(test::values(into.to(kCpu)), (std::vector<double>{0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0}));
  EXPECT_EQ(error(), "(no error)");
}

}  // namespace
}  // namespace millrace
