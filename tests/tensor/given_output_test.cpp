#include <array>
#include <functional>
#include <gmock/gmock.h>

#include "tests/tensor/sample.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// An operation of a square matrix x, as a new tensor and into a given one.
struct Case {
  const char* name;
  std::function<Tensor(const Tensor& x)> make;
  std::function<void(const Tensor& x, Tensor& out)> into;
};

// NOLINTNEXTLINE: `name(arguments)` and `name(arguments, out)`
#define CASE(name, ...)                                                                                   \
  {                                                                                                       \
#name, [](const Tensor& x) { return name(__VA_ARGS__); }, [](const Tensor& x,                         \
                                                                 Tensor& out) { name(__VA_ARGS__, out); } \
  }

Tensor places() { return tensor({3, 0, 0, 2}, {.dtype = DType::i64}); }
Tensor grid_of_places() { return (arange(0, 16, 1, {.dtype = DType::i64}).view({4, 4}) * 0 + places()); }

const Case kCases[] = {
    CASE(add, x, x.t()),
    CASE(sub, x, x[1]),
    CASE(mul, x.t(), x),
    CASE(div, x, x.t()),
    CASE(maximum, x, x.t()),
    CASE(minimum, x[2], x),
    CASE(add, x, 2),
    CASE(mul, x.t(), 3),
    CASE(exp, x),
    CASE(log, x),
    CASE(sqrt, x.t()),
    CASE(tanh, x),
    CASE(abs, x),
    CASE(pow, x, 3),
    CASE(pow, x.t(), 2),
    CASE(clamp, x, -1, 1.5),
    CASE(where, greater(x, 0), x, x.t()),
    CASE(equal, x, x.t()),
    CASE(not_equal, x, x.t()),
    CASE(less, x, x.t()),
    CASE(less_equal, x, x.t()),
    CASE(greater, x, x[0]),
    CASE(greater_equal, x, x.t()),
    CASE(equal, x, 1),
    CASE(not_equal, x, 1),
    CASE(less, x, 1),
    CASE(less_equal, x, 1),
    CASE(greater, x, 1),
    CASE(greater_equal, x, 1),
    CASE(sum, x, {}),
    CASE(sum, x, {.dims = {1}, .keep_dims = true}),
    CASE(mean, x, {.dims = {0}}),
    CASE(max, x, {.dims = {1}}),
    CASE(min, x, {.dims = {0}, .keep_dims = true}),
    CASE(argmax, x),
    CASE(argmax, x, 1, false),
    CASE(argmax, x, 0, true),
    CASE(var, x, {.dims = {1}}, 0),
    CASE(matmul, x, x.t()),
    CASE(matmul, x, x[1]),
    CASE(index_select, x, 0, places()),
    CASE(index_select, x, -1, places()),
    CASE(gather, x, 0, grid_of_places()),
    CASE(gather, x.t(), 1, grid_of_places()),
    CASE(cat, std::array{x, x.t(), ones({1, 4})}, 0),
    CASE(stack, std::array{x[1], x[0]}, 1),
};

/// Memory in which a matrix and an output lie as close as a test wants them.
struct Room {
  alignas(64) std::array<std::byte, 1024> bytes{};
  Tensor at(std::size_t byte, const Shape& shape, DType dtype) {
    return from_blob(bytes.data() + byte, shape, {.dtype = dtype});
  }
};

MATCHER_P(IsSame, expected, "") {  // not a number is itself
  *result_listener << "expected\n" << expected << "\nseed " << test::seed();
  return ExplainMatchResult(::testing::Pointwise(::testing::NanSensitiveDoubleEq(), test::values(expected)),
                            test::values(arg), result_listener);
}

class GivenOutput : public ::testing::TestWithParam<Case> {};

TEST_P(GivenOutput, HoldsTheResult) {
  auto engine = test::random_engine();
  const Tensor x = test::sample({4, 4}, DType::f32, engine);
  const Tensor expected = GetParam().make(x);
  Tensor out = zeros(expected.shape(), {.dtype = expected.dtype()});
  const auto version = out.storage()->version();
  GetParam().into(x, out);
  EXPECT_THAT(out, IsSame(expected));
  EXPECT_EQ(out.storage()->version(), version + 1);

  Shape wide = expected.shape();
  wide.push_back(2);
  Tensor strided = zeros(wide, {.dtype = expected.dtype()}).select(-1, 1);
  GetParam().into(x, strided);
  EXPECT_THAT(strided, IsSame(expected));
}

TEST_P(GivenOutput, MayShareMemoryWithTheOperands) {
  auto engine = test::random_engine();
  const Tensor sample = test::sample({4, 4}, DType::f32, engine);
  const Tensor expected = GetParam().make(sample);
  constexpr std::size_t kPlace = 512;
  for (int distance : {-128, -64, -32, -8, 0, 8, 16, 48, 64}) {
    Room room;
    Tensor x = room.at(kPlace, {4, 4}, DType::f32);
    x.copy_(sample);
    Tensor out = room.at(kPlace + static_cast<std::size_t>(distance), expected.shape(), expected.dtype());
    GetParam().into(x, out);
    EXPECT_THAT(out, IsSame(expected)) << "distance " << distance;
    if (expected.dim() == 2) {
      x.copy_(sample);
      Tensor turned = room.at(kPlace + static_cast<std::size_t>(distance),
                              {expected.size(1), expected.size(0)}, expected.dtype())
                          .t();
      GetParam().into(x, turned);
      EXPECT_THAT(turned, IsSame(expected)) << "transposed, distance " << distance;
    }
  }
}

TEST_P(GivenOutput, MustFit) {
  const Tensor x = ones({4, 4});
  const Tensor expected = GetParam().make(x);
  Tensor wrong = zeros({4, 7}, {.dtype = expected.dtype()});
  const std::string shape = fmt::format("{}", expected.shape());
  EXPECT_THAT(test::input_error([&] { GetParam().into(x, wrong); }),
              AllOf(HasSubstr(GetParam().name), HasSubstr(shape), HasSubstr("[4, 7]")));
  Tensor other = zeros(expected.shape(), {.dtype = DType::f16});
  EXPECT_THAT(test::input_error([&] { GetParam().into(x, other); }), HasSubstr("f16"));
  Tensor none;
  EXPECT_THAT(test::input_error([&] { GetParam().into(x, none); }), HasSubstr(GetParam().name));
  if (expected.numel() > 1) {
    Tensor expanded = zeros({}, {.dtype = expected.dtype()}).expand(expected.shape());
    EXPECT_THAT(test::input_error([&] { GetParam().into(x, expanded); }), HasSubstr("expanded"));
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, GivenOutput, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return fmt::format("{}_{}", info.index, info.param.name); });

TEST(InPlace, OperandsMayOverlap) {
  const auto row = [] { return arange(0, 6); };
  Tensor x = row();
  x.narrow(0, 1, 5).add_(x.narrow(0, 0, 5));
  EXPECT_EQ(test::values(x), (std::vector<double>{0, 1, 3, 5, 7, 9}));
  x = row();
  x.narrow(0, 1, 5).sub_(x.narrow(0, 0, 5), 2);
  EXPECT_EQ(test::values(x), (std::vector<double>{0, 1, 0, -1, -2, -3}));
  x = row();
  x.narrow(0, 1, 5).mul_(x.narrow(0, 0, 5));
  EXPECT_EQ(test::values(x), (std::vector<double>{0, 0, 2, 6, 12, 20}));
  x = row();
  x.narrow(0, 1, 5).copy_(x.narrow(0, 0, 5));
  EXPECT_EQ(test::values(x), (std::vector<double>{0, 0, 1, 2, 3, 4}));
  x = row().view({2, 3}).slice(1, 0, 2);
  x.copy_(x.t());
  EXPECT_EQ(test::values(x), (std::vector<double>{0, 3, 1, 4}));
  EXPECT_THROW(scatter_add_(x, 0, zeros({1, 2}, {.dtype = DType::i64}), x.narrow(0, 1, 1)), InputError);
}

}  // namespace
}  // namespace millrace
